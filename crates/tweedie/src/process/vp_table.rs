//! The variance-preserving path as a table of `beta`s, one a training step.
//!
//! Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020,
//! [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), equation 4. The scaled-linear table is
//! that of latent diffusion (Rombach et al. 2022), the squared cosine that of Nichol and Dhariwal
//! 2021.
//!
//! ```text
//! alpha_i^2 = prod_{j <= i} (1 - beta_j)      sigma_i^2 = 1 - alpha_i^2      t = i / steps
//! ```
//!
//! Step 0 is already noisy. Between two steps `ln sigma_edm` is linear in the step, the inverse of
//! what diffusers' discrete schedulers do when they look up the step of a sigma. A level that is
//! cleaner than step 0 or noisier than the last exists through [`Process::at_lambda`]: it has the
//! asked `lambda` and the time of the nearest step, as there.
//!
//! With zero terminal SNR (Lin et al. 2023) the last step has `alpha = 0`, and between it and the
//! step before `alpha` is linear.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::process::{Entry, Process, Rate, unit_prior};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "vp-table",
    seam: Seam::Process,
    title: "Denoising Diffusion Probabilistic Models",
    source: "2006.11239",
    year: 2020,
    what: "variance-preserving path as a table of betas",
    aliases: &["vp", "ddpm"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(VpTable::new(&s.read()?)?)),
    defaults: defaults_of::<Table>,
    known_failures: &[],
};

/// How the `beta`s run over the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Betas {
    /// `beta` is linear in the step (Ho et al. 2020).
    #[default]
    Linear,
    /// `sqrt(beta)` is linear in the step (Rombach et al. 2022).
    ScaledLinear,
    /// From the squared cosine, each at most 0.999 (Nichol and Dhariwal 2021).
    SquaredcosCapV2,
    /// `beta` is a sigmoid of the step between -6 and 6 (Xu et al. 2022, GeoDiff).
    Sigmoid,
}

/// The settings of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Table {
    /// Training steps, `num_train_timesteps` in diffusers. The default, 1000, is the paper's.
    pub steps: usize,
    /// How the betas run. The default, linear, is the paper's.
    pub betas: Betas,
    /// The first beta. The default, 0.0001, is the paper's.
    pub beta_start: f64,
    /// The last beta. The default, 0.02, is the paper's.
    pub beta_end: f64,
    /// The betas themselves, in place of all of the above.
    pub trained_betas: Option<Vec<f64>>,
    /// Whether the path is shifted and scaled so that the last step holds no signal,
    /// `rescale_betas_zero_snr` in diffusers. The default, no, is the paper's.
    pub zero_terminal_snr: bool,
    /// The share of signal, `alpha^2`, that the last step is said to hold in place of the table's
    /// own: 2^-24 in diffusers' Euler and multistep classes with zero terminal SNR. None by default.
    pub last_signal: Option<f64>,
    /// Whether the table is rounded to 32 bits where diffusers does it, which moves the cleanest
    /// levels by parts in 10^4. The default is no.
    pub single: bool,
    /// Whether a run starts from noise of standard deviation `sigma` of its first level, as
    /// diffusers' Euler and Heun classes do on linspace and trailing spacings, in place of 1. The
    /// default, no, is the paper's.
    pub prior_sigma: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            steps: 1000,
            betas: Betas::Linear,
            beta_start: 1e-4,
            beta_end: 0.02,
            trained_betas: None,
            zero_terminal_snr: false,
            last_signal: None,
            single: false,
            prior_sigma: false,
        }
    }
}

/// The most steps that a table may have.
const MOST: usize = 1_000_000;

