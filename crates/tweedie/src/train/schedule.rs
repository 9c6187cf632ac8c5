//! Learning rate and averaging over the steps.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the learning rate goes on after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// A half cosine down to the final share (Loshchilov and Hutter 2017, without restarts).
    #[default]
    Cosine,
    /// Stays.
    Constant,
}

/// AdamW and its learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserSettings {
    /// The peak learning rate.
    pub lr: f64,
    /// Decay of the mean of the gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, of weights of rank 2 and more; biases and norms keep theirs.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises from 0, linearly.
    pub warmup: u64,
    /// How it goes on.
    pub decay: Decay,
    /// The share of the peak that a cosine ends at.
    pub final_share: f64,
    /// The largest norm of all gradients together; 0 leaves them as they are.
    pub clip: f64,
}

impl Default for OptimiserSettings {
    fn default() -> Self {
        Self {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            warmup: 500,
            decay: Decay::Cosine,
            final_share: 0.0,
            clip: 1.0,
        }
    }
}

impl OptimiserSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] names the first that is off.
    pub fn validate(&self) -> Result<()> {
        let positive = |key: &str, v: f64| match v.is_finite() && v > 0.0 {
            true => Ok(()),
            false => Err(Error::setting(format!("optimiser.{key}"), format!("{v} is not above 0"))),
        };
        let share = |key: &str, v: f64| match (0.0..1.0).contains(&v) {
            true => Ok(()),
            false => Err(Error::setting(format!("optimiser.{key}"), format!("{v} is not in 0..1"))),
        };
        positive("lr", self.lr)?;
        positive("eps", self.eps)?;
        share("beta1", self.beta1)?;
        share("beta2", self.beta2)?;
        share("weight_decay", self.weight_decay)?;
        if !(0.0..=1.0).contains(&self.final_share) {
            let why = format!("{} is not in 0..=1", self.final_share);
            return Err(Error::setting("optimiser.final_share", why));
        }
        if !(self.clip >= 0.0 && self.clip.is_finite()) {
            return Err(Error::setting("optimiser.clip", format!("{} is negative", self.clip)));
        }
        Ok(())
    }

    /// The learning rate of step `step` (from 0) of `steps`.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        match self.decay {
            Decay::Constant => self.lr,
            Decay::Cosine => {
                let rest = steps.saturating_sub(self.warmup).max(1) as f64;
                let done = ((step - self.warmup) as f64 / rest).min(1.0);
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
                self.lr * (self.final_share + (1.0 - self.final_share) * cosine)
            }
        }
    }
}

/// The exponential moving average of the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaSettings {
    /// The share of the old average that a step keeps, once warmed up; 0 is no average.
    pub decay: f64,
    /// The average follows more closely at first: step `n` keeps at most `(1 + n) / (warmup + n)`.
    pub warmup: u64,
}

impl Default for EmaSettings {
    fn default() -> Self {
        Self { decay: 0.999, warmup: 10 }
    }
}

impl EmaSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn validate(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.decay) {
            return Ok(());
        }
        Err(Error::setting("ema.decay", format!("{} is not in 0..1", self.decay)))
    }

    /// What step `step` (from 0) keeps.
    pub fn keep(&self, step: u64) -> f64 {
        let n = step as f64;
        self.decay.min((1.0 + n) / (self.warmup.max(1) as f64 + n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_peaks_and_falls_to_its_share() {
        let s = OptimiserSettings {
            lr: 2.0,
            warmup: 4,
            final_share: 0.1,
            ..OptimiserSettings::default()
        };
        let rates: Vec<f64> = (0..=24).map(|i| s.rate(i, 24)).collect();
        assert_eq!(rates[..5], [0.5, 1.0, 1.5, 2.0, 2.0]);
        assert!((rates[14] - 1.1).abs() < 1e-12, "half way: the mean of 2 and 0.2");
        assert!((rates[24] - 0.2).abs() < 1e-12);
        assert!((s.rate(99, 24) - 0.2).abs() < 1e-12, "beyond the end it stays");
        let flat = OptimiserSettings { decay: Decay::Constant, ..s };
        assert_eq!(flat.rate(20, 24), 2.0);
    }

    #[test]
    fn the_average_follows_closely_at_first() {
        let e = EmaSettings { decay: 0.9, warmup: 10 };
        assert_eq!(e.keep(0), 0.1);
        assert_eq!(e.keep(10), 0.55);
        assert_eq!(e.keep(10_000), 0.9);
        assert!(EmaSettings { decay: 1.0, warmup: 1 }.validate().is_err());
    }

    #[test]
    fn ranges_are_checked_by_name() {
        let bad = OptimiserSettings { beta2: 1.0, ..OptimiserSettings::default() };
        assert_eq!(bad.validate().unwrap_err().to_string(), "`optimiser.beta2`: 1 is not in 0..1");
        let bad = OptimiserSettings { lr: f64::NAN, ..OptimiserSettings::default() };
        assert!(bad.validate().is_err());
    }
}
