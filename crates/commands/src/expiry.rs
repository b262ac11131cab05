//! Times to live as clients write them: `EX 10`, `PXAT 1700000000000`, EXPIRE's options.
//!
//! All arithmetic is on `i64` milliseconds and checked, since a wrapped time would delete the key
//! it was meant to keep.

use crate::args::Options;
use crate::error::{CommandError, Echo};
use crate::view::View;

/// How a time to live is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimeForm {
    /// Seconds rather than milliseconds.
    pub(crate) seconds: bool,
    /// A time of day rather than a duration.
    pub(crate) absolute: bool,
}

impl TimeForm {
    pub(crate) const EX: TimeForm = TimeForm { seconds: true, absolute: false };
    pub(crate) const PX: TimeForm = TimeForm { seconds: false, absolute: false };
    pub(crate) const EXAT: TimeForm = TimeForm { seconds: true, absolute: true };
    pub(crate) const PXAT: TimeForm = TimeForm { seconds: false, absolute: true };

    /// The form that an option of SET or GETEX announces.
    pub(crate) fn of_option(word: &[u8]) -> Option<TimeForm> {
        Some(match word {
            b"EX" => TimeForm::EX,
            b"PX" => TimeForm::PX,
            b"EXAT" => TimeForm::EXAT,
            b"PXAT" => TimeForm::PXAT,
            _ => return None,
        })
    }

    /// When it is, in ms since the epoch; `None` if that is no `i64`.
    pub(crate) fn deadline_ms(self, view: &dyn View, amount: i64) -> Option<i64> {
        let ms = if self.seconds { amount.checked_mul(1000)? } else { amount };
        if self.absolute { Some(ms) } else { ms.checked_add(now_ms(view)) }
    }

    /// When it is, if the amount must be positive (SET, GETEX).
    ///
    /// *Errors*: `InvalidExpireTime` with `command`'s name.
    pub(crate) fn positive_deadline_ms(
        self,
        view: &dyn View,
        amount: i64,
        command: &'static str,
    ) -> Result<u64, CommandError> {
        let deadline = if amount > 0 { self.deadline_ms(view, amount) } else { None };
        deadline
            .and_then(|ms| u64::try_from(ms).ok())
            .ok_or(CommandError::InvalidExpireTime(command))
    }
}

/// The time as the `i64` that Redis computes with.
pub(crate) fn now_ms(view: &dyn View) -> i64 {
    i64::try_from(view.now_ms()).unwrap_or(i64::MAX)
}

/// When EXPIRE and its like may act.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Condition {
    no_ttl: bool,
    has_ttl: bool,
    later: bool,
    sooner: bool,
}

impl Condition {
    /// Reads NX, XX, GT, LT to the end of the arguments.
    pub(crate) fn parse(mut options: Options<'_>) -> Result<Condition, CommandError> {
        let mut condition = Condition::default();
        while let Some(raw) = options.raw() {
            match crate::args::Word::new(raw).as_bytes() {
                b"NX" => condition.no_ttl = true,
                b"XX" => condition.has_ttl = true,
                b"GT" => condition.later = true,
                b"LT" => condition.sooner = true,
                _ => {
                    return Err(CommandError::UnsupportedOption(Echo::new(raw)));
                }
            }
        }
        if condition.no_ttl && (condition.has_ttl || condition.later || condition.sooner) {
            return Err(CommandError::EXPIRE_NX_CONFLICT);
        }
        if condition.later && condition.sooner {
            return Err(CommandError::EXPIRE_GT_LT_CONFLICT);
        }
        Ok(condition)
    }

    /// Whether a key with the present time to live may get the new one. None counts as forever.
    pub(crate) fn allows(self, present_ms: Option<u64>, new_ms: i64) -> bool {
        let Some(present) = present_ms else { return !self.has_ttl && !self.later };
        let present = i64::try_from(present).unwrap_or(i64::MAX);
        let refused =
            self.no_ttl || (self.later && new_ms <= present) || (self.sooner && new_ms >= present);
        !refused
    }
}
