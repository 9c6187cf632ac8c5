//! Extended reverse-time SDEs: how much noise a step draws, as a function that can be chosen.
//!
//! Cui et al., "Elucidating the solution space of extended reverse-time SDE for diffusion models",
//! 2023, [arXiv:2309.06169](https://arxiv.org/abs/2309.06169), equations 18 to 22 (VP ER-SDE-Solvers).
//!
//! With `y = x / alpha`, `l = sigma / alpha`, the noise scale `f` and `r = f(l_t) / f(l_s)`:
//!
//! ```text
//! y_t = r y + (1 - r) x0 + (l_t - l_s + f(l_t) I_0) d1 + ((l_t - l_s)^2 / 2 + f(l_t) I_1) d2
//!         + sqrt(l_t^2 - r^2 l_s^2) z
//! d1  = (x0 - x0_1) / (l_s - l_1)          d2 = 2 (d1 - d1_1) / (l_s - l_2)
//! I_0 = integral from l_t to l_s of 1 / f             I_1 = integral of (l - l_s) / f
//! f   = l                                                    ode: no noise is drawn
//! f   = l^2                                                  sde: the reverse SDE
//! f   = l (e^(l^0.3) + 10)                                   er: the paper's choice
//! ```
//!
//! `x0_1`, `l_1` and `d1_1` are of the step before, `l_2` of the one before that. The authors take the
//! integrals as sums over 200 places, which `points` repeats; without it they are exact. The first
//! step is of order 1, a step to clean data is the estimate, and from pure noise all but the estimate
//! is drawn afresh (`sde`, `er`) or kept (`ode`).

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::multistep::History;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "er-sde",
    seam: Seam::Sampler,
    title: "Elucidating the solution space of extended reverse-time SDE for diffusion models",
    source: "2309.06169",
    year: 2023,
    what: "multistep solver of SDEs whose noise is a function that can be chosen",
    aliases: &["er_sde"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(ErSde::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The noise scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// No noise: the probability flow.
    Ode,
    /// As much as the reverse SDE.
    Sde,
    /// The paper's choice, between the two: near the flow at the data, near the SDE at noise.
    #[default]
    Er,
}

impl Scale {
    fn of(self, l: f64) -> f64 {
        match self {
            Self::Ode => l,
            Self::Sde => l * l,
            Self::Er => l * (l.powf(0.3).exp() + 10.0),
        }
    }
}

/// The settings of ER-SDE solvers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The order of the Taylor series, 1 to 3. The default is 3.
    pub order: usize,
    /// The noise scale. The default, `er`, is the paper's.
    pub scale: Scale,
    /// The standard deviation of the noise. The default is 1.
    pub s_noise: f64,
    /// How many places the integrals are summed over; the authors' program has 200. The default,
    /// none, is the exact integral.
    pub points: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: 3, scale: Scale::Er, s_noise: 1.0, points: None }
    }
}

/// ER-SDE solvers.
#[derive(Clone, Debug)]
pub struct ErSde {
    settings: Settings,
    /// Clean samples.
    past: History,
    /// The first difference of the step before.
    slope: Option<State>,
}

impl ErSde {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order outside 1 to 3, or sums over no place.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=3).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 3", settings.order);
            return Err(Error::setting("er-sde:order", why));
        }
        if settings.points == Some(0) {
            return Err(Error::setting("er-sde:points", "0, wanted at least 1"));
        }
        at_least_zero("er-sde:s_noise", settings.s_noise)?;
        Ok(Self { settings, past: History::default(), slope: None })
    }

    /// What the first and the second derivative are multiplied by, from `s` to `t`.
    fn weights(&self, s: f64, t: f64) -> (f64, f64) {
        let scale = self.settings.scale;
        let (zeroth, first) = match self.settings.points {
            Some(points) => {
                let stride = (s - t) / points as f64;
                let places = (0..points).map(|i| t + i as f64 * stride);
                let sums = places.fold((0.0, 0.0), |(a, b), l| {
                    (a + 1.0 / scale.of(l), b + (l - s) / scale.of(l))
                });
                (sums.0 * stride, sums.1 * stride)
            }
            None => gauss(t, s, |l| 1.0 / scale.of(l), |l| (l - s) / scale.of(l)),
        };
        let h = t - s;
        (h + scale.of(t) * zeroth, 0.5 * h * h + scale.of(t) * first)
    }
}

/// Two integrals from `a` to `b` by Gauss's rule of three points on 48 parts, even in the logarithm.
fn gauss(a: f64, b: f64, f: impl Fn(f64) -> f64, g: impl Fn(f64) -> f64) -> (f64, f64) {
    let (low, high) = (a.ln(), b.ln());
    let reach = 0.6_f64.sqrt();
    let nodes = [(-reach, 5.0 / 9.0), (0.0, 8.0 / 9.0), (reach, 5.0 / 9.0)];
    let half = 0.5 * (high - low) / 48.0;
    let mut sums = (0.0, 0.0);
    for part in 0..48 {
        let middle = low + (2 * part + 1) as f64 * half;
        for (at, weight) in nodes {
            let l = (middle + at * half).exp();
            sums.0 += weight * half * l * f(l);
            sums.1 += weight * half * l * g(l);
        }
    }
    sums
}

