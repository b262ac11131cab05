//! String commands. Layout of a string: types/string.rs.

use crate::command::Command;

pub(crate) const COMMANDS: &[Command] = &[];
