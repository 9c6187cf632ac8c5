//! The original layouts: how the programs that models came from name their weights, against diffusers.
//!
//! A single file of the Stable Diffusion family holds all networks under prefixes, with other names
//! and partly in other shapes. Each network has a file here that reads its structure off the keys and
//! shapes and says which module is called what; a table of names does the rest, in both directions.
//!
//! What cannot be read off shapes is decided by rules, and each rule stands where it is applied: the
//! number of attention heads (`unet`), the activation of a text encoder (`text`), the factor of an
//! autoencoder's latents (`family`), what the network predicts (`family`).

mod family;
mod probe;
mod text;
mod unet;
mod vae;

use std::collections::BTreeMap;

pub(crate) use family::{Assumed, Family, scheduler};
pub(crate) use probe::{Found, Kind, find};
pub(crate) use text::{TextEncoder, to_open_clip};
pub(crate) use unet::UNet;
pub(crate) use vae::Vae;

use super::tensor_set::TensorSet;

/// Names of modules in one layout, and what they are called in another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// The module `original` is called `usual`.
    pub(crate) fn add(&mut self, original: impl Into<String>, usual: impl Into<String>) {
        self.0.insert(original.into(), usual.into());
    }

    /// The modules of a table inside of a module.
    pub(crate) fn table(&mut self, original: &str, usual: &str, table: &[(&str, &str)]) {
        for (from, to) in table {
            self.add(join(original, from), join(usual, to));
        }
    }

    /// The name of a tensor in the other layout: that of the longest module that it is in.
    pub(crate) fn translate(&self, name: &str) -> Option<String> {
        let mut end = name.len();
        loop {
            if let Some(to) = self.0.get(&name[..end]) {
                return Some(format!("{to}{}", &name[end..]));
            }
            end = name[..end].rfind('.')?;
        }
    }

    /// The same table read from right to left.
    pub(crate) fn reversed(&self) -> Self {
        Self(self.0.iter().map(|(a, b)| (b.clone(), a.clone())).collect())
    }
}

fn join(a: &str, b: &str) -> String {
    crate::weight::join(a, b)
}

/// How many modules `PREFIX0`, `PREFIX1` ... a set has, one after the other.
fn count(set: &TensorSet, prefix: &str) -> usize {
    let has = |i: usize| {
        let start = format!("{prefix}{i}.");
        set.names_from(&start).next().is_some_and(|n| n.starts_with(&start))
    };
    (0..1000).take_while(|i| has(*i)).count()
}

/// Dimension `d` of a tensor.
fn dim(set: &TensorSet, name: &str, d: usize) -> Option<usize> {
    set.shape_of(name)?.get(d).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_module_decides() {
        let mut names = Names::default();
        names.add("input_blocks.1.0", "down.0");
        names.add("input_blocks.1.0.in_layers.0", "down.0.norm1");
        let to = |n: &str| names.translate(n);
        assert_eq!(to("input_blocks.1.0.in_layers.0.weight").unwrap(), "down.0.norm1.weight");
        assert_eq!(to("input_blocks.1.0.op.weight").unwrap(), "down.0.op.weight");
        assert_eq!(to("input_blocks.10.0.op.weight"), None);
        assert_eq!(
            names.reversed().translate("down.0.norm1.bias").unwrap(),
            "input_blocks.1.0.in_layers.0.bias"
        );
    }
}
