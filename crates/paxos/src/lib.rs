//! Multi-Paxos, sans I/O.
