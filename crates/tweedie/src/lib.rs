//! An engine for diffusion models: every published method a small part on a common seam.
//!
//! Read in this order: [`state`] and [`level`] (what is walked, and where it is), [`process`] (how
//! data becomes noise), [`grid`] (where a run stops), [`denoiser`] (what a network says),
//! [`sampler`] (one step back), [`guide`] (several evaluations into one), [`tap`] (inside the
//! network), [`noise`] (an argument), [`run`] (the one loop), [`catalog`] (every method by name).

pub mod catalog;
pub mod data;
pub mod denoiser;
pub mod derivative;
pub mod discrete;
pub mod edit;
pub mod engine;
pub mod error;
pub mod eval;
pub mod grid;
pub mod guide;
pub mod hub;
pub mod level;
pub mod media;
pub mod model;
pub mod noise;
pub mod operator;
pub mod oracle;
pub mod prediction;
pub mod process;
pub mod prompt;
pub mod random;
pub mod reward;
pub mod run;
pub mod sampler;
pub mod search;
pub mod spec;
pub mod state;
pub mod tap;
pub mod train;
pub mod tune;
pub mod weight;

pub use error::{Error, Result};

/// The code of the README, run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
