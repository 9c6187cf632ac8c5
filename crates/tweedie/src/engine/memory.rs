//! What a run will need of memory, from the headers of the files alone: known before anything is
//! loaded.

use serde::Serialize;
use serde_json::Value;

use crate::engine::component::EXPANDED;
use crate::engine::device::memory;
use crate::error::{Error, Result};
use crate::hub::Dtype;
use crate::hub::folder::{Component, Folder};
use crate::spec::{MemoryMode, Spec};

/// What a run needs, in bytes. Weights are what they take as they are held; the rest is an estimate
/// from the sizes of the largest activations, on the high side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Weights of the network and the autoencoder.
    pub weights: u64,
    /// Weights of text encoders, which are released once the prompts are encoded.
    pub text: u64,
    /// Activations of the network for one picture, guidance included.
    pub network: u64,
    /// Activations of the autoencoder; it works on one picture at a time.
    pub autoencoder: u64,
}

/// Numbers of the first level's size that a denoising network holds at its peak: the skip
/// connections and the widened feed-forward of its first transformer block.
const NETWORK_SHARE: u64 = 30;

/// Numbers of its largest activation's size that an autoencoder holds at its peak: a block's input,
/// its normalised form, its result.
const AUTOENCODER_SHARE: u64 = 3;

/// What activations of one call may take when nothing is said of the batch.
const BATCH_ROOM: u64 = 512 << 20;

impl Needs {
    /// Reads the headers of a folder's files and the settings of its networks.
    ///
    /// # Errors
    ///
    /// What opening the files says.
    pub fn of(folder: &Folder, spec: &Spec) -> Result<Self> {
        let mut needs = Self::default();
        let names: Vec<String> = folder.components().map(str::to_owned).collect();
        let (mut vae, mut main) = (None, None);
        for name in &names {
            let place = match name.as_str() {
                "unet" | "transformer" | "vae" => &mut needs.weights,
                other if other.starts_with("text_encoder") => &mut needs.text,
                _ => continue,
            };
            let component = folder.component(name)?;
            *place += held(&component)?;
            match name.as_str() {
                "vae" => vae = Some(component),
                "unet" | "transformer" => main = Some(component),
                _ => {}
            }
        }
        let scale = vae.as_ref().map_or(1, |v| 1 << (channels(v).len().max(1) - 1));
        let Some(main) = main else { return Ok(needs) };
        let own = number(&main, "sample_size").unwrap_or(64) * scale;
        let side = |asked: Option<usize>| asked.map_or(own, |v| v as u64);
        let (mut height, mut width) = (side(spec.height), side(spec.width));
        if let Some(upscale) = spec.task.upscale {
            height = (height as f64 * upscale.factor) as u64;
            width = (width as f64 * upscale.factor) as u64;
        }
        let branches = match (spec.task.image_guidance, spec.guidance) {
            (Some(_), _) => 3,
            (None, Some(1.0)) => 1,
            (None, _) => 2,
        };
        let level = match channels(&main).first() {
            Some(first) => first * (height / scale) * (width / scale),
            None => tokens(&main, height / scale, width / scale),
        };
        let together = if spec.memory == MemoryMode::Small { 1 } else { branches };
        needs.network = 4 * NETWORK_SHARE * together * level;
        if let Some(vae) = &vae {
            let all = channels(vae);
            let wide = all.get(1).or(all.first()).copied().unwrap_or(0);
            needs.autoencoder = match spec.tile([height as usize, width as usize]) {
                None => 4 * AUTOENCODER_SHARE * wide * height * width,
                Some(tile) => {
                    // A block's input and result as a whole at the first level's width, or the
                    // input at half the size at the next one's; and a tile.
                    let tile = (tile as u64 + 16).pow(2).min(height * width);
                    let first = all.first().copied().unwrap_or(0);
                    4 * (2 * first * height * width + AUTOENCODER_SHARE * wide * tile)
                }
            };
        }
        Ok(needs)
    }

    /// All of it at the peak, for this many pictures at once.
    pub fn total(&self, batch: usize) -> u64 {
        self.weights + self.text.max(self.network * batch as u64).max(self.autoencoder)
    }

    /// How many pictures go through the network at once where nothing is said: as many as half a
    /// gibibyte of activations allows, or half of what is free, at most eight; one where memory is to
    /// be saved.
    pub fn batch(&self, mode: MemoryMode) -> usize {
        let room = match mode {
            MemoryMode::Auto => BATCH_ROOM,
            MemoryMode::Small => 0,
            MemoryMode::Fast => memory().map_or(BATCH_ROOM, |memory| memory.available / 2),
        };
        (room / self.network.max(1)).clamp(1, 8) as usize
    }

