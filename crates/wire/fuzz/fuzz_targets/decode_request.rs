//! Any bytes, in pieces of any size: the request decoder never panics, never depends on the
//! pieces, and agrees with `redis-protocol`. The first byte is the size of the pieces.

#![no_main]

#[path = "../oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let [piece_bytes, input @ ..] = data {
        oracle::check(input, usize::from(*piece_bytes).max(1));
    }
});
