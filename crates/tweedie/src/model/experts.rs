//! A classifier with an adapter for each range of noise levels (Go et al., "Towards Practical
//! Plug-and-Play Diffusion Models", 2022, arXiv:2212.05973, section 3.2).
//!
//! ```text
//! expert n = the classifier + low-rank updates of the residual blocks' convolutions
//!            + its own biases and norms
//! ```
//! Range `n` of `N` holds the levels with `atan(sigma / alpha) / (pi / 2)` in `[n, n + 1) / N`; on the
//! squared cosine path that is the time. What an expert has of its own is kept as the difference from
//! the classifier, so that an expert that has learnt nothing is the classifier.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::classifier::{Classifier, ClassifierConfig};
use super::config::Config;
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::reward::Classifies;
use crate::state::State;
use crate::weight::{Added, Initial, LowRank, Parameters, Weight, join};

/// The settings of [`Experts`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpertsConfig {
    /// The classifier beneath.
    pub classifier: ClassifierConfig,
    /// How many ranges of levels there are. The default, 5, is the paper's.
    pub experts: usize,
    /// The rank of the updates. The default is 4; the paper's, 16, is of a network fifty times as
    /// large.
    pub rank: usize,
    /// The updates are multiplied by this over the rank. The default is half the rank, as in the paper.
    pub alpha: f64,
}

impl Default for ExpertsConfig {
    fn default() -> Self {
        Self { classifier: ClassifierConfig::default(), experts: 5, rank: 4, alpha: 2.0 }
    }
}

impl Config for ExpertsConfig {
    const CLASS: &'static str = "TweedieExperts";

    fn validate(&self) -> Result<()> {
        self.classifier.validate()?;
        for (key, value, most) in [("experts", self.experts, 64), ("rank", self.rank, 256)] {
            if value == 0 || value > most {
                return Err(Error::setting(
                    format!("experts:{key}"),
                    format!("{value} is not in 1..={most}"),
                ));
            }
        }
        if self.classifier.levels || !self.alpha.is_finite() {
            let why = "wanted a classifier of clean pictures and a finite `alpha`";
            return Err(Error::setting("experts:classifier", why));
        }
        Ok(())
    }
}

/// What one expert has of its own: differences of vectors, and factors of updates, by the weight's path.
#[derive(Clone, Debug, Default)]
pub struct Adapter {
    own: Vec<(String, Weight)>,
    low: Vec<(String, [Weight; 2])>,
}

impl Adapter {
    fn new(base: &Classifier, rank: usize, device: &Device) -> Self {
        let mut adapter = Self::default();
        base.each("", &mut |path, weight| match *weight.shape() {
            [to, from, height, width] if path.contains("blocks") => {
                let bound = Initial::Uniform(1.0 / ((from * height * width) as f64).sqrt());
                let down = Weight::new([rank, from, height, width], bound, device);
                let up = Weight::new([to, rank], Initial::Zeros, device);
                adapter.low.push((path.to_owned(), [down, up]));
            }
            [length] => {
                let own = Weight::new([length], Initial::Zeros, device);
                adapter.own.push((path.to_owned(), own));
            }
            _ => {}
        });
        adapter
    }
}

impl Parameters for Adapter {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        for (name, own) in &self.own {
            visit(&join(path, name), own);
        }
        for (name, [down, up]) in &self.low {
            visit(&join(path, &format!("{name}.lora_down")), down);
            visit(&join(path, &format!("{name}.lora_up")), up);
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        for (name, own) in &mut self.own {
            visit(&join(path, name), own);
        }
        for (name, [down, up]) in &mut self.low {
            visit(&join(path, &format!("{name}.lora_down")), down);
            visit(&join(path, &format!("{name}.lora_up")), up);
        }
    }
}

/// A classifier with an adapter for each range of noise levels.
#[derive(Clone, Debug)]
pub struct Experts {
    config: ExpertsConfig,
    base: Classifier,
    /// What each expert has of its own, least noise first.
    pub adapters: Vec<Adapter>,
}
crate::parameters!(Experts { base, adapters });