impl Sampler for ErSde {
    fn claims(&self) -> Claims {
        let order = self.settings.order.min(2) as u8;
        let stochastic = self.settings.scale != Scale::Ode && self.settings.s_noise > 0.0;
        Claims { order, nfe: 1, first: 0, stochastic }
    }

    fn reset(&mut self) {
        self.past.clear();
        self.slope = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let (s, t) = (from.sigma_edm(), to.sigma_edm());
        let x0 = eval.at(&x, from)?;
        if to.sigma == 0.0 {
            return Ok(x0 * to.alpha);
        }
        let ode = self.settings.scale == Scale::Ode;
        let (next, std) = if from.alpha == 0.0 {
            let eps = eps_of(&x, &x0, from);
            let kept = if ode { to.sigma } else { 0.0 };
            (x0 * to.alpha + eps * kept, to.sigma)
        } else {
            let r = self.settings.scale.of(t) / self.settings.scale.of(s);
            let next = x * (r * to.alpha / from.alpha) + x0.clone() * (to.alpha * (1.0 - r));
            let std = to.alpha * (t * t - (r * s) * (r * s)).max(0.0).sqrt();
            (self.bent(next, x0, step), std)
        };
        let std = if ode { 0.0 } else { std * self.settings.s_noise };
        if std == 0.0 {
            return Ok(next);
        }
        Ok(next.clone() + noise.over(&next, from.sigma_edm(), to.sigma_edm())? * std)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.past.select(rows);
        self.slope = self.slope.take().map(|d| d.select(rows));
    }
}

impl ErSde {
    /// `next` with the derivatives of the estimate, and the estimate among the past ones.
    fn bent(&mut self, mut next: State, x0: State, step: &Step<'_>) -> State {
        let (from, to) = (step.from, step.to);
        let (s, t) = (from.sigma_edm(), to.sigma_edm());
        self.past.push(from, x0.clone(), 3);
        let nodes = self.past.nodes(self.settings.order, Level::sigma_edm);
        let Some((_, last)) = self.past.newest().nth(1).filter(|_| nodes.len() > 1) else {
            return next;
        };
        let (first, second) = self.weights(s, t);
        let slope = (x0 - last.clone()) * (1.0 / (s - nodes[1]));
        next = next + slope.clone() * (to.alpha * first);
        let before = self.slope.replace(slope.clone());
        if let (Some(before), Some(node)) = (before, nodes.get(2)) {
            let bend = (slope - before) * (2.0 / (s - node));
            next = next + bend * (to.alpha * second);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::{SIGMAS, ends_at, walk};

    #[test]
    fn the_ends_are_comfyuis() {
        // ComfyUI (October 2025), sample_er_sde with max_stage 1 to 3.
        let ends = [0.879_967_429_235_665, 0.885_576_406_174_278, 0.885_268_346_435_286];
        for (order, end) in (1..).zip(ends) {
            let settings = Settings { order, points: Some(200), ..Settings::default() };
            ends_at(&mut ErSde::new(settings).unwrap(), end);
        }
    }

    #[test]
    fn integrals_are_exact_where_they_are_known() {
        let of = |scale, s: f64, t: f64| {
            ErSde::new(Settings { scale, ..Settings::default() }).unwrap().weights(s, t)
        };
        for (s, t) in [(1.7_f64, 1.1_f64), (40.0, 0.02)] {
            let ln = (s / t).ln();
            let (a, b) = of(Scale::Ode, s, t);
            assert!((a - (t - s + t * ln)).abs() < 1e-9 * s, "{a}");
            assert!((b - (0.5 * (t - s).powi(2) + t * (s - t - s * ln))).abs() < 1e-9 * s * s);
            let (a, b) = of(Scale::Sde, s, t);
            assert!((a - (t - s + t * t * (1.0 / t - 1.0 / s))).abs() < 1e-9 * s, "{a}");
            let first = t * t * (ln - s * (1.0 / t - 1.0 / s));
            assert!((b - (0.5 * (t - s).powi(2) + first)).abs() < 1e-9 * s * s);
        }
    }

    #[test]
    fn special_scales_are_other_samplers_at_order_one() {
        let formula = |x: f64, s: f64| (x / (1.0 + s)).tanh();
        let end = |scale| {
            let settings = Settings { order: 1, scale, ..Settings::default() };
            walk(&mut ErSde::new(settings).unwrap(), &SIGMAS, 4.2, &formula)
        };
        let mut euler = crate::sampler::Euler::default();
        assert!((end(Scale::Ode) - walk(&mut euler, &SIGMAS, 4.2, &formula)).abs() < 1e-12);
        let mut ancestral = crate::sampler::EulerAncestral::default();
        assert!((end(Scale::Sde) - walk(&mut ancestral, &SIGMAS, 4.2, &formula)).abs() < 1e-12);
    }

    #[test]
    fn bad_settings_are_refused() {
        for bad in [
            Settings { order: 4, ..Settings::default() },
            Settings { points: Some(0), ..Settings::default() },
            Settings { s_noise: -1.0, ..Settings::default() },
        ] {
            assert!(ErSde::new(bad).is_err());
        }
    }
}
