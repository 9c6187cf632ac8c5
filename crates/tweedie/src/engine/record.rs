//! A picture as a file that says how it was made: for other programs, and for this one.

use crate::engine::generate::Generated;
use crate::engine::open::Model;
use crate::error::Result;
use crate::media::{Format, Infotext, PARAMETERS, RECORD, encode};
use crate::prompt::Emphasis;
use crate::spec::Spec;

impl Generated {
    /// The spec of picture `k` alone: it repeats by itself.
    pub fn spec_of(&self, k: usize) -> Spec {
        let mut one = self.spec.clone();
        one.seed = one.seed.wrapping_add(k as u64);
        (one.count, one.batch) = (1, 1);
        if let Some(classes) = &self.classes {
            one.classes = classes.get(k).copied().into_iter().collect();
        }
        one
    }

    /// Picture `k` as a file with two texts: A1111's [`PARAMETERS`], and the spec as JSON under
    /// [`RECORD`]. The model's hash is taken for it, which reads all of its weights once.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`] for a picture that does not exist; what reading the weights says.
    pub fn encode(&self, model: &Model, k: usize, format: Format) -> Result<Vec<u8>> {
        let mut spec = self.spec_of(k);
        spec.model_hash = Some(model.hash()?.to_owned());
        let info = self.infotext(&spec).to_string();
        encode(&self.images, k, format, &[(PARAMETERS, &info), (RECORD, &spec.to_json()?)])
    }

    fn infotext(&self, spec: &Spec) -> Infotext {
        let grid = spec.grid.as_ref().map(ToString::to_string).unwrap_or_default();
        let hash = spec.model_hash.clone().unwrap_or_default();
        let info = Infotext {
            prompt: spec.prompt.clone(),
            negative: spec.negative.clone(),
            fields: Vec::new(),
        };
        let mut info = info
            .with("Steps", spec.steps)
            .with("Sampler", &spec.sampler)
            .with("Schedule type", grid)
            .with("CFG scale", spec.guidance.unwrap_or(1.0))
            .with("Seed", spec.seed)
            .with("Size", format!("{}x{}", self.images.width, self.images.height))
            .with("Model hash", format!("{hash:.10}"))
            .with("Model", &spec.model);
        if let Some(skip) = spec.clip_skip {
            info = info.with("Clip skip", skip);
        }
        if spec.emphasis != Emphasis::KeepMean {
            info = info.with("Emphasis", spec.emphasis);
        }
        info = hashes(info, "Lora hashes", spec.loras.iter().map(|l| (&l.name, &l.hash)));
        info = hashes(info, "TI hashes", spec.embeddings.iter().map(|e| (&e.name, &e.hash)));
        if spec.task.init.is_some() {
            info = info.with("Denoising strength", spec.task.effective_strength());
        }
        if let Some(weight) = spec.task.image_guidance {
            info = info.with("Image CFG scale", weight);
        }
        if let Some(upscale) = spec.task.upscale {
            info = info
                .with("Hires upscale", upscale.factor)
                .with("Hires denoising strength", upscale.strength);
        }
        for (i, control) in spec.task.controls.iter().enumerate() {
            let text = format!("{}, weight {}", control.model.name, control.strength);
            info = info.with(&format!("ControlNet {i}"), text);
        }
        info.with("Version", format!("tweedie {}", spec.version))
    }
}

/// `name: hash, name: hash` as one setting, where there are any.
fn hashes<'a>(
    info: Infotext,
    key: &str,
    files: impl Iterator<Item = (&'a String, &'a String)>,
) -> Infotext {
    let text: Vec<String> = files.map(|(name, hash)| format!("{name}: {hash:.12}")).collect();
    if text.is_empty() { info } else { info.with(key, text.join(", ")) }
}
