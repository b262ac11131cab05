//! Partition replicas: log, memtable, LSM.

pub mod wal;
