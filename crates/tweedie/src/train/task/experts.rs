//! Training experts for noise levels by a classifier of clean pictures: no labels are seen.
//!
//! Go et al., "Towards Practical Plug-and-Play Diffusion Models", 2022, arXiv:2212.05973, equation 7:
//! `KL(softmax(f(x0) / temperature) || softmax(f_n(x_t)))` with `t` even in each expert's range.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Task;
use super::pictures::{Pictures, tensor};
use crate::catalog::Seam;
use crate::error::{Error, Result};
use crate::hub::{Dtype, Folder, ModelFolder, outputs};
use crate::level::Levels;
use crate::model::classifier::{Classifier, ClassifierConfig};
use crate::model::experts::{Experts, ExpertsConfig};
use crate::process::Process;
use crate::reward::{Classifies, log_softmax};
use crate::spec::PartSpec;
use crate::state::State;
use crate::train::config::Config;
use crate::train::draws::{self, Use};
use crate::train::objective::Place;
use crate::weight::{Parameters, Weight, load};

/// Pictures that are measured on.
const MEASURED: usize = 500;

/// The section `experts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpertsSettings {
    /// The classifier that teaches, a folder relative to the working directory or `builtin:NAME`.
    pub teacher: PathBuf,
    /// How many ranges of levels there are. The default, 5, is the paper's.
    pub experts: usize,
    /// The rank of the updates. The default is 4.
    pub rank: usize,
    /// What the teacher's logits are divided by. The default, 0.25, is the paper's.
    pub temperature: f64,
    /// The path from data to noise. The default is the squared cosine.
    pub process: PartSpec,
}

impl Default for ExpertsSettings {
    fn default() -> Self {
        Self {
            teacher: "builtin:fashion-features".into(),
            experts: 5,
            rank: 4,
            temperature: 0.25,
            process: PartSpec::named("cosine"),
        }
    }
}

/// Experts in training; the classifier beneath stays as it is.
pub struct ExpertsTask {
    network: Experts,
    pictures: Pictures,
    process: Box<dyn Process>,
    temperature: f64,
    device: Device,
}

impl Parameters for ExpertsTask {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.network.adapters.each(path, visit);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        self.network.adapters.each_mut(path, visit);
    }
}

impl ExpertsTask {
    /// From the sections `data` and `experts`.
    ///
    /// # Errors
    ///
    /// What the sections, the teacher's folder and the readers say.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        config.only(&["data", "experts"])?;
        let settings: ExpertsSettings = config.section("experts")?;
        if !(settings.temperature.is_finite() && settings.temperature > 0.0) {
            let why = format!("{}, wanted a positive number", settings.temperature);
            return Err(Error::setting("experts.temperature", why));
        }
        let component = Folder::resolve(&settings.teacher.to_string_lossy())?.component("")?;
        let teacher: ClassifierConfig = crate::hub::config::read(&component)?;
        let mut teacher = Classifier::new(teacher, device)?;
        load(&mut teacher, &component.tensors()?)?;
        let (experts, rank) = (settings.experts, settings.rank);
        let of =
            ExpertsConfig { experts, rank, alpha: 0.5 * rank as f64, ..ExpertsConfig::default() };
        Ok(Self {
            network: Experts::over(teacher, of, device)?,
            pictures: Pictures::read(config)?,
            process: settings.process.make(crate::process::ENTRIES, Seam::Process)?,
            temperature: settings.temperature,
            device: device.clone(),
        })
    }

    /// The divergences of some pictures at the levels of their rows, `[rows, 1]`.
    fn divergence(&self, x0: &State, at: &Levels, eps: &State) -> Result<Tensor<2>> {
        let clean = self.network.base().logits(x0, at)? * (1.0 / self.temperature);
        let x = x0.scaled(at, |l| l.alpha) + eps.scaled(at, |l| l.sigma);
        let own = log_softmax(self.network.logits(&x.map(Tensor::autodiff), at)?);
        let wanted = log_softmax(clean).autodiff();
        Ok((wanted.clone().exp() * (wanted - own)).sum_dim(1))
    }
}

impl Task for ExpertsTask {
    fn examples(&self) -> usize {
        self.pictures.train.n
    }

    fn loss(&mut self, examples: &[usize], place: Place) -> Result<Tensor<1>> {
        let x0 = State::new(self.pictures.batch(examples, place, &self.device)?);
        let rows = examples.len();
        let levels: Vec<_> = (0..rows)
            .map(|i| {
                let row = place.first + i;
                let mut draw = draws::generator(place.seed, Use::Level, place.step, row);
                self.process.at(draw.uniform())
            })
            .collect();
        let width = x0.real_features();
        let mut noise = vec![0.0; width * rows];
        for (i, row) in noise.chunks_mut(width).enumerate() {
            draws::generator(place.seed, Use::Noise, place.step, place.first + i).fill_normal(row);
        }
        let eps = x0.filled_like(&noise)?;
        let lost = self.divergence(&x0, &Levels::rows(levels), &eps)?;
        Ok(lost.mean())
    }

    /// The divergence of each of five ranges on the first pictures, with noise that is always the same.
    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        let held =
            if self.pictures.test.n > 0 { &self.pictures.test } else { &self.pictures.train };
        let rows: Vec<usize> = (0..held.n.min(MEASURED)).collect();
        let x0 = tensor(held.gather_f32(&rows)?, rows.len(), held.shape(), &self.device);
        let x0 = State::new(x0);
        let width = x0.real_features();
        let mut found = Vec::new();
        for range in 0..5 {
            let mut noise = vec![0.0; width * rows.len()];
            let mut levels = Vec::with_capacity(rows.len());
            for (i, row) in noise.chunks_mut(width).enumerate() {
                let mut draw = draws::generator(0, Use::Noise, range, i);
                levels.push(self.process.at((range as f64 + draw.uniform()) / 5.0));
                draw.fill_normal(row);
            }
            let lost = self.divergence(&x0, &Levels::rows(levels), &x0.filled_like(&noise)?)?;
            let lost = lost.without_autodiff().mean().into_data_as::<f32>();
            let lost: f64 = lost.iter::<f32>().map(f64::from).sum();
            found.push((format!("divergence_{range}"), lost));
        }
        Ok(found)
    }

    fn export(&mut self, folder: &Path) -> Result<()> {
        let weights = outputs(&self.network, Dtype::F16);
        ModelFolder::single(self.network.config(), weights)?.write(folder)
    }
}
