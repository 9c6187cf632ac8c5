//! Training: the loop, its objective and what it trains.
//!
//! [`config::Config`] is a TOML file; [`task`] says what is trained (a class-conditional U-Net, an
//! autoencoder, a text-conditional latent U-Net with its text encoder, a classifier);
//! [`trainer::Trainer`] is the loop; [`objective`] is what diffusion training minimises, with
//! [`level_sampling`] and [`weighting`] as its parts. All randomness is a function of seed, stream,
//! step and row ([`draws`]), and a [`checkpoint`] holds everything else, so that a resumed run is
//! the unbroken one bit for bit.

pub mod checkpoint;
pub mod config;
pub mod crew;
pub mod draws;
pub mod gradients;
pub mod level_sampling;
pub mod log;
pub mod objective;
pub mod optimiser;
pub mod reduce;
pub mod schedule;
pub mod sheet;
pub mod task;
pub mod trainer;
pub mod weighting;

pub use config::Config;
pub use crew::Crew;
pub use task::Task;
pub use trainer::{Outcome, Trainer, Watch};

use crate::catalog::Card;

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    level_sampling::cards().chain(weighting::cards())
}
