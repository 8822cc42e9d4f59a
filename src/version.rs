//! The version of the module, one for `MODULE LIST`, `INFO`, the start-up log and the packages.
//!
//! Owns: nothing but the two forms of what Cargo.toml says.

/// As in Cargo.toml.
pub const TEXT: &str = env!("CARGO_PKG_VERSION");

/// As `MODULE LIST` shows it: 10,203 for 1.2.3.
pub const NUMBER: i32 = number(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
    + number(env!("CARGO_PKG_VERSION_MINOR")) * 100
    + number(env!("CARGO_PKG_VERSION_PATCH"));

const fn number(digits: &str) -> i32 {
    let (mut at, mut value) = (0, 0);
    while at < digits.len() {
        value = value * 10 + (digits.as_bytes()[at] - b'0') as i32;
        at += 1;
    }
    value
}
