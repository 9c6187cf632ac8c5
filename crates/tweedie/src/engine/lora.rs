//! LoRAs and learned embeddings on a model: a copy of it that shares its weights and adds to them.

use std::sync::Arc;

use crate::engine::open::Model;
use crate::error::{Error, Result};
use crate::hub::lora::{Fitted, Modules, Update};
use crate::hub::{Embedding, Lora};
use crate::prompt::tags;
use crate::spec::{EmbeddingUse, LoraUse, Spec};
use crate::weight::{Added, Parameters};

/// What a LoRA did to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// Its hash.
    pub hash: String,
    /// How strongly it acts.
    pub weight: f64,
    /// How many modules it has.
    pub modules: usize,
    /// How many of its modules found their weights.
    pub matched: usize,
    /// How many weights of each part of the model it acts on, in the order of the parts.
    pub parts: Vec<(String, usize)>,
    /// Its modules, and its tensors that are no part of a module, that found no place.
    pub unmatched: Vec<String>,
    /// Its modules that stand in the file under a second name and were taken once.
    pub twice: Vec<String>,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(|(p, n)| format!("{n} in {p}")).collect();
        let (name, weight) = (&self.name, self.weight);
        write!(f, "lora {name} at {weight}: {} of {} modules matched", self.matched, self.modules)?;
        write!(f, " ({}), {} entries unmatched", parts.join(", "), self.unmatched.len())?;
        if !self.twice.is_empty() {
            write!(f, ", {} written twice", self.twice.len())?;
        }
        Ok(())
    }
}

impl Model {
    /// The modules that a LoRA can act on.
    pub fn modules(&self) -> Modules {
        let mut modules = Modules::default();
        modules.add("unet", &*self.denoiser.network);
        for part in self.text.iter().flat_map(|text| &text.parts) {
            modules.add(part.name, &part.encoder);
        }
        modules
    }

    /// This model with LoRAs, each as strong as the number beside it.
    ///
    /// The weights themselves are shared: what a LoRA adds is computed as a path of its own beside
    /// them. So one opened model serves several runs with different LoRAs at once, and nothing is
    /// read again.
    ///
    /// # Errors
    ///
    /// Modules that the model does not have, unless `partial`; a LoRA of which nothing fits; a
    /// module of another shape, with the file, the tensor, what was found and what was wanted.
    pub fn with_loras(
        &self,
        loras: &[(&Lora, f64)],
        partial: bool,
    ) -> Result<(Self, Vec<Applied>)> {
        if loras.is_empty() {
            return Ok((self.clone(), Vec::new()));
        }
        let (modules, device) = (self.modules(), self.device().clone());
        let mut model = self.clone();
        let mut network = self.denoiser.network.copied().ok_or_else(|| {
            Error::unsupported(&self.name, "a network that can be copied, for a LoRA to act on")
        })?;
        let mut all = Vec::with_capacity(loras.len());
        for &(lora, weight) in loras {
            if !weight.is_finite() {
                return Err(Error::setting("lora", format!("{weight} is not finite")));
            }
            let fitted = lora.fit(&modules, &device)?;
            check(lora, &fitted, partial)?;
            let mut parts = vec![("unet".to_owned(), 0)];
            parts[0].1 = put(&mut *network, "unet", &fitted.updates, weight)?;
            for part in model.text.iter_mut().flat_map(|text| &mut text.parts) {
                let count = put(&mut part.encoder, part.name, &fitted.updates, weight)?;
                parts.push((part.name.to_owned(), count));
            }
            all.push(Applied {
                name: lora.name().to_owned(),
                hash: lora.hash().to_owned(),
                weight,
                modules: fitted.modules,
                matched: fitted.matched,
                parts,
                unmatched: fitted.unmatched,
                twice: fitted.twice,
            });
        }
        model.denoiser.network = Arc::from(network);
        model.loras.extend(all.iter().map(|one: &Applied| LoraUse {
            name: one.name.clone(),
            hash: one.hash.clone(),
            weight: one.weight,
        }));
        Ok((model, all))
    }

