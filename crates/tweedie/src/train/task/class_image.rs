//! Training a class-conditional network over pixels.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};

use super::network::Trained;
use super::pictures::{Pictures, tensor};
use super::{Task, sampling, scheduler};
use crate::data::Images;
use crate::denoiser::{AskedClass, Cond, NetworkDenoiser};
use crate::error::{Error, Result};
use crate::hub::ModelFolder;
use crate::model::config::{Config as _, UNet2DConfig};
use crate::state::State;
use crate::train::config::Config;
use crate::train::objective::{Objective, ObjectiveSettings, Place};
use crate::weight::{Parameters, Weight};

/// The guidance weight of sample grids.
const GUIDANCE: f64 = 2.0;
/// Pictures that are measured on.
const MEASURED: usize = 1024;
/// Rows of a call when measuring.
const CHUNK: usize = 64;

/// A class-conditional U-Net or transformer in training; its last class stands for 'none'.
pub struct ClassImage {
    network: Trained,
    objective: Objective,
    settings: ObjectiveSettings,
    pictures: Pictures,
    none: i64,
    device: Device,
}

impl Parameters for ClassImage {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.network.each(path, visit);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        self.network.each_mut(path, visit);
    }
}

impl ClassImage {
    /// From the sections `data`, `network` (of class `UNet2DModel` where it names none) and
    /// `objective`.
    ///
    /// # Errors
    ///
    /// What the sections and the readers say; [`Error::Setting`] where the table of classes has no
    /// row left for 'none'.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        config.only(&["data", "network", "objective"])?;
        let settings: ObjectiveSettings = config.section("objective")?;
        let objective = Objective::new(&settings)?;
        let pictures = Pictures::read(config)?;
        let network = Trained::read(config, UNet2DConfig::CLASS, device)?;
        let wanted = pictures.train.class_count() + 1;
        let found = match network.network.asks().class {
            AskedClass::Label(count) => count,
            _ => 0,
        };
        if found != wanted {
            let why =
                format!("wanted {wanted} rows, one for each class and one for none, found {found}");
            return Err(Error::setting(network.class_key(), why));
        }
        let none = wanted as i64 - 1;
        Ok(Self { network, objective, settings, pictures, none, device: device.clone() })
    }

    fn denoiser(&self) -> NetworkDenoiser {
        NetworkDenoiser {
            network: self.network.network.clone(),
            time: self.objective.time,
            scaling: self.objective.scaling,
        }
    }
}

impl Task for ClassImage {
    fn examples(&self) -> usize {
        self.pictures.train.n
    }

    fn loss(&mut self, examples: &[usize], place: Place) -> Result<Tensor<1>> {
        let x0 = State::new(self.pictures.batch(examples, place, &self.device)?);
        let mut classes = self.pictures.labels(examples)?;
        for (i, class) in classes.iter_mut().enumerate() {
            if self.objective.drops(place, i) {
                *class = self.none;
            }
        }
        self.objective.loss(&self.denoiser(), &x0, &Cond::of_class(classes), place)
    }

    /// Four pictures of each class, a row each as far as the sheet allows.
    fn samples(&mut self) -> Result<Option<Images>> {
        let classes: Vec<i64> = (0..4 * self.none).map(|i| i / 4).collect();
        let [c, h, w] = self.pictures.train.shape();
        let x = Tensor::<4>::zeros([classes.len(), c, h, w], &self.device);
        let shape = [classes.len(), c, h, w];
        let process = &*self.objective.process;
        let cond = Cond::of_class(classes);
        let samples = sampling::draw(&self.denoiser(), process, cond, x, GUIDANCE)?;
        let values: Vec<f32> = samples.view::<4>()?.into_data_as::<f32>().iter::<f32>().collect();
        Images::from_f32(shape, &values).map(Some)
    }

    /// The loss on pictures that are not trained on, with levels and noise that are always the
    /// same.
    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        let test = &self.pictures.test;
        let count = test.n.min(MEASURED);
        let Some(labels) = test.labels.as_ref().filter(|_| count > 0) else {
            return Ok(Vec::new());
        };
        let mut sum = 0.0;
        for first in (0..count).step_by(CHUNK) {
            let rows: Vec<usize> = (first..count.min(first + CHUNK)).collect();
            let place = Place { seed: 0, step: 0, first, rows: count };
            let x0 = tensor(test.gather_f32(&rows)?, rows.len(), test.shape(), &self.device);
            let classes: Vec<i64> = rows.iter().map(|&i| i64::from(labels[i])).collect();
            let (x0, cond) = (State::new(x0), Cond::of_class(classes));
            let loss = self.objective.loss(&self.denoiser(), &x0, &cond, place)?;
            let loss = loss.without_autodiff().into_data_as::<f32>();
            sum += loss.iter::<f32>().map(f64::from).sum::<f64>() * rows.len() as f64;
        }
        Ok(vec![("test_loss".into(), sum / count as f64)])
    }

    /// The names of the classes stand in the index as `id2label`; the class without one is 'none'.
    fn export(&mut self, folder: &Path) -> Result<()> {
        let names = &self.pictures.train.classes;
        let labels: Map<String, Value> =
            names.iter().enumerate().map(|(i, n)| (i.to_string(), n.as_str().into())).collect();
        let model = ModelFolder::new(self.network.class_pipeline());
        self.network
            .put(model.argument("id2label", Value::Object(labels))?)?
            .scheduler(&scheduler::of(&self.settings)?)?
            .write(folder)
    }
}
