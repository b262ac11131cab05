//! RESTORE of any bytes behind a right checksum: no input panics, and what is taken is a sound value.

#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code, reason = "each target uses its part")]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    oracle::restore(data);
});
