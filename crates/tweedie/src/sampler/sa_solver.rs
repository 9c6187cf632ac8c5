//! SA-Solver: a stochastic Adams predictor in the log-SNR, corrected by the next step's evaluation.
//!
//! Xue et al., "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models", 2023,
//! [arXiv:2309.05019](https://arxiv.org/abs/2309.05019), equations 14 to 18 and Algorithm 1.
//!
//! With `h = lambda(to) - lambda(from)` and the polynomial `P` through the estimates of this step and
//! those before:
//!
//! ```text
//! x_t = sigma_t / sigma_s e^(-tau^2 h) x + alpha_t (1 + tau^2) integral of e^((1 + tau^2)(lambda - lambda_t)) P
//!         + sigma_t sqrt(1 - e^(-2 tau^2 h)) z
//! ```
//!
//! The corrector is the same step once more, with the same `z`, from the same state, through the
//! evaluation at `to` too; it costs nothing, because that evaluation is the next step's. `tau` is a
//! number between two times and 0 outside them; `tau = 0` is an exponential Adams method of the flow,
//! and `tau = 1` the reverse SDE.
//!
//! Infinite steps are of order 1. The last state is a prediction that nothing corrects.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::multistep::{History, moments, weights_of};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "sa-solver",
    seam: Seam::Sampler,
    title: "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models",
    source: "2309.05019",
    year: 2023,
    what: "stochastic Adams predictor and corrector in the log-SNR",
    aliases: &["sa_solver", "SASolverScheduler"],
    ledger: "",
    parts: &[&crate::sampler::unipc::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(SaSolver::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of SA-Solver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many estimates the predictor takes, 1 to 4. The default, 2, is diffusers'.
    pub predictor_order: usize,
    /// How many estimates the corrector takes, the new one with them, up to 4; 0 corrects nothing.
    /// The default, 2, is diffusers'.
    pub corrector_order: usize,
    /// How much noise a step between the two times draws; 1 is the reverse SDE. The default is 1.
    pub tau: f64,
    /// The lowest time of a step that draws noise. The default, 0.2, is the authors'.
    pub low: f64,
    /// The highest time of a step that draws noise. The default, 0.8, is the authors'.
    pub high: f64,
    /// The standard deviation of the noise. The default is 1.
    pub s_noise: f64,
    /// Whether the order runs down to 1 over the last steps. The default, yes, is diffusers'.
    pub lower_order_final: bool,
    /// Whether sums of two estimates take the slope as if its value in the middle of the step held:
    /// the authors' form for order 2. The default, yes, is diffusers'.
    pub simple: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            predictor_order: 2,
            corrector_order: 2,
            tau: 1.0,
            low: 0.2,
            high: 0.8,
            s_noise: 1.0,
            lower_order_final: true,
            simple: true,
        }
    }
}

/// A step that may be corrected.
#[derive(Clone, Debug)]
struct Begun {
    x: State,
    from: Level,
    tau: f64,
    z: Option<State>,
}

/// SA-Solver.
#[derive(Clone, Debug)]
pub struct SaSolver {
    settings: Settings,
    /// Clean samples.
    past: History,
    /// The last step.
    begun: Option<Begun>,
}

impl SaSolver {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=4).contains(&settings.predictor_order) {
            let why = format!("{}, wanted 1 to 4", settings.predictor_order);
            return Err(Error::setting("sa-solver:predictor_order", why));
        }
        if settings.corrector_order > 4 {
            let why = format!("{}, wanted 0 to 4", settings.corrector_order);
            return Err(Error::setting("sa-solver:corrector_order", why));
        }
        at_least_zero("sa-solver:tau", settings.tau)?;
        at_least_zero("sa-solver:s_noise", settings.s_noise)?;
        if settings.low.is_nan() || settings.high.is_nan() || settings.low > settings.high {
            let why = format!("{} and {}, wanted low <= high", settings.low, settings.high);
            return Err(Error::setting("sa-solver:low, high", why));
        }
        Ok(Self { settings, past: History::default(), begun: None })
    }

    fn is_stochastic(&self) -> bool {
        self.settings.tau * self.settings.s_noise > 0.0
    }

    /// The step to `to`, through the newest `order` estimates.
    fn update(&self, begun: &Begun, to: Level, order: usize) -> State {
        let from = begun.from;
        let (tau, h) = (begun.tau * begun.tau, to.lambda() - from.lambda());
        let nodes = self.past.nodes(order, Level::lambda);
        let mut moments = moments(nodes.len(), (1.0 + tau) * h);
        if let (true, [_, slope]) = (self.settings.simple, moments.as_mut_slice()) {
            *slope = 0.5;
        }
        let weights = weights_of(&nodes, (from.lambda(), to.lambda()), &moments);
        let weights: Vec<f64> = weights.iter().map(|w| w * (1.0 + tau) * to.alpha).collect();
        let kept = to.sigma / from.sigma * (-tau * h).exp();
        let mean = self.past.added(begun.x.clone() * kept, &weights);
        match &begun.z {
            Some(z) if tau > 0.0 => {
                let std = to.sigma * (-(-2.0 * tau * h).exp_m1()).sqrt() * self.settings.s_noise;
                mean + z.clone() * std
            }
            _ => mean,
        }
    }
}

