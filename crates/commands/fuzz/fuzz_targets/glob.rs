//! Patterns against texts: no input panics, and none takes long. The first byte is the pattern's length.

#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code, reason = "each target uses its part")]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let [length, rest @ ..] = data {
        let (pattern, text) = rest.split_at(usize::from(*length).min(rest.len()));
        oracle::glob(pattern, text);
    }
});
