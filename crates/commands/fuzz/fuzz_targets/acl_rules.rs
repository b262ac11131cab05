//! Rules of ACL SETUSER, one per line: no input panics, and what is taken is the same when it is read
//! back from the ACL file.

#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code, reason = "each target uses its part")]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let rules: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    oracle::acl_rules(&rules);
});
