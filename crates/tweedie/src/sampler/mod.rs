//! Samplers: one step from a level to a cleaner one.

use std::fmt::Debug;

pub mod blend;
pub mod coupled;
pub mod ddim;
pub mod ddpm;
pub mod deis;
pub mod dpm2;
pub mod dpm2_ancestral;
pub mod dpm_adaptive;
pub mod dpm_singlestep;
pub mod dpm_solver;
pub mod dpmpp_2m;
pub mod dpmpp_2m_sde;
pub mod dpmpp_2s_ancestral;
pub mod dpmpp_sde;
pub mod encode;
pub mod er_sde;
pub mod euler;
pub mod euler_ancestral;
pub mod evodiff;
mod gaussian;
pub mod ghvb;
pub mod gradient_estimation;
pub mod heun;
pub mod ipndm;
pub mod lcm;
pub mod lms;
mod multistep;
pub mod pndm;
pub mod res;
pub mod res_singlestep;
pub mod restart;
pub mod sa_solver;
mod stride;
pub mod tcd;
#[cfg(test)]
pub(crate) mod testing;
pub mod ts_sampler;
pub mod unipc;

pub use blend::Blend;
pub use coupled::Coupled;
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use deis::Deis;
pub use dpm_adaptive::DpmAdaptive;
pub use dpm_singlestep::DpmSinglestep;
pub use dpm_solver::DpmSolver;
pub use dpm2::Dpm2;
pub use dpm2_ancestral::Dpm2Ancestral;
pub use dpmpp_2m::Dpmpp2m;
pub use dpmpp_2m_sde::Dpmpp2mSde;
pub use dpmpp_2s_ancestral::Dpmpp2sAncestral;
pub use dpmpp_sde::DpmppSde;
pub use encode::Encode;
pub use er_sde::ErSde;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use evodiff::Evodiff;
pub use gaussian::{Gaussian, Moments};
pub use ghvb::Ghvb;
pub use gradient_estimation::GradientEstimation;
pub use heun::Heun;
pub use ipndm::Ipndm;
pub use lcm::Lcm;
pub use lms::Lms;
pub use pndm::Pndm;
pub use res::Res;
pub use res_singlestep::ResSinglestep;
pub use restart::Restart;
pub use sa_solver::SaSolver;
pub use tcd::Tcd;
pub use ts_sampler::TsSampler;
pub use unipc::Unipc;

use crate::catalog::{Card, Made};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::process::Process;
use crate::state::State;

/// The guided network as a sampler sees it: state and level in, clean sample out.
pub trait Eval {
    /// The estimate of the clean sample, `E[x0 | x_t]`.
    ///
    /// # Errors
    ///
    /// What the network, the guide or the observer says.
    fn x0(&mut self, x: &State, at: &Levels) -> Result<State>;

    /// The same with one level for the whole batch.
    ///
    /// # Errors
    ///
    /// As [`Eval::x0`].
    fn at(&mut self, x: &State, level: Level) -> Result<State> {
        self.x0(x, &Levels::One(level))
    }

    /// The estimate as [`Eval::at`] gives it, and as it was before a guide clipped it.
    ///
    /// # Errors
    ///
    /// As [`Eval::x0`].
    fn estimate(&mut self, x: &State, level: Level) -> Result<Estimate> {
        let x0 = self.at(x, level)?;
        Ok(Estimate { before: x0.clone(), apart: None, x0 })
    }

    /// Where a network that is told its goal says `x` goes; `None` where the network cannot be told.
    ///
    /// # Errors
    ///
    /// As [`Eval::x0`].
    fn jump(&mut self, _x: &State, _from: Level, _to: Level) -> Result<Option<State>> {
        Ok(None)
    }
}

/// An estimate of the clean sample, before and after guides that clip.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// The estimate.
    pub x0: State,
    /// What it was before clipping; the direction of the noise follows from this one.
    pub before: State,
    /// The estimate whose noise the step has to go on along, where a guide tells it apart.
    pub apart: Option<State>,
}

/// One step of a run.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Where the state is.
    pub from: Level,
    /// Where it goes.
    pub to: Level,
    /// Which step of the run, from 0.
    pub index: usize,
    /// How many steps the run has.
    pub count: usize,
    /// The path, for samplers that evaluate between the levels.
    pub process: &'a dyn Process,
}

