//! Training a classifier of pictures: the judge, or the network whose features are compared.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use super::Task;
use super::pictures::{Pictures, tensor};
use crate::data::Images;
use crate::error::{Error, Result};
use crate::hub::{Dtype, ModelFolder, outputs};
use crate::model::classifier::{Classifier, ClassifierConfig};
use crate::train::config::Config;
use crate::train::objective::Place;
use crate::weight::{Parameters, Weight};

/// Rows of a call when measuring.
const CHUNK: usize = 250;

/// A classifier in training: cross-entropy on labelled pictures.
pub struct ClassifierTask {
    network: Classifier,
    pictures: Pictures,
    device: Device,
}

impl Parameters for ClassifierTask {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.network.each(path, visit);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        self.network.each_mut(path, visit);
    }
}

impl ClassifierTask {
    /// From the sections `data` and `network`.
    ///
    /// # Errors
    ///
    /// What the sections and the readers say.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        config.only(&["data", "network"])?;
        let network: ClassifierConfig = config.section("network")?;
        let pictures = Pictures::read(config)?;
        if network.classes < pictures.train.class_count() {
            let why =
                format!("{} where the data has {}", network.classes, pictures.train.class_count());
            return Err(Error::setting("network.classes", why));
        }
        let network = Classifier::new(network, device)?;
        Ok(Self { network, pictures, device: device.clone() })
    }
}

/// The share of pictures whose class is that of the largest logit.
fn accuracy(network: &Classifier, images: &Images, device: &Device) -> Result<f64> {
    let Some(labels) = &images.labels else {
        return Err(Error::setting("data", "the pictures have no labels"));
    };
    let mut right = 0;
    for start in (0..images.n).step_by(CHUNK) {
        let range: Vec<usize> = (start..images.n.min(start + CHUNK)).collect();
        let x = tensor(images.gather_f32(&range)?, range.len(), images.shape(), device);
        let logits = network.forward(x)?.logits.into_data_as::<f32>();
        let logits: Vec<f32> = logits.iter::<f32>().collect();
        for (row, i) in logits.chunks(network.config().classes).zip(range) {
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            right += usize::from(best == Some(labels[i] as usize));
        }
    }
    Ok(right as f64 / images.n.max(1) as f64)
}

impl Task for ClassifierTask {
    fn examples(&self) -> usize {
        self.pictures.train.n
    }

    fn loss(&mut self, examples: &[usize], place: Place) -> Result<Tensor<1>> {
        let x = self.pictures.batch(examples, place, &self.device)?.autodiff();
        let logits = self.network.forward(x)?.logits;
        let labels = self.pictures.labels(examples)?;
        let count = labels.len();
        let labels =
            Tensor::<1, Int>::from_data(TensorData::new(labels, [count]), &logits.device());
        let likelihood = activation::log_softmax(logits, 1).gather(1, labels.reshape([count, 1]));
        Ok(likelihood.mean().neg())
    }

    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        if self.pictures.test.n == 0 {
            return Ok(Vec::new());
        }
        let found = accuracy(&self.network, &self.pictures.test, &self.device)?;
        Ok(vec![("test_accuracy".into(), found)])
    }

    fn export(&mut self, folder: &Path) -> Result<()> {
        let weights = outputs(&self.network, Dtype::F16);
        ModelFolder::single(self.network.config(), weights)?.write(folder)
    }
}
