//! Checks and benches of the methods.
fn main() {}
