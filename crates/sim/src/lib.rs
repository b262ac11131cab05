//! A cluster on one thread, with virtual time and seeded faults.
