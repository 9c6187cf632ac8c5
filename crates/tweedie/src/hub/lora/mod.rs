//! LoRA files of every naming that people have, as low-rank updates of a model's weights.
//!
//! A file holds for each module a way down and a way up, in kohya's convolutions also a middle, and
//! perhaps an alpha. [`keys`] says what a tensor's name means, [`names`] which module of a model is
//! meant, by tables that are made from the model's own paths, [`alpha`] what the update is
//! multiplied by. Nothing goes by a model's name.

mod alpha;
mod keys;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use names::{Modules, Target};

use self::alpha::Alphas;
use self::keys::{Key, Role};
use super::json::{self, one_line};
use super::tensor_set::TensorSet;
use crate::weight::{Initial, LowRank, Source, Weight};
use crate::{Error, Result};

/// The weights of an adapter in PEFT's folder, and its settings.
const PEFT: [&str; 2] = ["adapter_model.safetensors", "adapter_config.json"];
/// The weights in a folder that diffusers writes.
const DIFFUSERS: &str = "pytorch_lora_weights.safetensors";
/// The header's entry for settings, where diffusers writes them.
const METADATA: &str = "lora_adapter_metadata";

/// One module of a LoRA, by the names in its file.
#[derive(Clone, Debug, Default)]
struct Pair {
    down: Option<String>,
    mid: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

/// A LoRA: an opened file whose tensors are read when it is put on a model.
#[derive(Clone, Debug)]
pub struct Lora {
    name: String,
    hash: String,
    file: PathBuf,
    tensors: TensorSet,
    alphas: Alphas,
    modules: BTreeMap<Key, Pair>,
    strangers: Vec<String>,
}

/// An update of one weight of a model.
#[derive(Clone, Debug)]
pub struct Update {
    /// Which part of the model: `unet`, `text_encoder`, `text_encoder_2`.
    pub part: String,
    /// The path of the module in it; its weight is `path.weight`.
    pub path: String,
    /// The factors.
    pub factors: Arc<LowRank>,
    /// Alpha over rank.
    pub scale: f64,
}

/// A LoRA as updates of a model's weights, and what found no place.
#[derive(Clone, Debug, Default)]
pub struct Fitted {
    /// The updates, in order of the file's names.
    pub updates: Vec<Update>,
    /// How many modules the file has.
    pub modules: usize,
    /// How many of them found their weights.
    pub matched: usize,
    /// Modules of the file that the model does not have, and tensors that are no part of a module.
    pub unmatched: Vec<String>,
    /// Modules that stand in the file under two names; the update is taken once.
    pub twice: Vec<String>,
}

impl Lora {
    /// Opens a file, or a folder as PEFT or diffusers write it. Its name is that of the file
    /// without the ending, or that of the folder.
    ///
    /// # Errors
    ///
    /// The file is missing or wrong, holds no low-rank update, or asks for what is not supported
    /// (DoRA, ranks or alphas by patterns that are more than names).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut settings = None;
        let file = if path.is_dir() {
            let file = [PEFT[0], DIFFUSERS].map(|f| path.join(f)).into_iter().find(|f| f.exists());
            file.ok_or_else(|| {
                let why = format!("wanted {} or {DIFFUSERS} in the folder", PEFT[0]);
                Error::format(path, "", why)
            })?
        } else {
            path.to_owned()
        };
        let named = if path.is_dir() { path.file_name() } else { file.file_stem() };
        let name = named.unwrap_or_default().to_string_lossy().into_owned();
        let beside = file.with_file_name(PEFT[1]);
        if file.file_name().is_some_and(|f| f == PEFT[0]) && beside.exists() {
            let text = std::fs::read(&beside).map_err(Error::io(&beside))?;
            settings = Some((beside.clone(), json::object(&beside, &text)?));
        }
        Self::from_tensors(TensorSet::open(&file)?, &name, settings)
    }

