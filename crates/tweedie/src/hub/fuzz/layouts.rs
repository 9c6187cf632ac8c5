//! Single files whose keys and shapes are broken.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Bound, Dice, Memory, Tally, answer, mutate_json};
use crate::Result;
use crate::hub::single::{self, Told};
use crate::hub::{Dtype, Output, TensorFile, TensorSet, encode_safetensors};

/// The smallest U-Net, autoencoder and text encoder that are told as a model.
const KEYS: &[(&str, &[usize])] = &[
    ("model.diffusion_model.input_blocks.0.0.weight", &[4, 4, 1, 1]),
    ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", &[4, 4, 1, 1]),
    ("model.diffusion_model.input_blocks.1.1.proj_in.weight", &[4, 4, 1, 1]),
    ("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", &[4, 6]),
    ("model.diffusion_model.input_blocks.2.0.op.weight", &[4, 4, 1, 1]),
    ("model.diffusion_model.input_blocks.3.0.in_layers.2.weight", &[8, 4, 1, 1]),
    ("model.diffusion_model.middle_block.1.transformer_blocks.0.norm1.bias", &[8]),
    ("model.diffusion_model.output_blocks.0.0.in_layers.0.weight", &[16]),
    ("model.diffusion_model.out.2.weight", &[4, 4, 1, 1]),
    ("model.diffusion_model.label_emb.0.0.weight", &[4, 9]),
    ("first_stage_model.encoder.conv_in.weight", &[4, 3, 1, 1]),
    ("first_stage_model.encoder.down.0.block.0.conv1.weight", &[4, 4, 1, 1]),
    ("first_stage_model.decoder.conv_in.weight", &[4, 4, 1, 1]),
    ("first_stage_model.decoder.conv_out.weight", &[3, 4, 1, 1]),
    ("first_stage_model.decoder.mid.block_1.norm1.weight", &[4]),
    ("first_stage_model.decoder.mid.attn_1.q.weight", &[4, 4, 1, 1]),
    ("cond_stage_model.model.ln_final.weight", &[6]),
    ("cond_stage_model.model.positional_embedding", &[5, 6]),
    ("cond_stage_model.model.token_embedding.weight", &[7, 6]),
    ("cond_stage_model.model.text_projection", &[6, 6]),
    ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", &[18, 6]),
    ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias", &[18]),
    ("cond_stage_model.model.transformer.resblocks.0.mlp.c_fc.weight", &[12, 6]),
    ("cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight", &[18, 6]),
    ("cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias", &[18]),
    ("cond_stage_model.model.transformer.resblocks.1.mlp.c_fc.weight", &[12, 6]),
];

/// Takes `mutations` broken files apart; the finding is the number of the first one that was not
/// answered properly, and how.
///
/// # Errors
/// The finding, in words.
pub fn layouts(mutations: usize, seed: u64, memory: Option<&Memory>) -> Result<Tally, String> {
    let whole = encoded(KEYS.iter().map(|(k, s)| ((*k).to_owned(), s.to_vec())).collect());
    let whole = whole.map_err(|e| e.to_string())?;
    let bound = Bound::beside(memory, || read(whole.clone()));
    let mut tally = Tally::default();
    for number in 0..mutations {
        let mut dice = Dice::new(seed, number as u64);
        let bytes = broken(&mut dice).map_err(|e| e.to_string())?;
        answer(number, &mut tally, bytes.len(), bound, || read(bytes))?;
    }
    Ok(tally)
}

/// A file in which some tensors are missing, called otherwise or of another shape. The header itself is
/// right, so that what reads the keys gets to see it.
fn broken(dice: &mut Dice) -> Result<Vec<u8>> {
    let mut tensors: Vec<(String, Vec<usize>)> =
        KEYS.iter().map(|(k, s)| ((*k).to_owned(), s.to_vec())).collect();
    for _ in 0..dice.below(5) {
        let at = dice.below(tensors.len());
        match dice.below(6) {
            0 => drop(tensors.remove(at)),
            1 => {
                let (key, _) = &mut tensors[at];
                let number = ["0", "1", "2", "9", "77", "1000000"][dice.below(6)];
                *key = key.replacen(["0", "1"][dice.below(2)], number, 1);
            }
            2 => {
                let mut text = tensors[at].0.clone().into_bytes();
                mutate_json(&mut text, dice);
                tensors[at].0 = String::from_utf8_lossy(&text).chars().take(200).collect();
            }
            3 => tensors[at].1.truncate(dice.below(4)),
            4 => {
                let shape = &mut tensors[at].1;
                let place = dice.below(shape.len());
                if let Some(n) = shape.get_mut(place) {
                    *n = [0, 1, 2, 5, 9, 64][dice.below(6)];
                }
            }
            _ => {
                let copy = tensors[at].clone();
                tensors.push((format!("{}.x", copy.0), copy.1));
            }
        }
    }
    let by_name: BTreeMap<String, Vec<usize>> =
        tensors.into_iter().filter(|t| !t.0.is_empty()).collect();
    encoded(by_name)
}

fn encoded(by_name: BTreeMap<String, Vec<usize>>) -> Result<Vec<u8>> {
    let zeros = vec![0.0_f32; 1 << 16];
    let outputs: Vec<Output<'_>> = by_name
        .iter()
        .map(|(key, shape)| {
            let count = shape.iter().product::<usize>().min(zeros.len());
            let shape: &[usize] =
                if count == shape.iter().product::<usize>() { shape } else { &[0] };
            let count = shape.iter().product::<usize>();
            Output::f32(key, shape, &zeros[..count], Dtype::F16)
        })
        .collect();
    encode_safetensors(&outputs, &BTreeMap::new())
}

fn read(bytes: Vec<u8>) -> Result<()> {
    let set = TensorSet::from(TensorFile::from_bytes(bytes, "mutation.safetensors")?);
    let single = single::read(Path::new("mutation.safetensors"), &set, &Told::default())?;
    for component in single.components.iter().filter(|c| c.has_weights()) {
        let tensors = component.tensors()?;
        for name in tensors.names() {
            tensors.read_f32(name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_layouts_are_answered() {
        let tally = layouts(400, 1, None).unwrap();
        assert!(tally.refused > 50 && tally.read > 50, "{tally:?}");
    }
}