    /// That the machine has what is needed, as far as it tells.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with both figures.
    pub fn check(&self, batch: usize) -> Result<()> {
        let wanted = self.total(batch);
        match memory() {
            Some(memory) if memory.available < wanted => {
                let why = format!(
                    "the run needs about {} and {} is free",
                    bytes(wanted),
                    bytes(memory.available)
                );
                Err(Error::setting("memory", why))
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "weights {}", bytes(self.weights))?;
        if self.text > 0 {
            write!(f, ", text encoders {} until the prompt is encoded", bytes(self.text))?;
        }
        write!(f, ", activations about {}", bytes(self.network.max(self.autoencoder)))
    }
}

/// Bytes as people read them.
pub fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / size as f64),
        None => format!("{count} B"),
    }
}

/// What a component's weights take as they are held: f32 as they are, 16 bits as they are and, in
/// small networks, once more in f32; narrower ones as f32.
fn held(component: &Component) -> Result<u64> {
    if !component.has_weights() {
        return Ok(0);
    }
    let tensors = component.tensors()?;
    let names: Vec<String> = tensors.names().map(str::to_owned).collect();
    let (mut sum, mut narrow) = (0, 0);
    for name in names {
        let info = tensors.info(&name)?;
        let count = info.elements() as u64;
        sum += match info.dtype {
            Dtype::F16 | Dtype::BF16 => {
                narrow += count * 2;
                count * 2
            }
            _ => count * 4,
        };
    }
    // Beside the narrow numbers of a small network stand wide ones.
    Ok(if narrow <= EXPANDED as u64 { sum + 2 * narrow } else { sum })
}

fn number(component: &Component, key: &str) -> Option<u64> {
    match component.config.get(key)? {
        Value::Array(sides) => sides.iter().filter_map(Value::as_u64).max(),
        value => value.as_u64(),
    }
}

fn channels(component: &Component) -> Vec<u64> {
    let list = component.config.get("block_out_channels").and_then(Value::as_array);
    list.map(|l| l.iter().filter_map(Value::as_u64).collect()).unwrap_or_default()
}

/// The size of a transformer's hidden state.
fn tokens(component: &Component, height: u64, width: u64) -> u64 {
    let of = |key: &str| number(component, key).unwrap_or(1).max(1);
    let patch = of("patch_size");
    of("num_attention_heads") * of("attention_head_dim") * (height / patch) * (width / patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_weights_and_the_larger_of_the_rest() {
        let needs = Needs { weights: 100, text: 50, network: 20, autoencoder: 30 };
        assert_eq!((needs.total(1), needs.total(2), needs.total(4)), (150, 150, 180));
        assert_eq!(Needs { text: 0, ..needs }.total(1), 130);
        assert_eq!(Needs { network: 600 << 20, ..needs }.batch(MemoryMode::Auto), 1);
        assert_eq!(needs.batch(MemoryMode::Auto), 8);
        assert_eq!(needs.batch(MemoryMode::Fast), 8);
        assert_eq!(needs.batch(MemoryMode::Small), 1);
        assert!(needs.check(1).is_ok());
        if memory().is_some() {
            let much = Needs { weights: 1 << 60, ..needs };
            let said = much.check(1).unwrap_err().to_string();
            assert!(said.contains("1073741824.0 GiB"), "{said}");
        }
    }

    #[test]
    fn built_in_models_need_what_their_files_hold() {
        let folder = Folder::resolve("builtin:fashion").unwrap();
        let needs = Needs::of(&folder, &Spec::default()).unwrap();
        let stored = folder.component("unet").unwrap().tensors().unwrap();
        let names: Vec<String> = stored.names().map(str::to_owned).collect();
        let count: usize = names.iter().map(|n| stored.info(n).unwrap().elements()).sum();
        assert_eq!(needs.weights, count as u64 * 6);
        assert!(needs.network > 0 && needs.text == 0 && needs.autoencoder == 0);
        let larger = Spec { width: Some(64), ..Spec::default() };
        assert_eq!(Needs::of(&folder, &larger).unwrap().network, 2 * needs.network);
        let small = Spec { memory: MemoryMode::Small, ..Spec::default() };
        assert_eq!(2 * Needs::of(&folder, &small).unwrap().network, needs.network);
    }
}
