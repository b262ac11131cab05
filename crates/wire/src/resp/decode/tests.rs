//! The decoder against Redis's answers, against itself under every cut, and against
//! `redis-protocol`.
