//! The command line's integration tests, in one binary.

#[cfg(test)]
mod adapters;
#[cfg(test)]
mod command;
#[cfg(test)]
mod convert;
#[cfg(test)]
mod edits;
#[cfg(test)]
mod forward;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod tune;
