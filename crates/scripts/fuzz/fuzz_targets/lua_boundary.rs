//! Bytes across the border of a script's state: as code, as arguments, and as what the libraries take
//! apart. The first byte chooses.

#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code, reason = "each target uses its part")]
mod oracle;

thread_local! {
    static BORDER: std::cell::RefCell<oracle::Border> = std::cell::RefCell::new(oracle::Border::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [first, rest @ ..] = data else { return };
    BORDER.with_borrow_mut(|border| match first % 3 {
        0 => border.code(rest),
        1 => border.arguments(&rest.split(|byte| *byte == 0xff).collect::<Vec<_>>()),
        _ => border.libraries(rest),
    });
});
