//! The partition map, its service and its client.
