//! The library's integration tests, in one binary: linking is what costs on a small machine.

#[cfg(test)]
mod exam;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod train;
