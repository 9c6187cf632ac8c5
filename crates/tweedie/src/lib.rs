//! An engine for diffusion models: every published method a small part on a common seam.

pub mod data;
pub mod error;
pub mod eval;
pub mod hub;

pub use error::{Error, Result};
