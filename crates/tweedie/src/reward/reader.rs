//! How much of its caption a picture of the shapes world shows, as the world's own reader sees it.
//!
//! Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025,
//! [arXiv:2501.09732](https://arxiv.org/abs/2501.09732), section 3: an oracle as the verifier.
//!
//! ```text
//! r(x) = share of what was asked that is right; 1 where all of it is, and nothing else is there
//! ```
//!
//! It has no gradient.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::data::shapes::{Asked, Picture, Score, score};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::reward::{Entry, Given, Recipe, Reward, Wants, weight};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "reader",
    seam: Seam::Reward,
    title: "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps",
    source: "2501.09732",
    year: 2025,
    what: "how much of its caption a picture of the shapes world shows",
    aliases: &[],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Settings>()?.checked()?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of the reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The caption that pictures are held against. The default is the picture's own prompt.
    pub caption: Option<String>,
    /// How much it counts beside other rewards. The default is 1.
    pub weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { caption: None, weight: 1.0 }
    }
}

impl Settings {
    fn checked(self) -> Result<Self> {
        weight("reader", self.weight)?;
        if let Some(caption) = &self.caption {
            Asked::parse(caption)?;
        }
        Ok(self)
    }
}

impl Recipe for Settings {
    fn wants(&self) -> Wants<'_> {
        Wants { captions: self.caption.is_none(), ..Wants::default() }
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn reward(&self, rows: usize, given: &Given) -> Result<Arc<dyn Reward>> {
        let captions = match (&self.caption, &given.captions) {
            (Some(caption), _) => vec![caption.clone(); rows],
            (None, Some(captions)) => captions.clone(),
            (None, None) => {
                let needs = "a caption of the shapes world: a prompt, or the setting `caption`";
                return Err(Error::unsupported("reward reader", needs));
            }
        };
        let asked = captions.iter().map(|c| Asked::parse(c)).collect::<Result<_>>()?;
        Ok(Arc::new(Reader { asked }))
    }
}

/// What pictures are held against, one a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Reader {
    asked: Vec<Asked>,
}

impl Reward for Reader {
    fn score(&self, x: &State, _at: &Levels) -> Result<Tensor<2>> {
        let [rows, channels, height, width] = x.view::<4>()?.dims();
        if channels != 3 || rows != self.asked.len() {
            return Err(Error::Shape {
                what: "pictures for the reader of the shapes world".into(),
                wanted: vec![self.asked.len(), 3, height, width],
                found: vec![rows, channels, height, width],
            });
        }
        let mut found = Vec::with_capacity(rows);
        for (row, asked) in x.to_rows().iter().zip(&self.asked) {
            let values: Vec<f32> = row.iter().map(|v| *v as f32).collect();
            let picture = Picture::from_f32_chw(width, height, &values)?;
            found.push(share(&score(&picture, asked)));
        }
        let device = x.device().without_autodiff();
        Ok(Tensor::from_data(TensorData::new(found, [rows, 1]), (&device, x.dtype())))
    }

    fn is_differentiable(&self) -> bool {
        false
    }

    fn select(&self, rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(Self { asked: rows.iter().map(|&r| self.asked[r].clone()).collect() })
    }
}

/// The share of the asked things that are right; whether all is counts as one thing more.
fn share(score: &Score) -> f64 {
    let mut points = vec![score.unreadable.is_none(), score.count, score.all_right()];
    points.extend(score.relation);
    points.extend(score.background);
    for object in &score.objects {
        points.extend([object.found, object.shape, object.right()]);
        points.extend([object.colour, object.size, object.place].into_iter().flatten());
    }
    points.iter().filter(|p| **p).count() as f64 / points.len() as f64
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::data::shapes::{Caption, Scene, Split};
    use crate::level::Level;

    #[test]
    fn a_drawing_of_its_caption_scores_one_and_another_less() {
        let scenes = [Scene::sample(3, 0, Split::Test), Scene::sample(3, 5, Split::Test)];
        let captions = scenes.clone().map(|s| Caption::sample(&s, 3, 0).asked.text());
        let pictures: Vec<f64> =
            scenes.iter().flat_map(|s| s.render().to_f32_chw()).map(f64::from).collect();
        let side = scenes[0].render().width();
        let x = State::from_f64(pictures, &[2, 3, side, side], &Device::flex()).unwrap();
        let of = |captions: Vec<String>| {
            let given = Given { captions: Some(captions), ..Given::default() };
            let reward = Settings::default().reward(2, &given).unwrap();
            let found = reward.score(&x, &Levels::One(Level::CLEAN)).unwrap();
            found.into_data_as::<f64>().iter::<f64>().collect::<Vec<_>>()
        };
        assert_eq!(of(captions.to_vec()), [1.0, 1.0]);
        let swapped = of(vec![captions[1].clone(), captions[0].clone()]);
        assert!(swapped.iter().all(|s| *s < 1.0), "{swapped:?}");
    }
}
