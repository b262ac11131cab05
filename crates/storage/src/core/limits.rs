//! What one evaluation may change at most.

use commands::{CommandError, Effects};

use super::EFFECTS_BYTES_MAX;
use crate::lsm::ROW_KEY_BYTES_MAX;

/// Refuses what could not be logged or stored.
pub(crate) fn check_effects(effects: &Effects) -> Result<(), CommandError> {
    if effects.writes.iter().any(|write| write.row.len() > ROW_KEY_BYTES_MAX) {
        return Err(CommandError::KeyTooLong);
    }
    if effects_bytes(effects) > EFFECTS_BYTES_MAX {
        return Err(CommandError::TooMuchToWrite(EFFECTS_BYTES_MAX));
    }
    Ok(())
}

/// Bytes of rows that effects change, no fewer than they take in a batch.
pub(crate) fn effects_bytes(effects: &Effects) -> usize {
    /// A row's tag, two lengths and checksum, rounded up.
    const FRAMING_BYTES: usize = 16;
    let value = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
    effects.writes.iter().map(|w| FRAMING_BYTES + w.row.len() + value(&w.value)).sum()
}