impl Step<'_> {
    /// The step in log-SNR, `lambda(to) - lambda(from)`; infinite from pure noise and to clean data.
    pub fn h(&self) -> f64 {
        self.to.lambda() - self.from.lambda()
    }

    /// Whether no step follows.
    pub fn is_last(&self) -> bool {
        self.index + 1 == self.count
    }
}

/// A setting that must be a finite number of at least 0.
pub(crate) fn at_least_zero(key: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::setting(key, format!("{value}, wanted a finite number of at least 0")))
}

/// What a sampler promises; conformance holds it to this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Order of convergence to the probability-flow solution, or weak order for stochastic ones.
    pub order: u8,
    /// Evaluations of the denoiser in a step.
    pub nfe: u8,
    /// Evaluations that the first steps of a run take beyond that.
    pub first: u8,
    /// Whether it draws noise.
    pub stochastic: bool,
}

/// One way to walk back from noise to data.
///
/// A sampler sees a function from state and level to the clean sample. It knows no condition, no
/// guide, no network and not the loop; what it remembers between steps is its own.
pub trait Sampler: Debug + Send {
    /// What it promises.
    fn claims(&self) -> Claims;

    /// Forgets the last run.
    fn reset(&mut self) {}

    /// Told before a run that begins in the middle of the grid, at `levels[first]`; says which step
    /// it wants to begin with. Mostly that one; some published schedulers begin elsewhere.
    fn enter(&mut self, _levels: &[Level], first: usize) -> usize {
        first
    }

    /// The level at which a part of the state that is kept ([`Blend`]) stands in what a step evaluates
    /// on its way: the evaluation's own (`None`), unless a published pipeline has it otherwise.
    fn kept_on_the_way(&self, _step: &Step<'_>) -> Option<Level> {
        None
    }

    /// One step.
    ///
    /// # Errors
    ///
    /// What the evaluation or the noise says.
    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State>;

    /// A copy with its memory, for a forked run.
    fn fork(&self) -> Box<dyn Sampler>;

    /// Follows a resampling: row `i` goes on as a descendant of row `rows[i]`.
    fn select(&mut self, _rows: &[usize]) {}

    /// The step that undoes [`Sampler::step`], where there is one.
    fn invertible(&mut self) -> Option<&mut dyn Invert> {
        None
    }

    /// The step as a mean and a standard deviation, where it is one Gaussian draw.
    fn gaussian(&mut self) -> Option<&mut dyn Gaussian> {
        None
    }
}

/// A sampler that can walk the other way.
pub trait Invert {
    /// The state at `step.from` whose step gives `x` at `step.to`.
    ///
    /// # Errors
    ///
    /// What the evaluation says.
    fn unstep(&mut self, eval: &mut dyn Eval, x: State, step: &Step<'_>) -> Result<State>;
}

/// A sampler of the catalogue.
pub type Entry = Made<dyn Sampler>;

/// Every sampler.
pub(crate) const ENTRIES: &[Entry] = &[
    coupled::ENTRY,
    ddim::ENTRY,
    ddpm::ENTRY,
    deis::ENTRY,
    dpm2::ENTRY,
    dpm2_ancestral::ENTRY,
    dpm_adaptive::ENTRY,
    dpm_singlestep::ENTRY,
    dpm_solver::ENTRY,
    dpmpp_2m::ENTRY,
    dpmpp_2m_sde::ENTRY,
    dpmpp_2s_ancestral::ENTRY,
    dpmpp_sde::ENTRY,
    er_sde::ENTRY,
    euler::ENTRY,
    euler_ancestral::ENTRY,
    evodiff::ENTRY,
    ghvb::ENTRY,
    gradient_estimation::ENTRY,
    heun::ENTRY,
    ipndm::ENTRY,
    lcm::ENTRY,
    lms::ENTRY,
    pndm::ENTRY,
    res::ENTRY,
    res_singlestep::ENTRY,
    restart::ENTRY,
    sa_solver::ENTRY,
    tcd::ENTRY,
    ts_sampler::ENTRY,
    unipc::ENTRY,
];

/// Every sampler of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}
