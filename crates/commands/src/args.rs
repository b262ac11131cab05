//! A command's arguments.

use bytes::Bytes;

/// The arguments of a command, its name at position 0.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a>(pub &'a [Bytes]);
