//! The types over rows: what a header holds, how a value is laid out.
