//! The networks against the published classes: same settings, same weights, same numbers.
//!
//! The fixtures are written by `tools/parity/networks.py`, which needs Python; the tests do not.

mod conformance;
mod controlled;
mod fixture;
mod folders;
mod others;
mod unets;