impl Sampler for SaSolver {
    fn claims(&self) -> Claims {
        let (p, c) = (self.settings.predictor_order, self.settings.corrector_order);
        // The first step is of order 1, corrected to a local error of h^3; the last is uncorrected.
        let most = if self.settings.lower_order_final { 2 } else { 3 };
        let order = if c == 0 { p.min(2) } else { (p + 1).min(c).min(most) };
        Claims { order: order as u8, nfe: 1, first: 0, stochastic: self.is_stochastic() }
    }

    fn reset(&mut self) {
        self.past.clear();
        self.begun = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let settings = &self.settings;
        let left = |order: usize, steps: usize| {
            if settings.lower_order_final { order.min(steps) } else { order }
        };
        let (predictor, corrector) = (
            left(settings.predictor_order, step.count - step.index),
            left(settings.corrector_order, step.count - step.index + 2),
        );
        let inside = settings.low <= from.t && from.t <= settings.high;
        let tau = if inside { settings.tau } else { 0.0 };
        let x0 = eval.at(&x, from)?;
        if to.sigma == 0.0 {
            return Ok(x0 * to.alpha);
        }
        // Steps outside the two times draw too, so that a seed's numbers stand at their steps.
        let z = if self.is_stochastic() {
            Some(noise.over(&x, from.sigma_edm(), to.sigma_edm())?)
        } else {
            None
        };
        if from.alpha == 0.0 {
            let kept = match z {
                Some(z) if tau > 0.0 => z * self.settings.s_noise,
                _ => eps_of(&x, &x0, from),
            };
            return Ok(x0 * to.alpha + kept * to.sigma);
        }
        self.past.push(from, x0, 4);
        let x = match &self.begun {
            Some(begun) if corrector > 0 => self.update(begun, from, corrector),
            _ => x,
        };
        let begun = Begun { x, from, tau, z };
        let next = self.update(&begun, to, predictor);
        self.begun = Some(begun);
        Ok(next)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.past.select(rows);
        if let Some(begun) = &mut self.begun {
            begun.x = begun.x.select(rows);
            begun.z = begun.z.take().map(|z| z.select(rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::ends_at;

    /// Noise at every step, and the integrals as they are.
    fn solver(predictor_order: usize, corrector_order: usize, tau: f64) -> SaSolver {
        let settings = Settings { predictor_order, corrector_order, tau, ..Settings::default() };
        let all = Settings { low: 0.0, high: 1.0, simple: false, ..settings };
        SaSolver::new(Settings { lower_order_final: false, ..all }).unwrap()
    }

    #[test]
    fn the_ends_are_comfyuis() {
        // ComfyUI (October 2025), the prediction of sample_sa_solver with tau 1, 0 and, simple, 0.6.
        ends_at(&mut solver(3, 4, 1.0), 0.389_234_131_340_997);
        ends_at(&mut solver(3, 4, 0.0), 0.723_844_355_193_561);
        let mut simple = solver(2, 2, 0.6);
        simple.settings.simple = true;
        ends_at(&mut simple, 0.761_930_431_712_766);
    }

    #[test]
    fn outside_the_two_times_it_is_the_flows() {
        let mut none = solver(3, 3, 1.0);
        (none.settings.low, none.settings.high) = (-2.0, -1.0);
        let formula = |x: f64, s: f64| (x / (1.0 + s)).tanh();
        let walk = |solver: &mut SaSolver| {
            crate::sampler::testing::walk(solver, &[3.0, 2.0, 1.0, 0.4], 2.0, &formula)
        };
        assert_eq!(walk(&mut none), walk(&mut solver(3, 3, 0.0)));
    }

    #[test]
    fn bad_settings_are_refused() {
        for bad in [
            Settings { predictor_order: 0, ..Settings::default() },
            Settings { corrector_order: 5, ..Settings::default() },
            Settings { tau: f64::NAN, ..Settings::default() },
            Settings { low: 0.9, ..Settings::default() },
        ] {
            assert!(SaSolver::new(bad).is_err());
        }
    }
}
