//! What diffusion training minimises: the weighted error of the network's output.
//!
//! ```text
//! x = alpha x0 + sigma eps;  loss = mean over rows of  w(level) mean |output(x, level) - target|^2
//! ```

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::draws::{self, Use};
use super::level_sampling::{self, LevelSampling};
use super::weighting::{self, Weighting};
use crate::catalog::Seam;
use crate::denoiser::{Cond, NetworkDenoiser, Pass, Scaling, TimeCode};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::prediction::Prediction;
use crate::process::Process;
use crate::spec::PartSpec;
use crate::state::State;

/// What stands around the network in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preconditioning {
    /// Nothing: the state goes in as it is.
    #[default]
    None,
    /// EDM's (Karras et al. 2022, Table 1), with the path's `sigma_data`; the network is told
    /// `ln(sigma_edm) / 4`. With `prediction = "eps"` the network's output is the paper's `F`, with
    /// `"v"` that with the other sign, as the published models have it.
    Edm,
}

/// The parts of the objective, as a configuration names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSettings {
    /// The path from data to noise.
    pub process: PartSpec,
    /// What the network's output means.
    pub prediction: Prediction,
    /// What stands around the network.
    pub preconditioning: Preconditioning,
    /// Which noise levels are shown.
    pub levels: PartSpec,
    /// How much each counts.
    pub weighting: PartSpec,
    /// The share of rows that lose their condition, for classifier-free guidance.
    pub dropout: f64,
    /// Spread the levels of a step evenly over the quantiles instead of drawing each apart; the
    /// loss is as expected and varies less.
    pub spread: bool,
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            process: PartSpec::named("cosine"),
            prediction: Prediction::V,
            preconditioning: Preconditioning::None,
            levels: PartSpec::named("uniform-time"),
            weighting: PartSpec::named("min-snr"),
            dropout: 0.1,
            spread: true,
        }
    }
}

/// The objective, ready to use.
#[derive(Debug)]
pub struct Objective {
    /// The path.
    pub process: Box<dyn Process>,
    /// What the network's output means.
    pub scaling: Scaling,
    /// How the network is told the level.
    pub time: TimeCode,
    /// Which levels are shown.
    pub levels: Box<dyn LevelSampling>,
    /// How much each counts.
    pub weighting: Box<dyn Weighting>,
    /// The share of rows that lose their condition.
    pub dropout: f64,
    /// Whether levels are spread evenly.
    pub spread: bool,
}

/// Which rows of which step a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The seed of the run.
    pub seed: u64,
    /// The step, from 0.
    pub step: u64,
    /// The number of this batch's first row within the step.
    pub first: usize,
    /// How many rows the whole step has.
    pub rows: usize,
}

impl Objective {
    /// Makes the parts.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the nearest names; what a part says of its settings.
    pub fn new(settings: &ObjectiveSettings) -> Result<Self> {
        if !(0.0..=1.0).contains(&settings.dropout) {
            let why = format!("{} is not in 0..=1", settings.dropout);
            return Err(Error::setting("objective.dropout", why));
        }
        let process: Box<dyn Process> =
            settings.process.make(crate::process::ENTRIES, Seam::Process)?;
        let sigma_data = process.sigma_data();
        let (scaling, time) = match (settings.preconditioning, settings.prediction) {
            (Preconditioning::None, prediction) => {
                let steps = process.table_steps().unwrap_or(1000) as f64;
                (Scaling::Predict(prediction), TimeCode::Steps(steps))
            }
            (Preconditioning::Edm, Prediction::Eps) => {
                (Scaling::Edm { sigma_data }, TimeCode::QuarterLogSigma)
            }
            (Preconditioning::Edm, Prediction::V) => {
                (Scaling::EdmV { sigma_data }, TimeCode::QuarterLogSigma)
            }
            (Preconditioning::Edm, other) => {
                let why = format!("{}, wanted eps or v with EDM's preconditioning", other.name());
                return Err(Error::setting("objective.prediction", why));
            }
        };
        Ok(Self {
            process,
            scaling,
            time,
            levels: settings.levels.make(level_sampling::ENTRIES, Seam::Objective)?,
            weighting: settings.weighting.make(weighting::ENTRIES, Seam::Objective)?,
            dropout: settings.dropout,
            spread: settings.spread,
        })
    }

    /// The levels of a batch's rows.
    pub fn draw_levels(&self, place: Place, count: usize) -> Vec<Level> {
        if !self.spread {
            let row = |i| {
                let generator =
                    draws::generator(place.seed, Use::Level, place.step, place.first + i);
                self.levels.level(&*self.process, { generator }.uniform())
            };
            return (0..count).map(row).collect();
        }
        // One draw a step shifts an even comb; the rows take its teeth in a random order, so that
        // neither a row's example nor its micro-batch says anything of its level.
        let mut shared = draws::generator(place.seed, Use::Level, place.step, 0);
        let shift = shared.uniform();
        let order = shared.permutation(place.rows);
        let rows = place.rows.max(1) as f64;
        let row = |i: usize| {
            let u = (order[place.first + i] as f64 + shift) / rows;
            self.levels.level(&*self.process, u.clamp(1e-9, 1.0 - 1e-9))
        };
        (0..count).map(row).collect()
    }

    /// Standard normal noise for the rows of a batch, each from its own key.
    ///
    /// # Errors
    ///
    /// Never in practice: the shape is that of `like`.
    pub fn draw_noise(&self, place: Place, like: &State) -> Result<State> {
        let width = like.real_features();
        let mut rows = vec![0.0; width * like.batch()];
        for (i, row) in rows.chunks_mut(width.max(1)).enumerate() {
            draws::generator(place.seed, Use::Noise, place.step, place.first + i).fill_normal(row);
        }
        like.filled_like(&rows)
    }

    /// Whether a row loses its condition.
    pub fn drops(&self, place: Place, row: usize) -> bool {
        let generator = draws::generator(place.seed, Use::Dropout, place.step, place.first + row);
        { generator }.uniform() < self.dropout
    }

    /// The loss of a batch: a tensor of one number on the tape of the network's weights.
    ///
    /// `x0` is without a tape; it is lifted here, so that the input joins the weights.
    ///
    /// # Errors
    ///
    /// What the network says.
    pub fn loss(
        &self,
        network: &NetworkDenoiser,
        x0: &State,
        cond: &Cond,
        place: Place,
    ) -> Result<Tensor<1>> {
        let count = x0.batch();
        let levels = self.draw_levels(place, count);
        let factors: Vec<f32> =
            levels.iter().map(|&l| self.weighting.factor(l, self.scaling) as f32).collect();
        let at = Levels::rows(levels);
        let eps = self.draw_noise(place, x0)?;
        let x = x0.scaled(&at, |l| l.alpha) + eps.scaled(&at, |l| l.sigma);
        let target = self.scaling.target(x0, &eps, &x, &at);
        let mut pass = Pass::single(count, at.row(0));
        for (i, row) in pass.rows.iter_mut().enumerate() {
            row.level = at.row(i);
        }
        let raw = network.raw(&x.map(Tensor::autodiff), &at, cond, &mut pass)?;
        let target = target.rows_tensor()?.autodiff();
        let error = raw.rows_tensor()? - target;
        let device = error.device().without_autodiff();
        let factors = Tensor::<1>::from_data(TensorData::new(factors, [count]), &device).autodiff();
        let rows = error.square().mean_dim(1).reshape([count]);
        Ok((rows * factors).mean())
    }
}
