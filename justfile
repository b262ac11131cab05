# `just check` is what CI runs.
check:
    cargo xtask check

tidy:
    cargo xtask tidy

test crate:
    cargo test --package {{crate}}

differential seed="random" commands="100000":
    EVENKEEL_DIFF_SEED={{seed}} EVENKEEL_DIFF_COMMANDS={{commands}} cargo test --release --package compat-tests --test differential -- --nocapture

bench:
    cargo run --release --package benches -- side-by-side
