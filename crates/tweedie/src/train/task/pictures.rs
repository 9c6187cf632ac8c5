//! The pictures that a task trains on, as a configuration names them.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::data::sets::{self, SETS, Split};
use crate::data::{Images, folder};
use crate::error::{Error, Result};
use crate::random::Generator;
use crate::train::config::Config;
use crate::train::draws::{self, Use};
use crate::train::objective::Place;

/// The section `data` of tasks over pictures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PictureSettings {
    /// A public set by name, such as `fashion-mnist`.
    pub set: Option<String>,
    /// Or a folder of pictures, one folder a class, relative to the configuration.
    pub folder: Option<PathBuf>,
    /// Channels that the pictures of a folder are brought to, 3 or 1; 0 is 3.
    pub channels: usize,
    /// The side that pictures are brought to by a border of black; 0 leaves them.
    pub pad: usize,
    /// Whether pictures are mirrored left to right, each with probability one half. Only for data
    /// that looks the same in a mirror.
    pub flip: bool,
    /// The most pixels that a picture is shifted by in either direction, black coming in.
    pub shift: usize,
    /// The most pictures that are read; 0 is all.
    pub limit: usize,
}

/// Pictures in memory, and how they are changed on the way to the network.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// Trained on.
    pub train: Images,
    /// Not trained on; empty where the source has no such part.
    pub test: Images,
    flip: bool,
    shift: usize,
}

impl Pictures {
    /// Reads what the section `data` names.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where it names nothing or both; what the readers say.
    pub fn read(config: &Config) -> Result<Self> {
        let settings: PictureSettings = config.section("data")?;
        let (train, test) = match (&settings.set, &settings.folder) {
            (Some(name), None) => {
                let known = || SETS.iter().map(|s| s.name);
                let set = SETS.iter().find(|s| s.name == name);
                let set = set.ok_or_else(|| Error::unknown("data set", name, known()))?;
                (sets::load(set, Split::Train)?, sets::load(set, Split::Test)?)
            }
            (None, Some(path)) => {
                if ![0, 1, 3].contains(&settings.channels) {
                    let why = format!("{}, wanted 1 or 3", settings.channels);
                    return Err(Error::setting("data.channels", why));
                }
                let mut options = folder::Options::default();
                if settings.channels > 0 {
                    options.target.channels = settings.channels;
                }
                (folder::read(&config.beside(path), &options)?, Images::default())
            }
            _ => return Err(Error::setting("data", "either `set` or `folder` is wanted")),
        };
        let side = settings.pad;
        let brought = |images: Images| {
            let images = if settings.limit > 0 { images.slice(0..settings.limit)? } else { images };
            if side > 0 && images.n > 0 { images.padded(side, side, 0) } else { Ok(images) }
        };
        let (train, test) = (brought(train)?, brought(test)?);
        if train.n == 0 {
            return Err(Error::setting("data", "there are no pictures to train on"));
        }
        Ok(Self { train, test, flip: settings.flip, shift: settings.shift })
    }

    /// The labels of examples.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the set has none.
    pub fn labels(&self, examples: &[usize]) -> Result<Vec<i64>> {
        let labels = self.train.labels.as_ref();
        let labels = labels.ok_or_else(|| Error::setting("data", "the pictures have no labels"))?;
        Ok(examples.iter().map(|&i| i64::from(labels[i])).collect())
    }

    /// Training pictures as `[batch, channels, height, width]` in -1..=1, mirrored and shifted as
    /// the section says.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an example that does not exist.
    pub fn batch(&self, examples: &[usize], place: Place, device: &Device) -> Result<Tensor<4>> {
        let mut pixels = self.train.gather_f32(examples)?;
        if self.flip || self.shift > 0 {
            for (i, picture) in pixels.chunks_mut(self.train.stride()).enumerate() {
                let row = place.first + i;
                self.augment(
                    picture,
                    &mut draws::generator(place.seed, Use::Augment, place.step, row),
                );
            }
        }
        Ok(tensor(pixels, examples.len(), self.train.shape(), device))
    }

    fn augment(&self, picture: &mut [f32], generator: &mut Generator) {
        let [_, height, width] = self.train.shape();
        let mirrored = self.flip && generator.uniform() < 0.5;
        let span = 2 * self.shift as u64 + 1;
        let mut offset = || generator.below(span) as i64 - self.shift as i64;
        let (down, right) = (offset(), offset());
        for plane in picture.chunks_mut(height * width) {
            let old = plane.to_vec();
            for (i, value) in plane.iter_mut().enumerate() {
                let (y, x) = ((i / width) as i64, (i % width) as i64);
                let x = if mirrored { width as i64 - 1 - x } else { x };
                let (y, x) = (y - down, x - right);
                let inside = (0..height as i64).contains(&y) && (0..width as i64).contains(&x);
                *value = if inside { old[y as usize * width + x as usize] } else { -1.0 };
            }
        }
    }
}

/// Pixels as a tensor.
pub(crate) fn tensor(pixels: Vec<f32>, n: usize, shape: [usize; 3], device: &Device) -> Tensor<4> {
    let [c, h, w] = shape;
    Tensor::from_data(TensorData::new(pixels, [n, c, h, w]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(flip: bool, shift: usize) -> Pictures {
        let train = Images::new([2, 1, 2, 3], (0..12).map(|i| i * 20).collect()).unwrap();
        Pictures { train, test: Images::default(), flip, shift }
    }

    #[test]
    fn pictures_are_mirrored_and_shifted_by_row_and_step_alone() {
        let device = Device::flex();
        let place = |step| Place { seed: 1, step, first: 0, rows: 2 };
        let of = |p: &Pictures, step| {
            p.batch(&[0, 1], place(step), &device).unwrap().try_into_vec_as::<f32>().unwrap()
        };
        let plain = of(&two(false, 0), 0);
        assert_eq!(plain, two(false, 0).train.to_f32());
        let mirror: Vec<f32> = plain.chunks(3).flat_map(|r| r.iter().rev().copied()).collect();
        let flips = two(true, 0);
        let mut seen = [0, 0];
        for step in 0..40 {
            let batch = of(&flips, step);
            assert_eq!(batch, of(&flips, step));
            let first = usize::from(batch[..6] != plain[..6]);
            assert!(first == 0 || batch[..6] == mirror[..6]);
            seen[first] += 1;
        }
        assert!(seen[0] > 8 && seen[1] > 8, "{seen:?}");
        let black = (0..20).map(|s| of(&two(false, 1), s)).filter(|b| b.contains(&-1.0));
        assert!(black.count() > 10, "a shift brings black in");
    }
}
