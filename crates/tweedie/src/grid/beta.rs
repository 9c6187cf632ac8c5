//! Sigma by the quantiles of a beta distribution.
//!
//! Lee et al., "Beta Sampling is All You Need: Efficient Image Generation Strategy for Diffusion
//! Models using Stepwise Spectral Analysis", 2024,
//! [arXiv:2407.12173](https://arxiv.org/abs/2407.12173).
//!
//! ```text
//! sigma_k = sigma_min + Q(1 - k / (n - 1)) (sigma_max - sigma_min)          Q the quantile function
//! ```
//!
//! as diffusers lays it, in `sigma_edm`; the paper and ComfyUI lay the steps of the table so. With
//! both shapes below 1 steps gather at both ends.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::spaced::{Spaced, Told, Within};
use crate::grid::{Entry, Grid, Last};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "beta",
    seam: Seam::Grid,
    title: "Beta Sampling is All You Need: Efficient Image Generation Strategy for Diffusion Models using Stepwise Spectral Analysis",
    source: "2407.12173",
    year: 2024,
    what: "sigma by the quantiles of a beta distribution",
    aliases: &["use_beta_sigmas"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Beta>()?)),
    defaults: defaults_of::<Beta>,
    known_failures: &[],
};

/// Sigma by the quantiles of a beta distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Beta {
    /// The first shape. The default, 0.6, is the paper's.
    pub alpha: f64,
    /// The second shape. The default, 0.6, is the paper's.
    pub beta: f64,
    /// The cleanest sigma before the end; by default that of `within`.
    pub sigma_min: Option<f64>,
    /// The noisiest sigma; by default that of `within`.
    pub sigma_max: Option<f64>,
    /// Whose ends it has. The default is the process's.
    pub within: Within,
    /// The offset of `leading` there. The default is 0.
    pub offset: usize,
    /// What the network is told. The default is the time between the trained steps.
    pub told: Told,
    /// Where the grid ends. The default is clean.
    pub last: Last,
}

impl Default for Beta {
    fn default() -> Self {
        Self {
            alpha: 0.6,
            beta: 0.6,
            sigma_min: None,
            sigma_max: None,
            within: Within::Process,
            offset: 0,
            told: Told::Exact,
            last: Last::Clean,
        }
    }
}

impl Grid for Beta {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        for (key, shape) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !(0.05..=50.0).contains(&shape) {
                let why = format!("{shape}, wanted 0.05 to 50");
                return Err(Error::setting(format!("grid beta:{key}"), why));
            }
        }
        let spaced = Spaced {
            part: "beta",
            sigma_min: self.sigma_min,
            sigma_max: self.sigma_max,
            within: self.within,
            offset: self.offset,
            told: self.told,
            last: self.last,
        };
        let distribution = Distribution::new(self.alpha, self.beta);
        spaced.levels(process, steps, |low, high, u| {
            low + distribution.quantile(1.0 - u) * (high - low)
        })
    }
}

/// A beta distribution.
struct Distribution {
    a: f64,
    b: f64,
    /// The logarithm of the beta function.
    log_beta: f64,
}

impl Distribution {
    fn new(a: f64, b: f64) -> Self {
        Self { a, b, log_beta: ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b) }
    }

    /// The probability below `x`: the regularised incomplete beta function.
    fn below(&self, x: f64) -> f64 {
        let lead = |a: f64, b: f64, x: f64| {
            (a * x.ln() + b * (-x).ln_1p() - self.log_beta).exp() * fraction(a, b, x) / a
        };
        if x <= 0.0 {
            0.0
        } else if x >= 1.0 {
            1.0
        } else if x < (self.a + 1.0) / (self.a + self.b + 2.0) {
            lead(self.a, self.b, x)
        } else {
            1.0 - lead(self.b, self.a, 1.0 - x)
        }
    }

    /// Where the probability below is `p`, by halving.
    fn quantile(&self, p: f64) -> f64 {
        if p <= 0.0 || p >= 1.0 {
            return p.clamp(0.0, 1.0);
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..200 {
            let middle = 0.5 * (low + high);
            if self.below(middle) < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }
}

/// The continued fraction of the incomplete beta function (Lentz's method).
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let guard = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..400 {
        let m = f64::from(m);
        for term in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / guard(1.0 + term * d);
            c = guard(1.0 + term / c);
            h *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-16 {
            break;
        }
    }
    h
}

/// The logarithm of the gamma function, from Stirling's series far out and the recursion to there.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 12.0 {
        shift += x.ln();
        x += 1.0;
    }
    let z = 1.0 / (x * x);
    let series = (1.0 / 12.0 - z * (1.0 / 360.0 - z * (1.0 / 1260.0 - z / 1680.0))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Edm;

    #[test]
    fn quantiles_of_known_distributions() {
        // The arcsine distribution has Q(p) = sin^2(pi p / 2); with shape 2 and 1 it is sqrt(p).
        for p in [0.01, 0.3, 0.5, 0.93] {
            let arcsine = Distribution::new(0.5, 0.5).quantile(p);
            assert!((arcsine - (std::f64::consts::FRAC_PI_2 * p).sin().powi(2)).abs() < 1e-12);
            assert!((Distribution::new(2.0, 1.0).quantile(p) - p.sqrt()).abs() < 1e-12);
        }
    }

    #[test]
    fn steps_gather_at_both_ends() {
        let levels = Beta::default().levels(&Edm::default(), 11).unwrap();
        let gaps: Vec<f64> = levels[..11].windows(2).map(|w| w[0].sigma - w[1].sigma).collect();
        assert!(gaps[0] < gaps[4] && gaps[9] < gaps[5], "{gaps:?}");
        assert!((levels[5].sigma - 40.001).abs() < 1e-9);
    }
}
