//! Server commands; the router runs most of them.

use crate::command::Command;

pub(crate) const COMMANDS: &[Command] = &[];