    /// A LoRA from tensors; `settings` are those of PEFT's `adapter_config.json` with its path.
    ///
    /// # Errors
    ///
    /// As for [`Lora::open`].
    pub fn from_tensors(
        tensors: TensorSet,
        name: &str,
        settings: Option<(PathBuf, Map<String, Value>)>,
    ) -> Result<Self> {
        let file = tensors.name().to_owned();
        let mut modules: BTreeMap<Key, Pair> = BTreeMap::new();
        let mut strangers = Vec::new();
        let mut lone_alphas = Vec::new();
        for tensor in tensors.names() {
            let Some((key, role)) = keys::read(tensor) else {
                strangers.push(tensor.to_owned());
                continue;
            };
            let pair = modules.entry(key.clone()).or_default();
            let place = match role {
                Role::Down => &mut pair.down,
                Role::Mid => &mut pair.mid,
                Role::Up => &mut pair.up,
                Role::Alpha => {
                    lone_alphas.push(key);
                    &mut pair.alpha
                }
            };
            if let Some(other) = place.replace(tensor.to_owned()) {
                let why = format!("`{}` stands for the same", one_line(&other));
                return Err(Error::format(file, one_line(tensor), why));
            }
        }
        // An alpha of a module of another kind (LoHa, LoKr …) goes with that kind's tensors.
        for key in lone_alphas {
            if let Some(pair) = modules.get(&key)
                && pair.down.is_none()
                && pair.up.is_none()
            {
                strangers.extend(modules.remove(&key).and_then(|p| p.alpha));
            }
        }
        // Without its magnitudes such a file is another adapter, whatever is allowed to be left out.
        let dora = |name: &&String| {
            name.ends_with(".dora_scale") || name.contains("lora_magnitude_vector")
        };
        if let Some(name) = strangers.iter().find(dora) {
            let why = "the directions of DoRA are not supported, wanted a LoRA";
            return Err(Error::format(file, one_line(name), why));
        }
        for pair in modules.values() {
            if pair.down.is_none() || pair.up.is_none() {
                let have = [&pair.down, &pair.up, &pair.mid].into_iter().flatten().next();
                let missing = if pair.down.is_none() { "down" } else { "up" };
                let why = format!("the way {missing} of the module is missing");
                return Err(Error::format(file, have.map_or("", |k| k), why));
            }
        }
        if modules.is_empty() {
            let some = strangers.first().map(|s| format!(", found `{}`", one_line(s)));
            let why = format!("wanted the tensors of a LoRA{}", some.unwrap_or_default());
            return Err(Error::format(file, "", why));
        }
        let header = tensors.files().iter().find_map(|f| f.metadata().get(METADATA));
        let alphas = Alphas::read(&file, header.map(String::as_str), settings)?;
        let hash = hash(&tensors)?;
        Ok(Self { name: name.to_owned(), hash, file, tensors, alphas, modules, strangers })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SHA-256 of its tensors' names and bytes, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads it as updates of a model's weights.
    ///
    /// # Errors
    ///
    /// A module fits by name and not in its shape: the error names the file, the tensor, what was
    /// found and what was wanted. What reading says.
    pub fn fit(&self, model: &Modules, device: &Device) -> Result<Fitted> {
        let mut fitted = Fitted {
            modules: self.modules.len(),
            unmatched: self.strangers.clone(),
            ..Fitted::default()
        };
        let mut taken: BTreeSet<(String, String)> = BTreeSet::new();
        // Keys of the usual naming come before those of the original blocks, see `Key`'s order.
        for (key, pair) in &self.modules {
            let targets = model.find(key, |target| self.fits(pair, target));
            if targets.is_empty() {
                fitted.unmatched.push(key.shown.clone());
                continue;
            }
            let place = |t: &Target| (t.part.clone(), t.path.clone());
            if targets.iter().any(|t| taken.contains(&place(t))) {
                fitted.twice.push(key.shown.clone());
                fitted.matched += 1;
                continue;
            }
            fitted.matched += 1;
            for target in targets {
                taken.insert(place(&target));
                fitted.updates.push(self.update(pair, &target, device)?);
            }
        }
        Ok(fitted)
    }

    /// Whether the widths of a module fit a weight; for names that more than one part has.
    fn fits(&self, pair: &Pair, target: &Target) -> bool {
        let shape = |name: &Option<String>| name.as_ref().and_then(|n| self.tensors.shape(n));
        let width = shape(&pair.down).and_then(|s| s.get(1).copied());
        let height = shape(&pair.up).and_then(|s| s.first().copied());
        let rows = target.rows.as_ref().map_or(target.shape[0], |r| r.of);
        width == Some(target.shape[1]) && height == Some(rows)
    }

    fn update(&self, pair: &Pair, target: &Target, device: &Device) -> Result<Update> {
        let none = || Error::format(&self.file, "", "a module is not whole");
        let (down_name, up_name) =
            (pair.down.as_ref().ok_or_else(none)?, pair.up.as_ref().ok_or_else(none)?);
        let kernel = &target.shape[2..];
        let down = self.factor(down_name, if pair.mid.is_some() { &[] } else { kernel }, device)?;
        let up = self.factor(up_name, &[], device)?;
        let mid = match &pair.mid {
            Some(name) => Some(self.factor(name, kernel, device)?),
            None => None,
        };
        let rank = down.shape()[0];
        let alpha = match &pair.alpha {
            Some(name) => Some(self.scalar(name)?),
            None => None,
        };
        let scale = self.alphas.scale(alpha, rank, &target.part, &target.path)?;
        if !scale.is_finite() {
            let key = pair.alpha.as_ref().unwrap_or(down_name);
            return Err(Error::format(&self.file, one_line(key), "an alpha that is not finite"));
        }
        let up = match &target.rows {
            Some(rows) => {
                if up.shape()[0] != rows.of {
                    let why = format!(
                        "wanted {} rows of {}, found {:?}",
                        rows.of,
                        target.path,
                        up.shape()
                    );
                    return Err(Error::format(&self.file, one_line(up_name), why));
                }
                let rank = up.shape()[1];
                let mut part = Weight::new([rows.to - rows.from, rank], Initial::Zeros, device);
                part.set_vec(up.to_vec()[rows.from * rank..rows.to * rank].to_vec())?;
                part
            }
            None => up,
        };
        let shapes = format!("{:?} and {:?}", down.shape(), up.shape());
        let factors = LowRank::new(down, mid, up, &target.shape).map_err(|_| {
            let why =
                format!("wanted factors of {} ({:?}), found {shapes}", target.path, target.shape);
            Error::format(&self.file, one_line(down_name), why)
        })?;
        Ok(Update {
            part: target.part.clone(),
            path: target.path.clone(),
            factors: Arc::new(factors),
            scale,
        })
    }

    /// A factor as a matrix with a kernel behind it: sizes of 1 come and go between files.
    fn factor(&self, name: &str, kernel: &[usize], device: &Device) -> Result<Weight> {
        let found = self.tensors.info(name)?.shape;
        let wrong = || {
            let why = format!("wanted a matrix with a kernel of {kernel:?}, found {found:?}");
            Error::format(&self.file, one_line(name), why)
        };
        let [rows, columns, rest @ ..] = found.as_slice() else { return Err(wrong()) };
        let pixels = |kernel: &[usize]| kernel.iter().all(|&k| k == 1);
        if rest != kernel && !(pixels(rest) && pixels(kernel)) || *rows == 0 || *columns == 0 {
            return Err(wrong());
        }
        let shape = [&[*rows, *columns], kernel].concat();
        let mut weight = Weight::new(shape, Initial::Zeros, device);
        weight.set_vec(self.tensors.read_f32(name)?)?;
        Ok(weight)
    }

    fn scalar(&self, name: &str) -> Result<f64> {
        match self.tensors.read_f32(name)?.as_slice() {
            [one] => Ok(f64::from(*one)),
            several => {
                let why = format!("wanted one number, found {}", several.len());
                Err(Error::format(&self.file, one_line(name), why))
            }
        }
    }
}

fn hash(tensors: &TensorSet) -> Result<String> {
    let mut sum = Sha256::new();
    for name in tensors.names() {
        sum.update(name.as_bytes());
        sum.update(&*tensors.raw(name)?);
    }
    Ok(sum.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hub::{Dtype, Output, TensorFile, encode_safetensors};

    struct Net {
        first: Weight,
        kernel: Weight,
    }
    crate::parameters!(Net { "down_blocks.0.attentions.0.proj_in.weight" => first, "conv_in.weight" => kernel });

    fn model() -> Modules {
        let weight = |shape: &[usize]| Weight::new(shape, Initial::Zeros, &Device::flex());
        let net = Net { first: weight(&[3, 5]), kernel: weight(&[4, 2, 3, 3]) };
        let mut modules = Modules::default();
        modules.add("unet", &net);
        modules
    }

    fn lora(tensors: &[(&str, &[usize])]) -> Result<Lora> {
        let values: Vec<Vec<f32>> = tensors
            .iter()
            .map(|(_, s)| (0..s.iter().product()).map(|i| i as f32 + 1.0).collect())
            .collect();
        let outputs: Vec<Output<'_>> = tensors
            .iter()
            .zip(&values)
            .map(|((n, s), v)| Output::f32(n, s, v, Dtype::F32))
            .collect();
        let bytes = encode_safetensors(&outputs, &BTreeMap::new())?;
        Lora::from_tensors(TensorFile::from_bytes(bytes, "l.safetensors")?.into(), "l", None)
    }

    fn fit(tensors: &[(&str, &[usize])]) -> Result<Fitted> {
        lora(tensors)?.fit(&model(), &Device::flex())
    }

    const PROJ: &str = "lora_unet_down_blocks_0_attentions_0_proj_in";

    #[test]
    fn a_module_finds_its_weight() {
        let down = format!("{PROJ}.lora_down.weight");
        let up = format!("{PROJ}.lora_up.weight");
        let alpha = format!("{PROJ}.alpha");
        // A matrix may be written as a convolution of one pixel.
        let fitted = fit(&[(&down, &[2, 5, 1, 1]), (&up, &[3, 2, 1, 1]), (&alpha, &[])]).unwrap();
        let [update] = fitted.updates.as_slice() else { panic!("{fitted:?}") };
        assert_eq!((update.part.as_str(), update.scale), ("unet", 0.5));
        assert_eq!(update.path, "down_blocks.0.attentions.0.proj_in");
        assert_eq!((fitted.modules, fitted.unmatched.len()), (1, 0));
        let without = fit(&[(&down, &[2, 5]), (&up, &[3, 2])]).unwrap();
        assert_eq!(without.updates[0].scale, 1.0);
        let kernel = fit(&[
            ("unet.conv_in.lora_A.weight", &[2, 2, 3, 3]),
            ("unet.conv_in.lora_B.weight", &[4, 2, 1, 1]),
        ]);
        assert_eq!(kernel.unwrap().updates.len(), 1);
        let tucker = fit(&[
            ("lora_unet_conv_in.lora_down.weight", &[2, 2, 1, 1]),
            ("lora_unet_conv_in.lora_mid.weight", &[2, 2, 3, 3]),
            ("lora_unet_conv_in.lora_up.weight", &[4, 2, 1, 1]),
        ]);
        assert!(tucker.unwrap().updates[0].factors.factors().1.is_some());
    }

    #[test]
    fn what_does_not_fit_is_said_with_file_and_key() {
        let down = format!("{PROJ}.lora_down.weight");
        let up = format!("{PROJ}.lora_up.weight");
        let says = |made: Result<Fitted>, parts: &[&str]| {
            let error = made.unwrap_err().to_string();
            assert!(!error.contains('\n') && error.starts_with("l.safetensors: "), "{error}");
            assert!(parts.iter().all(|p| error.contains(p)), "{error}");
        };
        // Up and down exchanged, another width, another rank.
        says(fit(&[(&down, &[3, 2]), (&up, &[2, 5])]), &["proj_in", "[3, 5]", "[3, 2]"]);
        says(fit(&[(&down, &[2, 6]), (&up, &[3, 2])]), &["[2, 6]"]);
        says(fit(&[(&down, &[2, 5]), (&up, &[3, 4])]), &["[3, 4]"]);
        says(fit(&[(&down, &[2, 5, 3, 3]), (&up, &[3, 2])]), &["[2, 5, 3, 3]"]);
        says(fit(&[(&down, &[10]), (&up, &[3, 2])]), &["[10]"]);
        says(fit(&[(&down, &[2, 5])]), &["way up"]);
        says(fit(&[("conv_in.weight", &[2])]), &["wanted the tensors of a LoRA", "conv_in.weight"]);
        let alpha = format!("{PROJ}.alpha");
        says(fit(&[(&down, &[2, 5]), (&up, &[3, 2]), (&alpha, &[2])]), &[&alpha, "one number"]);
        let dora = format!("{PROJ}.dora_scale");
        says(fit(&[(&down, &[2, 5]), (&up, &[3, 2]), (&dora, &[3, 1])]), &[&dora, "DoRA"]);
        let twice = "base_model.model.conv_in.lora_A.default.weight";
        says(fit(&[(twice, &[2]), ("base_model.model.conv_in.lora_A.weight", &[2])]), &["same"]);
    }

    #[test]
    fn what_finds_no_place_is_listed() {
        let down = format!("{PROJ}.lora_down.weight");
        let up = format!("{PROJ}.lora_up.weight");
        let fitted = fit(&[
            (&down, &[2, 5]),
            (&up, &[3, 2]),
            ("lora_unet_conv_out.lora_down.weight", &[2, 2]),
            ("lora_unet_conv_out.lora_up.weight", &[2, 2]),
            ("lora_unet_conv_in.hada_w1_a", &[2, 2]),
            ("lora_unet_conv_in.alpha", &[]),
        ]);
        let fitted = fitted.unwrap();
        assert_eq!((fitted.updates.len(), fitted.modules, fitted.matched), (1, 2, 1));
        let unmatched =
            ["lora_unet_conv_in.hada_w1_a", "lora_unet_conv_in.alpha", "lora_unet_conv_out"];
        assert_eq!(fitted.unmatched, unmatched);
        // One module under both of its names is taken once, by the usual one.
        let both = fit(&[
            ("lora_unet_input_blocks_0_0.lora_down.weight", &[1, 2, 3, 3]),
            ("lora_unet_input_blocks_0_0.lora_up.weight", &[4, 1]),
            ("lora_unet_conv_in.lora_down.weight", &[2, 2, 3, 3]),
            ("lora_unet_conv_in.lora_up.weight", &[4, 2]),
        ]);
        let both = both.unwrap();
        assert_eq!((both.modules, both.matched), (2, 2));
        assert_eq!(both.twice, ["lora_unet_input_blocks_0_0"]);
        assert_eq!(both.updates[0].factors.factors().2.shape(), [4, 2]);
    }

    #[test]
    fn a_hash_is_of_names_and_numbers() {
        let pair = |rank| {
            let (down, up) = (format!("{PROJ}.lora_down.weight"), format!("{PROJ}.lora_up.weight"));
            lora(&[(&down, &[rank, 5]), (&up, &[3, rank])]).unwrap().hash().to_owned()
        };
        assert_eq!(pair(2), pair(2));
        assert_ne!(pair(2), pair(1));
        assert_eq!(pair(2).len(), 64);
    }
}
