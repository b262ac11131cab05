//! Connection commands; the router runs them.

use crate::command::Command;

pub(crate) const COMMANDS: &[Command] = &[];
