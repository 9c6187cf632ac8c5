//! Samples on the way: a short run of the model that is being trained.

use burn::tensor::Tensor;

use crate::denoiser::{Cond, NetworkDenoiser, TimeCode};
use crate::error::Result;
use crate::grid::{Grid, Karras, Trailing};
use crate::guide::{Cfg, Guide};
use crate::noise::{Noise, Seeded};
use crate::process::Process;
use crate::run::{Parts, Run, Unwatched};
use crate::sampler::dpmpp_2m::{Dpmpp2m, Settings};
use crate::state::State;

/// Steps of a run.
const STEPS: usize = 20;

/// Samples by DPM-Solver++(2M) in 20 steps with classifier-free guidance of the given weight, in
/// the shape of `x` `[batch, ...]`; sample `i` has seed `i`.
///
/// # Errors
///
/// What a part says.
pub(crate) fn draw(
    model: &NetworkDenoiser,
    process: &dyn Process,
    cond: Cond,
    x: Tensor<4>,
    weight: f64,
) -> Result<State> {
    let count = x.dims()[0];
    let like = State::new(x);
    let guides: Vec<Box<dyn Guide>> = vec![Box::new(Cfg { weight })];
    let noise: Box<dyn Noise> = Box::new(Seeded::new(0, count));
    // Where the network thinks in the logarithm of sigma, even steps in time are none.
    let levels = match model.time {
        TimeCode::QuarterLogSigma => Karras::default().levels(process, STEPS)?,
        TimeCode::Steps(_) => Trailing::default().levels(process, STEPS)?,
    };
    let parts = Parts {
        model,
        process,
        levels,
        sampler: Box::new(Dpmpp2m::new(Settings::default())),
        guides,
        taps: Vec::new(),
        noise,
        cond,
        requests: (0..count as u64).collect(),
    };
    let mut run = Run::from_prior(parts, &like)?;
    while run.advance(&mut Unwatched)? {}
    Ok(run.x().clone())
}
