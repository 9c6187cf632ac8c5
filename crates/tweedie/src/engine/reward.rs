//! From a spec's rewards to what stands in the condition.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

use crate::catalog::Seam;
use crate::data::Images;
use crate::engine::autoencode::pixels;
use crate::engine::component;
use crate::engine::inputs::Inputs;
use crate::engine::open::Model;
use crate::error::{Error, Result};
use crate::hub::{Folder, builtin};
use crate::model::Autoencoder;
use crate::reward::{self, Classifies, Decoded, Decodes, Given, Recipe, Reward, Sum};
use crate::spec::Spec;
use crate::state::State;

/// A classifier for rewards: `builtin:NAME` or a folder.
///
/// # Errors
///
/// What is missing or wrong in the folder.
pub fn open_classifier(name: &str, device: &Device) -> Result<Arc<dyn Classifies>> {
    component::classifies(&Folder::resolve(name)?, device)
}

/// The rewards of a run, not yet bound to rows.
pub(super) struct Rewards {
    parts: Vec<(Box<dyn Recipe>, Option<Arc<dyn Classifies>>)>,
    decoder: Option<Arc<dyn Decodes>>,
    picture: Option<State>,
    captions: Vec<String>,
}

impl Rewards {
    /// What a spec asks for; `None` where it asks for nothing. `prompts` are those of the pictures,
    /// in turn.
    pub(super) fn open(
        model: &Model,
        spec: &Spec,
        inputs: &Inputs,
        prompts: &[String],
        [height, width]: [usize; 2],
    ) -> Result<Option<Self>> {
        if spec.rewards.is_empty() {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for part in &spec.rewards {
            let recipe = part.make(reward::entries(), Seam::Reward)?;
            let classifier = match recipe.wants().classifier {
                Some(name) => Some(classifier(name, inputs, model.device())?),
                None => None,
            };
            parts.push((recipe, classifier));
        }
        let decoder =
            model.decoder.clone().map(|decoder| -> Arc<dyn Decodes> { Arc::new(Decoder(decoder)) });
        let picture = |images: &Images| pixels(model, images, [height, width]).map(State::new);
        let captions = match prompts {
            [] if spec.prompt.is_empty() => Vec::new(),
            [] => vec![spec.prompt.clone()],
            own => own.to_vec(),
        };
        let picture = inputs.measured.as_ref().map(picture).transpose()?;
        Ok(Some(Self { parts, decoder, picture, captions }))
    }

    /// The reward of the pictures `first..last`.
    pub(super) fn of(
        &self,
        classes: Option<&[i64]>,
        first: usize,
        last: usize,
    ) -> Result<Arc<dyn Reward>> {
        let rows = last - first;
        let captions = (!self.captions.is_empty()).then(|| {
            (first..last).map(|k| self.captions[k % self.captions.len()].clone()).collect()
        });
        let mut given = Given {
            classes: classes.map(|c| c[first..last].to_vec()),
            captions,
            picture: self.picture.as_ref().map(|p| p.select(&vec![0; rows])),
            classifier: None,
        };
        let mut terms = Vec::new();
        for (recipe, classifier) in &self.parts {
            given.classifier.clone_from(classifier);
            let wants = recipe.wants();
            let inner = recipe.reward(rows, &given)?;
            let of_pictures = wants.classifier.is_some() || wants.picture || wants.captions;
            let reward = match &self.decoder {
                Some(_) if inner.reads_noise() => {
                    let needs = "a model over pixels: the classifier was taught on noisy pictures";
                    return Err(Error::unsupported("the reward", needs));
                }
                Some(decoder) if of_pictures => {
                    Arc::new(Decoded { decoder: decoder.clone(), inner }) as Arc<dyn Reward>
                }
                _ => inner,
            };
            terms.push((recipe.weight(), reward));
        }
        Sum::of(terms)
    }
}

/// The classifier that a reward names: one that was given, else a built-in one. A name is never a
/// path, so that a spec from a stranger opens no file here.
fn classifier(name: &str, inputs: &Inputs, device: &Device) -> Result<Arc<dyn Classifies>> {
    if let Some(given) = inputs.classifiers.get(name) {
        return Ok(given.clone());
    }
    if name.starts_with(builtin::PREFIX) {
        return open_classifier(name, device);
    }
    let name = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
    let why = format!("`{name}` was used and is not given");
    Err(Error::setting("reward classifier", why))
}

/// A model's decoder, as rewards see it.
struct Decoder(Autoencoder);

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decodes for Decoder {
    fn decode(&self, latents: &State) -> Result<State> {
        let z = self.0.of_unit(latents.view::<4>()?);
        self.0.decode(&z).map(State::new)
    }
}
