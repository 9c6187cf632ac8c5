//! `tweedie serve`: the engine as a service that existing clients and a browser can use, and that
//! loses nothing.
//!
//! One [`service::Service`] stands behind every interface: it takes jobs, keeps them in a database,
//! and computes those of one model together. The interfaces in [`http`] only translate.

pub mod http;
pub mod job;
pub mod library;
pub mod metrics;
pub mod queue;
pub mod refusal;
mod runner;
pub mod service;
pub mod settings;
pub mod store;

pub use http::{router, serve};
pub use refusal::Refusal;
pub use service::Service;
pub use settings::{Limits, Settings};
