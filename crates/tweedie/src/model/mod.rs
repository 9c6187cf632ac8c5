//! Networks with sites, in the configuration and naming of the published classes.

pub mod config;
