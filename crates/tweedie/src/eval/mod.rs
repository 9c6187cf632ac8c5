//! Measures of generated samples.
//!
//! Distribution measures compare two sets of [`Features`]: [`frechet`], [`kernel`] and
//! [`precision_recall`]; [`compare`] takes all of them, each beside its noise floor, into a
//! [`Report`]. [`psnr`] and [`ssim`] compare pictures one by one, [`accuracy`] counts classes,
//! [`gaussian_baseline`] is what a model has to beat. [`goodness`] tests whether numbers follow a
//! known distribution. [`plot`] draws curves.
//!
//! All sums run in f64 and in an order that does not depend on the number of threads.

pub mod accuracy;
mod compare;
mod features;
pub mod frechet;
pub mod gaussian_baseline;
pub mod goodness;
pub mod kernel;
mod linalg;
pub mod plot;
pub mod precision_recall;
pub mod psnr;
mod report;
mod special;
pub mod ssim;

pub use compare::{CompareOptions, compare};
pub use features::Features;
pub use report::{Better, Measure, Report};
pub use special::{chi_square_tail, normal_cdf};

/// The stream of the random numbers that evaluation draws, apart from those of samplers.
const STREAM: u64 = 0x6576_616c;
