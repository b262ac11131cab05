//! What stands in the places of some kinds of templates.

/// Of sets: texts, and numbers of all widths.
pub(super) const MEMBERS: &[&str] = &[
    "a",
    "b",
    "c",
    "1",
    "2",
    "3",
    "-300",
    "70000",
    "9223372036854775807",
    "9223372036854775808",
    "01",
    "",
    "\r\n\0",
    "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm",
];

/// Of entries of streams.
pub(super) const STREAM_IDS: &[&str] = &[
    "1-1",
    "1-2",
    "1-*",
    "2-0",
    "2",
    "3-1",
    "5-5",
    "7-1",
    "8",
    "9-*",
    "12-1",
    "15-3",
    "20-1",
    "30",
    "0",
    "0-0",
    "(1-1",
    "-",
    "+",
    "abc",
    "1-x",
    "18446744073709551615-18446744073709551615",
];