impl Table {
    /// The betas.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for fewer than two steps or a beta outside (0, 1).
    pub fn betas(&self) -> Result<Vec<f64>> {
        let n = self.trained_betas.as_ref().map_or(self.steps, Vec::len);
        if !(2..=MOST).contains(&n) {
            let why = format!("{n} training steps, wanted 2 to {MOST}");
            return Err(Error::setting("vp-table:steps", why));
        }
        let ramp = |a: f64, b: f64, i: usize| {
            if !self.single {
                return a + (b - a) * i as f64 / (n - 1) as f64;
            }
            // Torch's: from both ends, each number rounded once.
            let (a, b) = (a as f32, b as f32);
            let step = f64::from((b - a) / (n - 1) as f32);
            let value = if i < n / 2 {
                f64::from(a) + step * i as f64
            } else {
                f64::from(b) - step * (n - 1 - i) as f64
            };
            f64::from(value as f32)
        };
        let cosine = |i: usize| {
            let t = i as f64 / n as f64;
            ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
        };
        let beta = |i: usize| match self.betas {
            Betas::Linear => ramp(self.beta_start, self.beta_end, i),
            Betas::ScaledLinear => ramp(self.beta_start.sqrt(), self.beta_end.sqrt(), i).powi(2),
            Betas::SquaredcosCapV2 => (1.0 - cosine(i + 1) / cosine(i)).min(0.999),
            Betas::Sigmoid => {
                let share = 1.0 / (1.0 + (-ramp(-6.0, 6.0, i)).exp());
                self.beta_start + (self.beta_end - self.beta_start) * share
            }
        };
        let betas = self.trained_betas.clone().unwrap_or_else(|| (0..n).map(beta).collect());
        match betas.iter().position(|&b| b.is_nan() || b <= 0.0 || b >= 1.0) {
            Some(i) => {
                let why = format!("beta of step {i} is {}, wanted between 0 and 1", betas[i]);
                Err(Error::setting("vp-table:betas", why))
            }
            None => Ok(betas),
        }
    }
}

/// The variance-preserving path as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct VpTable {
    /// `ln sigma_edm` at each training step, rising; infinite at the last with zero terminal SNR.
    log_sigmas: Vec<f64>,
    /// The same as the time of a sigma is looked up in, in 32 bits where the table is.
    looked_up: Vec<f64>,
    prior_sigma: bool,
}

impl VpTable {
    /// A table from its settings.
    ///
    /// # Errors
    ///
    /// As [`Table::betas`].
    pub fn new(table: &Table) -> Result<Self> {
        let round = |v: f64| if table.single { f64::from(v as f32) } else { v };
        let mut product = 1.0;
        let mut bars: Vec<f64> = Vec::new();
        for beta in table.betas()? {
            product *= round(1.0 - round(beta));
            bars.push(round(product));
        }
        if table.zero_terminal_snr {
            rescale_to_zero(&mut bars, round);
            if table.single {
                // There the betas are computed anew and the table from them.
                let (mut before, mut product) = (1.0, 1.0);
                for bar in &mut bars {
                    let alpha = round(*bar / before);
                    before = *bar;
                    product *= round(1.0 - round(1.0 - alpha));
                    *bar = round(product);
                }
            }
        }
        if let Some(signal) = table.last_signal {
            if !(0.0..1.0).contains(&signal) {
                let why = format!("{signal}, wanted 0 to 1");
                return Err(Error::setting("vp-table:last_signal", why));
            }
            bars.pop();
            bars.push(signal);
        }
        let log_sigma = |&bar: &f64| {
            if table.single {
                round(round(round(1.0 - bar) / bar).sqrt()).ln()
            } else {
                0.5 * ((1.0 - bar).ln() - bar.ln())
            }
        };
        let log_sigmas: Vec<f64> = bars.iter().map(log_sigma).collect();
        // What the last step is said to hold may be less noise than the step before has.
        let checked = log_sigmas.len() - usize::from(table.last_signal.is_some());
        if log_sigmas[..checked].windows(2).any(|w| w[0].is_nan() || w[0] >= w[1]) {
            let why = "the noise does not grow from step to step";
            return Err(Error::setting("vp-table:betas", why));
        }
        let looked_up = log_sigmas.iter().map(|&v| round(v)).collect();
        Ok(Self { log_sigmas, looked_up, prior_sigma: table.prior_sigma })
    }

    fn last(&self) -> usize {
        self.log_sigmas.len() - 1
    }

    /// The step below `tau` and the share of the way to the next.
    fn place(&self, tau: f64) -> (usize, f64) {
        let low = (tau.floor() as usize).min(self.last() - 1);
        (low, tau - low as f64)
    }

    /// `alpha` of the last step that has signal, where the next has none.
    fn last_signal(&self, low: usize) -> Option<f64> {
        let dark = self.log_sigmas[low + 1] == f64::INFINITY;
        dark.then(|| Level::vp(0.0, -self.log_sigmas[low]).alpha)
    }
}

