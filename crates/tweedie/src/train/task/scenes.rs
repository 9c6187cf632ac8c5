//! Scenes of the shapes world, drawn as they are needed.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::pictures::tensor;
use crate::data::shapes::{Caption, SIDE, Scene, Split};
use crate::error::{Error, Result};

/// The section `data` of tasks over scenes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SceneSettings {
    /// The seed of the world.
    pub seed: u64,
    /// How many scenes an epoch has.
    pub scenes: usize,
    /// Scenes that are measured on.
    pub test: usize,
    /// The side of the pictures in pixels: 64, as the scenes are laid out, or 32.
    pub side: usize,
}

impl Default for SceneSettings {
    fn default() -> Self {
        Self { seed: 0, scenes: 200_000, test: 128, side: SIDE }
    }
}

impl SceneSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn validate(&self) -> Result<()> {
        if self.scenes == 0 || self.scenes > 1 << 32 {
            return Err(Error::setting("data.scenes", format!("{} scenes", self.scenes)));
        }
        if self.side != SIDE && self.side != SIDE / 2 {
            let why = format!("{}, wanted {SIDE} or {}", self.side, SIDE / 2);
            return Err(Error::setting("data.side", why));
        }
        Ok(())
    }

    /// A training scene.
    pub fn train(&self, example: usize) -> Scene {
        Scene::sample(self.seed, example as u64, Split::Train)
    }

    /// Scene `i` of those that are measured on; half of them show combinations that training never
    /// sees.
    pub fn held(&self, i: usize) -> Scene {
        let split = if i.is_multiple_of(2) { Split::Test } else { Split::HeldOut };
        Scene::sample(self.seed, i as u64, split)
    }

    /// A caption of a scene, number `draw` of many.
    pub fn caption(&self, scene: &Scene, draw: u64) -> Caption {
        Caption::sample(scene, self.seed, draw)
    }
}

/// Scenes as `[batch, 3, side, side]` in -1..=1.
///
/// # Errors
///
/// [`Error::Setting`] where the world is not drawn at that side.
pub(crate) fn pixels(scenes: &[Scene], side: usize, device: &Device) -> Result<Tensor<4>> {
    let mut values = Vec::with_capacity(scenes.len() * 3 * side * side);
    for scene in scenes {
        values.extend(scene.render_at(side)?.to_f32_chw());
    }
    Ok(tensor(values, scenes.len(), [3, side, side], device))
}
