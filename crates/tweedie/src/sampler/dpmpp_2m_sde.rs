//! DPM-Solver++(2M) of the diffusion SDE.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
//! 2022, [arXiv:2211.01095](https://arxiv.org/abs/2211.01095), section 6 and appendix; `eta` is
//! k-diffusion's (Crowson 2022).
//!
//! With `h = lambda(to) - lambda(from)`, `g = (1 + eta) h`, `r = h_last / h` and
//! `d1 = (x0 - x0_last) / r`:
//!
//! ```text
//! x_t = sigma_t / sigma_s e^(-eta h) x + alpha_t (1 - e^-g) x0 + w d1 + std z
//! w   = alpha_t (1 - e^-g) / 2                     midpoint
//! w   = alpha_t (1 - (1 - e^-g) / g)                   heun
//! std = sigma_t sqrt(1 - e^(-2 eta h))
//! ```
//!
//! With `eta = 0` it is DPM-Solver++(2M). The weak order is 2 on Gaussian data. First-order steps are
//! those of `dpmpp-2m`.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::level::Level;
use crate::noise::Noise;
use crate::sampler::dpmpp_2m::{FEW, Solver, slope};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpmpp-2m-sde",
    seam: Seam::Sampler,
    title: "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    source: "2211.01095",
    year: 2022,
    what: "multistep solver of the diffusion SDE in the log-SNR",
    aliases: &["DPM++ 2M SDE", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde"],
    ledger: "",
    parts: &[&crate::sampler::dpmpp_2m::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Dpmpp2mSde::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of DPM-Solver++(2M) SDE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How the slope enters. The default, midpoint, is the paper's.
    pub solver: Solver,
    /// How much noise a step draws; 0 is the probability-flow solver. The default, 1, is the
    /// paper's.
    pub eta: f64,
    /// The standard deviation of the noise. The default is 1.
    pub s_noise: f64,
    /// Whether the last step of a run of fewer than 15 is of first order. The default, yes, is the
    /// paper's advice for few steps.
    pub lower_order_final: bool,
    /// Whether the last step is of first order in any run. The default is no; a step to clean data
    /// always is.
    pub euler_at_final: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            solver: Solver::Midpoint,
            eta: 1.0,
            s_noise: 1.0,
            lower_order_final: true,
            euler_at_final: false,
        }
    }
}

/// DPM-Solver++(2M) of the diffusion SDE.
#[derive(Clone, Debug)]
pub struct Dpmpp2mSde {
    settings: Settings,
    last: Option<(Level, State)>,
}

impl Dpmpp2mSde {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        at_least_zero("dpmpp-2m-sde:eta", settings.eta)?;
        at_least_zero("dpmpp-2m-sde:s_noise", settings.s_noise)?;
        Ok(Self { settings, last: None })
    }
}

impl Sampler for Dpmpp2mSde {
    fn claims(&self) -> Claims {
        let stochastic = self.settings.eta * self.settings.s_noise > 0.0;
        Claims { order: 2, nfe: 1, first: 0, stochastic }
    }

    fn reset(&mut self) {
        self.last = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to, h, eta) = (step.from, step.to, step.h(), self.settings.eta);
        let x0 = eval.at(&x, from)?;
        let last = self.last.replace((from, x0.clone()));
        // Infinite steps: 0 times infinity is 0 here, no noise is no damping.
        let damp = if eta == 0.0 { 0.0 } else { eta * h };
        let g = h + damp;
        let gain = -to.alpha * (-g).exp_m1();
        let mut next = x * (to.sigma / from.sigma * (-damp).exp()) + x0.clone() * gain;
        let few = self.settings.lower_order_final && step.count < FEW;
        let few = step.is_last() && (few || self.settings.euler_at_final);
        if let Some(d1) = slope(last, &x0, step).filter(|_| !few) {
            let weight = match self.settings.solver {
                Solver::Midpoint => 0.5 * gain,
                Solver::Heun => to.alpha * ((-g).exp_m1() / g + 1.0),
            };
            next = next + d1 * weight;
        }
        let std = to.sigma * (-(-2.0 * damp).exp_m1()).sqrt() * self.settings.s_noise;
        if std == 0.0 {
            return Ok(next);
        }
        Ok(next.clone() + noise.over(&next, from.sigma_edm(), to.sigma_edm())? * std)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.last = self.last.take().map(|(at, x0)| (at, x0.select(rows)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::step;

    #[test]
    fn from_pure_noise_all_is_drawn_afresh_and_the_end_is_the_estimate() {
        let t = Level::vp(0.4, 0.7);
        let mut solver = Dpmpp2mSde::new(Settings::default()).unwrap();
        let found = step(&mut solver, (Level::new(1.0, 0.0, 1.0), t), (0, 9), (0.3, 0.9), 2.0);
        assert!((found - (t.alpha * 0.9 + t.sigma * 2.0)).abs() < 1e-15);
        let found = step(&mut solver, (t, Level::CLEAN), (8, 9), (0.3, 0.8), 2.0);
        assert!((found - 0.8).abs() < 1e-15);
    }

    #[test]
    fn without_noise_pure_noise_stays() {
        let t = Level::vp(0.4, 0.7);
        let settings = Settings { eta: 0.0, ..Settings::default() };
        let mut solver = Dpmpp2mSde::new(settings).unwrap();
        let found = step(&mut solver, (Level::new(1.0, 0.0, 1.0), t), (0, 9), (0.3, 0.9), 2.0);
        assert!((found - (t.alpha * 0.9 + t.sigma * 0.3)).abs() < 1e-15);
        assert!(Dpmpp2mSde::new(Settings { eta: -1.0, ..Settings::default() }).is_err());
    }
}