/// Lin et al. 2023, algorithm 1: `alpha` shifted so that the last is 0 and scaled so that the first
/// stays.
fn rescale_to_zero(bars: &mut [f64], round: impl Fn(f64) -> f64) {
    let root = |bar: f64| round(bar.sqrt());
    let (first, last) = (root(bars[0]), root(bars[bars.len() - 1]));
    let scale = round(first / round(first - last));
    for bar in bars {
        let alpha = round(round(root(*bar) - last) * scale);
        *bar = round(alpha * alpha);
    }
}

impl Process for VpTable {
    fn at(&self, t: f64) -> Level {
        let steps = self.log_sigmas.len() as f64;
        let tau = (t * steps).clamp(0.0, self.last() as f64);
        let (low, w) = self.place(tau);
        let t = tau / steps;
        if let Some(signal) = self.last_signal(low) {
            let alpha = signal * (1.0 - w);
            return Level::new(t, alpha, (1.0 - alpha * alpha).sqrt());
        }
        Level::vp(t, -((1.0 - w) * self.log_sigmas[low] + w * self.log_sigmas[low + 1]))
    }

    fn rate(&self, t: f64) -> Rate {
        let steps = self.log_sigmas.len() as f64;
        let at = self.at(t);
        let (low, _) = self.place(at.t * steps);
        if let Some(signal) = self.last_signal(low) {
            let alpha = -signal * steps;
            return Rate { alpha, anchor: 0.0, sigma: -at.alpha * alpha / at.sigma };
        }
        let slope = steps * (self.log_sigmas[low + 1] - self.log_sigmas[low]);
        Rate {
            alpha: -slope * at.alpha * at.sigma * at.sigma,
            anchor: 0.0,
            sigma: slope * at.sigma * at.alpha * at.alpha,
        }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        let wanted = -lambda;
        let below = self.looked_up.iter().rposition(|&s| s <= wanted);
        let low = below.unwrap_or(0).min(self.last() - 1);
        let w = match self.last_signal(low) {
            Some(signal) => 1.0 - Level::vp(0.0, lambda).alpha / signal,
            None => {
                (wanted - self.looked_up[low]) / (self.looked_up[low + 1] - self.looked_up[low])
            }
        };
        (low as f64 + w.clamp(0.0, 1.0)) / self.log_sigmas.len() as f64
    }

    /// The asked `lambda` with the time of the nearest step, also beyond the table's ends.
    fn at_lambda(&self, lambda: f64) -> Level {
        Level::vp(self.t_of_lambda(lambda), lambda)
    }

    fn ends(&self) -> (f64, f64) {
        (0.0, self.last() as f64 / self.log_sigmas.len() as f64)
    }

    fn table_steps(&self) -> Option<usize> {
        Some(self.log_sigmas.len())
    }

    fn prior(
        &self,
        like: &State,
        endpoint: Option<&State>,
        at: Level,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let unit = unit_prior(like, endpoint, at, noise)?;
        Ok(if self.prior_sigma { unit * at.sigma } else { unit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_the_product_of_the_betas() {
        let table = Table { steps: 50, ..Table::default() };
        let path = VpTable::new(&table).unwrap();
        let mut product = 1.0;
        for (i, beta) in table.betas().unwrap().iter().enumerate() {
            product *= 1.0 - beta;
            let at = path.at(i as f64 / 50.0);
            assert!((at.alpha_bar() - product).abs() < 1e-14, "{i}");
        }
    }

    #[test]
    fn beyond_the_ends_lambda_is_kept_and_time_is_the_nearest() {
        let path = VpTable::new(&Table::default()).unwrap();
        for lambda in [20.0, 5.5, -7.0, f64::INFINITY, f64::NEG_INFINITY] {
            let at = path.at_lambda(lambda);
            assert_eq!(at.t, if lambda > 0.0 { 0.0 } else { 0.999 }, "{lambda}");
            assert!((at.lambda() - lambda).abs() < 1e-12 || lambda.is_infinite());
        }
        assert_eq!(path.at_lambda(f64::INFINITY).sigma, 0.0);
    }

    #[test]
    fn bad_tables_are_refused() {
        for bad in [
            Table { steps: 1, ..Table::default() },
            Table { steps: usize::MAX, ..Table::default() },
            Table { beta_end: 1.5, ..Table::default() },
            Table { beta_start: f64::NAN, ..Table::default() },
            Table { trained_betas: Some(vec![0.1]), ..Table::default() },
        ] {
            assert!(VpTable::new(&bad).is_err(), "{bad:?}");
        }
    }
}
