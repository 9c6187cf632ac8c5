//! The library's integration tests, in one binary: linking is what costs on a small machine.

#[cfg(test)]
mod adapters;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod exam;
#[cfg(test)]
mod files;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod pipelines;
#[cfg(test)]
mod prompts;
#[cfg(test)]
mod scheduler_runs;
#[cfg(test)]
mod searches;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod train;
