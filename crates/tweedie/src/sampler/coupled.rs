//! Two coupled states, each stepped along the noise of the other: steps that are undone exactly.
//!
//! Wallace, Gokul and Naik, "EDICT: Exact Diffusion Inversion via Coupled Transformations", 2022,
//! [arXiv:2211.12446](https://arxiv.org/abs/2211.12446), equations 10 to 15.
//!
//! With DDIM's step from `s` to `t` written as `x_t = a x_s + b eps`, `a = alpha_t / alpha_s`,
//! `b = sigma_t - a sigma_s`, and both states starting alike:
//!
//! ```text
//! x' = a x + b eps(y, s)         y' = a y + b eps(x', s)
//! x" = p x' + (1 - p) y'         y" = p y' + (1 - p) x"
//! ```
//!
//! Each line is solved for what it changes, so that the walk back repeats the same numbers in the
//! other order; a start without signal is left by DDIM's own step, which nothing undoes. In every second
//! step `y` goes first. The mixing keeps the two from drifting apart;
//! undoing it divides by `p`, by which rounding grows at most `(1 / p)^2` a step. The second state
//! is memory of the sampler; what it returns is `x`.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::{Claims, Entry, Eval, Invert, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "coupled",
    seam: Seam::Sampler,
    title: "EDICT: Exact Diffusion Inversion via Coupled Transformations",
    source: "2211.12446",
    year: 2022,
    what: "DDIM of two states along each other's noise, whose steps are undone exactly",
    aliases: &[],
    ledger: "",
    parts: &[&crate::sampler::ddim::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Coupled::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of coupled states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How much of a state stays its own when the two are mixed, `p`; 1 mixes nothing. The default,
    /// 0.93, is the paper's.
    pub mix: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mix: 0.93 }
    }
}

/// DDIM of two coupled states.
#[derive(Clone, Debug)]
pub struct Coupled {
    mix: f64,
    twin: Option<State>,
}

impl Coupled {
    /// A sampler whose two states start alike.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a mix that is not above 0 and at most 1.
    pub fn new(settings: Settings) -> Result<Self> {
        let mix = settings.mix;
        if mix > 0.0 && mix <= 1.0 {
            return Ok(Self { mix, twin: None });
        }
        Err(Error::setting("coupled:mix", format!("{mix}, wanted above 0 and at most 1")))
    }
}

/// `a` and `b` of DDIM's step.
fn affine(step: &Step<'_>) -> (f64, f64) {
    let (from, to) = (step.from, step.to);
    let a = to.alpha / from.alpha;
    (a, to.sigma - a * from.sigma)
}

fn eps(eval: &mut dyn Eval, x: &State, at: Level) -> Result<State> {
    Ok(eps_of(x, &eval.at(x, at)?, at))
}

/// Which of the two goes first.
fn y_leads(step: &Step<'_>) -> bool {
    step.index % 2 == 1
}

impl Sampler for Coupled {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 2, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.twin = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        if step.from.alpha == 0.0 {
            let x0 = eval.at(&x, step.from)?;
            let x = x0.clone() * step.to.alpha + eps_of(&x, &x0, step.from) * step.to.sigma;
            self.twin = Some(x.clone());
            return Ok(x);
        }
        let (a, b) = affine(step);
        let y = self.twin.clone().unwrap_or_else(|| x.clone());
        let (first, second) = if y_leads(step) { (y, x) } else { (x, y) };
        let first = first * a + eps(eval, &second, step.from)? * b;
        let second = second * a + eps(eval, &first, step.from)? * b;
        let (x, y) = if y_leads(step) { (second, first) } else { (first, second) };
        let x = x * self.mix + y.clone() * (1.0 - self.mix);
        self.twin = Some(y * self.mix + x.clone() * (1.0 - self.mix));
        Ok(x)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.twin = self.twin.as_ref().map(|twin| twin.select(rows));
    }

    fn invertible(&mut self) -> Option<&mut dyn Invert> {
        Some(self)
    }
}

impl Invert for Coupled {
    fn unstep(&mut self, eval: &mut dyn Eval, x: State, step: &Step<'_>) -> Result<State> {
        if step.from.alpha == 0.0 {
            return Err(Error::unsupported("coupled", "a start that holds some signal, to undo"));
        }
        let (a, b) = affine(step);
        let y = self.twin.clone().unwrap_or_else(|| x.clone());
        let y = (y - x.clone() * (1.0 - self.mix)) * (1.0 / self.mix);
        let x = (x - y.clone() * (1.0 - self.mix)) * (1.0 / self.mix);
        let (first, second) = if y_leads(step) { (y, x) } else { (x, y) };
        let second = (second - eps(eval, &first, step.from)? * b) * (1.0 / a);
        let first = (first - eps(eval, &second, step.from)? * b) * (1.0 / a);
        let (x, y) = if y_leads(step) { (second, first) } else { (first, second) };
        self.twin = Some(y);
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Ddim;
    use crate::sampler::testing::step;

    #[test]
    fn a_step_without_mixing_is_ddims_and_both_go_first_in_turn() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let ddim = step(&mut Ddim::default(), (s, t), (0, 9), (0.3, 0.9), 0.0);
        for index in [0, 1] {
            // With one estimate for all states both have the same noise for their own place.
            let mut coupled = Coupled::new(Settings { mix: 1.0 }).unwrap();
            let found = step(&mut coupled, (s, t), (index, 9), (0.3, 0.9), 0.0);
            if index == 0 {
                assert!((found - ddim).abs() < 1e-14, "{found} {ddim}");
            } else {
                // `x` goes second: its noise is read at the other's new place.
                let eps = (ddim - s.alpha * 0.9) / s.sigma;
                let a = t.alpha / s.alpha;
                let wanted = a * 0.3 + (t.sigma - a * s.sigma) * eps;
                assert!((found - wanted).abs() < 1e-14, "{found} {wanted}");
            }
        }
        for mix in [0.0, 1.1, f64::NAN] {
            assert!(Coupled::new(Settings { mix }).is_err());
        }
    }

    #[test]
    fn pure_noise_is_left_by_ddims_step() {
        let ends = (Level::new(1.0, 0.0, 1.0), Level::vp(0.4, 0.7));
        let mut coupled = Coupled::new(Settings::default()).unwrap();
        let found = step(&mut coupled, ends, (0, 9), (0.3, 0.9), 0.0);
        assert_eq!(found, step(&mut Ddim::default(), ends, (0, 9), (0.3, 0.9), 0.0));
    }
}