impl Experts {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: ExpertsConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        Self::over(Classifier::new(config.classifier.clone(), device)?, config, device)
    }

    /// Over a classifier that was trained before; `config`'s own is replaced by its.
    ///
    /// # Errors
    ///
    /// As [`Experts::new`].
    pub fn over(base: Classifier, config: ExpertsConfig, device: &Device) -> Result<Self> {
        let config = ExpertsConfig { classifier: base.config().clone(), ..config };
        config.validate()?;
        let adapters =
            (0..config.experts).map(|_| Adapter::new(&base, config.rank, device)).collect();
        Ok(Self { config, base, adapters })
    }

    /// Its settings.
    pub fn config(&self) -> &ExpertsConfig {
        &self.config
    }

    /// The classifier beneath.
    pub fn base(&self) -> &Classifier {
        &self.base
    }

    /// The range that a level falls in.
    pub fn range(&self, level: Level) -> usize {
        let share = level.sigma.atan2(level.alpha) * std::f64::consts::FRAC_2_PI;
        ((share * self.config.experts as f64) as usize).min(self.config.experts - 1)
    }

    /// Expert `n` as a classifier of its own, on the tape where its weights are tracked.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an adapter does not fit, which is a bug.
    pub fn expert(&self, n: usize) -> Result<Classifier> {
        let adapter = &self.adapters[n];
        let scale = self.config.alpha / self.config.rank as f64;
        let mut expert = self.base.clone();
        let mut wrong = None;
        expert.each_mut("", &mut |path, weight| {
            let own = adapter.own.iter().find(|(p, _)| p == path);
            let low = adapter.low.iter().find(|(p, _)| p == path);
            let done = match (own, low) {
                (Some((_, own)), _) => {
                    let (value, own) = (weight.value(), own.value());
                    let value = if own.is_autodiff() { value.autodiff() } else { value };
                    weight.set(value + own)
                }
                (_, Some((_, [down, up]))) => {
                    let shape = weight.shape().to_vec();
                    LowRank::new(down.clone(), None, up.clone(), &shape)
                        .and_then(|f| weight.add(Added { factors: Arc::new(f), scale }))
                }
                _ => Ok(()),
            };
            if let Err(error) = done {
                wrong = Some(error);
            }
        });
        match wrong {
            None => Ok(expert),
            Some(error) => Err(error),
        }
    }
}

impl Classifies for Experts {
    fn logits(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        let ranges: Vec<usize> = (0..x.batch()).map(|row| self.range(at.row(row))).collect();
        let (mut parts, mut order) = (Vec::new(), Vec::new());
        for n in 0..self.config.experts {
            let rows: Vec<usize> = (0..x.batch()).filter(|&r| ranges[r] == n).collect();
            if rows.is_empty() {
                continue;
            }
            let part = if rows.len() == x.batch() { x.clone() } else { x.select(&rows) };
            parts.push(self.expert(n)?.logits(&part, &at.select(&rows))?);
            order.extend(rows);
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let mut back = vec![0_i64; order.len()];
        for (from, &to) in order.iter().enumerate() {
            back[to] = from as i64;
        }
        let all = Tensor::cat(parts, 0);
        let index = burn::tensor::TensorData::new(back, [order.len()]);
        let device = all.device();
        Ok(all.select(0, Tensor::from_data(index, &device)))
    }

    fn classes(&self) -> usize {
        self.config.classifier.classes
    }

    fn reads_noise(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_begin_as_the_classifier_and_share_a_batch() {
        let device = Device::flex();
        let classifier =
            ClassifierConfig { channels: vec![8, 16], groups: 4, ..ClassifierConfig::default() };
        let config = ExpertsConfig { classifier, experts: 3, ..ExpertsConfig::default() };
        let mut experts = Experts::new(config, &device).unwrap();
        crate::weight::draw(&mut experts, 1).unwrap();
        let mut pixels = vec![0.0; 3 * 32 * 32];
        crate::random::Key::new(1, 0, 0).generator().fill_normal(&mut pixels);
        let pixels: Vec<f32> = pixels.iter().map(|p| *p as f32).collect();
        let data = burn::tensor::TensorData::new(pixels, [3, 1, 32, 32]);
        let x = State::new(Tensor::<4>::from_data(data, &device));
        let at = [1.2, 0.0, -1.2].map(|lambda| Level::vp(0.5, lambda));
        assert_eq!(at.map(|l| experts.range(l)), [0, 1, 2]);
        let levels = Levels::rows(at);
        let numbers = |t: Tensor<2>| t.try_into_vec_as::<f32>().unwrap();
        let plain = numbers(experts.base().logits(&x, &levels).unwrap());
        assert_eq!(numbers(experts.logits(&x, &levels).unwrap()), plain);
        // One expert learns, and only its row changes.
        let up = &mut experts.adapters[2].low[0].1[1];
        let count = up.count();
        up.set_vec(vec![0.5; count]).unwrap();
        let moved = numbers(experts.logits(&x, &levels).unwrap());
        assert_eq!(moved[..20], plain[..20]);
        assert_ne!(moved[20..], plain[20..]);
    }
}