    /// This model with learned embeddings, which prompts name.
    ///
    /// # Errors
    ///
    /// The model has no text encoder, or one of another width: the error names the file, the
    /// tensor, what was found and what was wanted.
    pub fn with_embeddings(&self, embeddings: &[Embedding]) -> Result<Self> {
        let mut model = self.clone();
        for embedding in embeddings {
            let Some(text) = &mut model.text else {
                return Err(Error::unsupported("an embedding", "a model with a text encoder"));
            };
            text.learn(embedding)?;
        }
        Ok(model)
    }

    /// The learned embeddings that prompts may name.
    pub(super) fn embeddings(&self) -> Vec<EmbeddingUse> {
        let learned = self.text.iter().flat_map(|text| &text.learned);
        let of = |word: &super::text::Learned| EmbeddingUse {
            name: word.names.first().cloned().unwrap_or_default(),
            hash: word.hash.clone(),
        };
        learned.map(of).collect()
    }

    /// Checks that a spec and its prompts ask for no LoRA and no embedding that is not on the model.
    pub(super) fn check_adapters(&self, spec: &Spec, prompts: &[&str]) -> Result<()> {
        if !spec.loras.is_empty() && spec.loras != self.loras {
            let names = |loras: &[LoraUse]| {
                let one = |l: &LoraUse| format!("{} at {}", l.name, l.weight);
                loras.iter().map(one).collect::<Vec<_>>().join(", ")
            };
            let why =
                format!("wanted {}, the model has [{}]", names(&spec.loras), names(&self.loras));
            return Err(Error::setting("loras", why));
        }
        let own = self.embeddings();
        if let Some(missing) = spec.embeddings.iter().find(|e| !own.contains(e)) {
            let why = format!("the model was not given `{}`", missing.name);
            return Err(Error::setting("embeddings", why));
        }
        for prompt in prompts {
            for tag in tags(prompt)?.1 {
                if self.loras.iter().all(|l| l.name != tag.name) {
                    let kind = "lora on the model";
                    let names = self.loras.iter().map(|l| l.name.as_str());
                    return Err(Error::unknown(kind, &tag.name, names));
                }
            }
        }
        Ok(())
    }
}

fn check(lora: &Lora, fitted: &Fitted, partial: bool) -> Result<()> {
    let count = fitted.unmatched.len();
    if fitted.updates.is_empty() {
        let why = format!("none of its {} modules is one of the model", fitted.modules);
        return Err(Error::format(lora.file(), "", why));
    }
    if count > 0 && !partial {
        let some: Vec<&str> = fitted.unmatched.iter().take(3).map(String::as_str).collect();
        let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
        let why = format!(
            "{count} entries beside {} modules that fit are none of the model: {}{more}",
            fitted.matched,
            crate::hub::json::escape(&some.join(", "))
        );
        return Err(Error::format(lora.file(), "", why));
    }
    Ok(())
}

/// Puts the updates of one part on its weights and says how many there are.
fn put(
    network: &mut (impl Parameters + ?Sized),
    part: &str,
    updates: &[Update],
    weight: f64,
) -> Result<usize> {
    let own: std::collections::BTreeMap<&str, &Update> =
        updates.iter().filter(|u| u.part == part).map(|u| (u.path.as_str(), u)).collect();
    let mut result = Ok(());
    let mut count = 0;
    network.each_mut("", &mut |path, own_weight| {
        let Some(update) = path.strip_suffix(".weight").and_then(|p| own.get(p)) else { return };
        let scale = update.scale * weight;
        count += 1;
        if result.is_ok() && scale != 0.0 {
            result = own_weight.add(Added { factors: update.factors.clone(), scale });
        }
    });
    result.map(|()| count)
}
