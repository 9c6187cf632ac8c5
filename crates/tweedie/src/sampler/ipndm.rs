//! Improved pseudo numerical methods: Adams and Bashforth's even weights in `sigma_edm`.
//!
//! Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2023,
//! [arXiv:2204.13902](https://arxiv.org/abs/2204.13902), section 4.2 and Algorithm 3.
//!
//! With the noise `e_0` of this step and `e_1`, `e_2`, `e_3` of those before:
//!
//! ```text
//! x_t = alpha_t (x / alpha + (sigma_t / alpha_t - sigma / alpha) e')
//! e' = (3 e_0 - e_1) / 2, (23 e_0 - 16 e_1 + 5 e_2) / 12, (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) / 24
//! ```
//!
//! Where `pndm` begins with extra evaluations, the order rises here step by step. The weights are for
//! even steps. With those of uneven steps this is `lms`, which is what "iPNDM-v" means to be; the
//! programs that have that name give the differences of order 2 and 3 other weights than the
//! polynomial has, and the same on even steps. A step to clean data is the estimate.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::multistep::{History, adams};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "ipndm",
    seam: Seam::Sampler,
    title: "Fast Sampling of Diffusion Models with Exponential Integrator",
    source: "2204.13902",
    year: 2023,
    what: "even multistep weights in sigma_edm, the order rising step by step",
    aliases: &["iPNDM"],
    ledger: "",
    parts: &[&crate::sampler::pndm::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Ipndm::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[(
        "order",
        "the weights are for steps that are even in sigma_edm, and uneven ones make the order 1",
    )],
};

/// The settings of the improved pseudo numerical methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many noises are used, 1 to 5. The default, 4, is the paper's.
    pub order: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: 4 }
    }
}

/// The improved pseudo numerical methods.
#[derive(Clone, Debug)]
pub struct Ipndm {
    settings: Settings,
    /// Noises.
    past: History,
}

impl Ipndm {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order outside 1 to 5.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=5).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 5", settings.order);
            return Err(Error::setting("ipndm:order", why));
        }
        Ok(Self { settings, past: History::default() })
    }
}

impl Sampler for Ipndm {
    fn claims(&self) -> Claims {
        let order = self.settings.order.min(2) as u8;
        Claims { order, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.past.clear();
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let x0 = eval.at(&x, from)?;
        let eps = eps_of(&x, &x0, from);
        if to.sigma == 0.0 || from.alpha == 0.0 {
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        self.past.push(from, eps, self.settings.order);
        let stride = (to.sigma_edm() - from.sigma_edm()) * to.alpha;
        let weights: Vec<f64> = adams(self.past.len()).iter().map(|w| w * stride).collect();
        Ok(self.past.added(x * (to.alpha / from.alpha), &weights))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.past.select(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::ends_at;

    #[test]
    fn the_end_is_comfyuis() {
        // ComfyUI (October 2025), sample_ipndm.
        ends_at(&mut Ipndm::new(Settings::default()).unwrap(), 0.799_961_634_367_964);
        assert!(Ipndm::new(Settings { order: 0 }).is_err());
    }
}
