//! Commands on keys of any type, and times to live.

use crate::command::Command;

pub(crate) const COMMANDS: &[Command] = &[];
