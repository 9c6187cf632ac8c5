//! CFG++: a weight of at most 1, and the noise of the unconditional estimate.
//!
//! Chung et al., "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models", 2024,
//! [arXiv:2406.08070](https://arxiv.org/abs/2406.08070), Algorithm 2.
//!
//! ```text
//! x0  = x0_uncond + weight (x0_cond - x0_uncond)
//! x_t = alpha_t x0 + sigma_t eps_uncond
//! ```
//!
//! The guide tells the sampler both. A sampler of first order (`ddim`, `euler`, `euler-ancestral`)
//! goes on along the noise that it is told; others are refused, because there the weight alone would
//! be no more than weak guidance. In such a step it is `cfg` of the weight `weight / (1 - e^-h)`, with
//! `h` the step in log-SNR down to where no fresh noise is: strong while steps are short, and never
//! beyond the conditional estimate at the end.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::Result;
use crate::guide::cfg::both;
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "cfg-pp",
    seam: Seam::Guide,
    title: "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models",
    source: "2406.08070",
    year: 2024,
    what: "between the two estimates, along the noise of the unconditional one",
    aliases: &["cfg++", "cfg_pp"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<CfgPp>()?.checked()?)),
    defaults: defaults_of::<CfgPp>,
    known_failures: &[],
};

/// CFG++.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CfgPp {
    /// Where between the unconditional and the conditional estimate, 0 to 1 in the paper. The
    /// default, 0.6, is the paper's beside `cfg` of 7.5 and 50 steps.
    pub weight: f64,
}

impl Default for CfgPp {
    fn default() -> Self {
        Self { weight: 0.6 }
    }
}

impl CfgPp {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        weight("cfg-pp", self.weight)?;
        Ok(self)
    }
}

impl Guide for CfgPp {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let (with, without) = both("cfg-pp", model, x, at, cond, pass)?;
        pass.apart = Some(without.clone());
        Ok(without.clone() + (with - without) * self.weight)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    use crate::guide::testing::Says;
    use crate::level::Level;
    use crate::noise::Recorded;
    use crate::process::VpLinear;
    use crate::run::{Parts, Run, Unwatched};
    use crate::sampler::{Ddim, Dpmpp2m, Euler, EulerAncestral, Sampler};

    fn state(x: [f64; 2]) -> State {
        State::from_f64(x.to_vec(), &[1, 2], &Device::flex()).unwrap()
    }

    /// The end of one step.
    fn end(sampler: impl Sampler + 'static, s: Level, t: Level) -> Result<Vec<f64>> {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let parts = Parts {
            model: &model,
            process: &VpLinear::default(),
            levels: vec![s, t],
            sampler: Box::new(sampler),
            guides: vec![Box::new(CfgPp { weight: 0.5 })],
            taps: Vec::new(),
            noise: Box::new(Recorded::new(vec![state([0.7, -0.3])])),
            cond: Cond::of_class(vec![3]),
            requests: vec![0],
        };
        let run = Run::new(parts, state([0.1, -0.2]))?;
        run.finish(&mut Unwatched).map(|(x, _)| x.to_rows().concat())
    }

    #[test]
    fn the_step_goes_along_the_unconditional_noise() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let x = [0.1, -0.2];
        let eps = [0, 1].map(|i| (x[i] - s.alpha * [0.5, 3.0][i]) / s.sigma);
        let x0 = [0.75, 2.5];
        for found in [end(Ddim::default(), s, t), end(Euler::default(), s, t)] {
            for (i, found) in found.unwrap().into_iter().enumerate() {
                let wanted = t.alpha * x0[i] + t.sigma * eps[i];
                assert!((found - wanted).abs() < 1e-14, "{found} {wanted}");
            }
        }
        // Ancestral: sigma_down of k-diffusion's ancestral step, and fresh noise for the rest.
        let (si, sj) = (s.sigma_edm(), t.sigma_edm());
        let up = (sj * sj * (si * si - sj * sj) / (si * si)).sqrt();
        let down = (sj * sj - up * up).sqrt();
        let found = end(EulerAncestral::default(), s, t).unwrap();
        for i in 0..2 {
            let wanted = t.alpha * (x0[i] + down * eps[i] + up * [0.7, -0.3][i]);
            assert!((found[i] - wanted).abs() < 1e-14);
        }
    }

    #[test]
    fn it_is_guidance_of_a_weight_that_follows_the_step() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let w = 0.5 / (1.0 - (-1.1_f64).exp());
        let found = end(Ddim::default(), s, t).unwrap();
        for i in 0..2 {
            let x0 = [0.5, 3.0][i] + w * [0.5, -1.0][i];
            let wanted = t.alpha * x0 + t.sigma * ([0.1, -0.2][i] - s.alpha * x0) / s.sigma;
            assert!((found[i] - wanted).abs() < 1e-13);
        }
    }

    #[test]
    fn samplers_that_would_ignore_the_noise_are_refused() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let settings = crate::sampler::dpmpp_2m::Settings::default();
        let error = end(Dpmpp2m::new(settings), s, t).unwrap_err().to_string();
        assert!(error.contains("ddim"), "{error}");
    }
}
