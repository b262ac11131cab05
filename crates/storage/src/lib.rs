//! Partition replicas: log, memtable, LSM.

pub mod lsm;
pub mod row;
pub mod wal;
