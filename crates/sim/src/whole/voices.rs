//! What the code of the store says while it is simulated: its log, for the trace, and its panics, for
//! tasks of a runtime die silently.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

thread_local! {
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the panics of each thread from now on.
pub(crate) fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.with_borrow_mut(|panicked| {
                panicked.get_or_insert_with(|| panic.to_string().replace('\n', ": "));
            });
            before(panic);
        }));
    });
}

/// The first panic of this thread since this was last asked.
pub(crate) fn panicked() -> Option<String> {
    PANICKED.take()
}

/// What was logged since this was last asked.
pub(crate) fn said() -> Vec<String> {
    SAID.take()
}

/// Keeps what is logged.
pub(crate) struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields } = line;
        SAID.with_borrow_mut(|said| said.push(format!("{message}{fields}")));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a text takes everything");
    }
}
