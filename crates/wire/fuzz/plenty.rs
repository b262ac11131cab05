//! How much a seeded test of hostile input asks: little in every run, and as much as one likes on a
//! stable compiler.
//!
//! ```text
//! EVENKEEL_FUZZ_INPUTS=1000000 EVENKEEL_FUZZ_SEED=7 cargo test --release -p commands --test hostile
//! ```

/// How many inputs a test asks, unless the environment says otherwise.
pub(crate) fn inputs(few: usize) -> usize {
    number("EVENKEEL_FUZZ_INPUTS").map_or(few, |inputs| inputs as usize)
}

/// The seed of a test; another one of the environment gives each test another one.
pub(crate) fn seed(own: u64) -> u64 {
    number("EVENKEEL_FUZZ_SEED").map_or(own, |seed| seed << 32 | own)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
