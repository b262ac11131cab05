//! Partition replicas: log, memtable, LSM.
