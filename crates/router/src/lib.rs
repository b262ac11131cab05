//! Connections, sessions, routing.
