//! Memory of scripts that is not Lua's: what functions of ours put together before Lua gets it, or the
//! client. One string may stand in a table many thousand times, and a table in another, so there is no
//! end to it but this one.

use mlua::Result;

use crate::raise;
use crate::vm::State;

/// What one function holds, until this is dropped.
pub(crate) struct Outside<'a> {
    state: &'a State,
    bytes: usize,
}

impl<'a> Outside<'a> {
    pub(crate) fn new(state: &'a State) -> Outside<'a> {
        Outside { state, bytes: 0 }
    }

    /// Counts another part, by which it has so many bytes in all.
    ///
    /// *Errors*: all functions under way hold more than the state may use, or the script has to end.
    pub(crate) fn is_now(&mut self, bytes: usize) -> Result<()> {
        let held = &self.state.outside_bytes;
        held.set(held.get() - self.bytes + bytes);
        self.bytes = bytes;
        if held.get() > self.state.memory_bytes_max.get() {
            return Err(raise::out_of_memory());
        }
        self.state.work(1)
    }

    /// The same, with so many bytes more.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<()> {
        self.is_now(self.bytes + bytes)
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        let held = &self.state.outside_bytes;
        held.set(held.get() - self.bytes);
    }
}
