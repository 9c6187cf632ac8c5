//! Which module of a model a LoRA's name means: tables made from the paths of the model's own
//! weights.
//!
//! Names are compared with `_` for every dot, as kohya writes them. A module goes by its path in
//! diffusers and transformers, and by the names that the original code has for it: the numbered
//! blocks of a U-Net, OpenCLIP's layers with query, key and value in one matrix.

use std::collections::BTreeMap;

use super::keys::Key;
use crate::weight::Parameters;

/// A weight that an update is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The part of the model.
    pub part: String,
    /// The path of the module.
    pub path: String,
    /// The shape of its weight.
    pub shape: Vec<usize>,
    /// Which rows of the way up are its own, where a file has several modules in one.
    pub rows: Option<Rows>,
}

/// Rows `from..to` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The first.
    pub from: usize,
    /// The one behind the last.
    pub to: usize,
    /// How many there are in all.
    pub of: usize,
}

/// The modules of a model that a LoRA can act on, by all their names.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// By part, in the order in which parts were added, and name.
    tables: Vec<(String, BTreeMap<String, Vec<Target>>)>,
}

impl Modules {
    /// Adds a part of the model: `unet`, `text_encoder` or `text_encoder_2`.
    pub fn add(&mut self, part: &str, network: &(impl Parameters + ?Sized)) {
        let mut modules: Vec<Target> = Vec::new();
        network.each("", &mut |path, weight| {
            if let Some(path) = path.strip_suffix(".weight")
                && [2, 4].contains(&weight.shape().len())
            {
                modules.push(Target {
                    part: part.to_owned(),
                    path: path.to_owned(),
                    shape: weight.shape().to_vec(),
                    rows: None,
                });
            }
        });
        let layout = Layout::of(&modules);
        let mut table: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        // A module's own path comes before every other name that would be the same.
        for target in &modules {
            table.insert(flat(&target.path), vec![target.clone()]);
        }
        let mut fused: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        for target in &modules {
            for name in other_names(&target.path, &layout) {
                table.entry(flat(&name)).or_insert_with(|| vec![target.clone()]);
            }
            if let Some((name, which)) = fused_name(&target.path) {
                let rows = target.shape[0];
                let rows = Rows { from: which * rows, to: (which + 1) * rows, of: 3 * rows };
                let target = Target { rows: Some(rows), ..target.clone() };
                fused.entry(flat(&name)).or_default().push(target);
            }
        }
        for (name, targets) in fused.into_iter().filter(|(_, t)| t.len() == 3) {
            table.entry(name).or_insert(targets);
        }
        self.tables.push((part.to_owned(), table));
    }

    /// How many modules there are.
    pub fn count(&self) -> usize {
        let of = |table: &BTreeMap<String, Vec<Target>>| {
            table.iter().filter(|(name, t)| t.len() == 1 && flat(&t[0].path) == **name).count()
        };
        self.tables.iter().map(|(_, table)| of(table)).sum()
    }

    /// The weights that a name means, none where the model has no such module. Where the file does
    /// not say which part is meant and several have the name, the first that `fits` is taken.
    pub(super) fn find(&self, key: &Key, fits: impl Fn(&Target) -> bool) -> Vec<Target> {
        let tables = self.tables.iter().filter(|(p, _)| key.part.is_none_or(|part| part == p));
        let found: Vec<&Vec<Target>> =
            tables.filter_map(|(_, table)| table.get(&key.module)).collect();
        let fitting = found.iter().find(|t| t.iter().all(&fits));
        fitting.or(found.first()).map(|t| (*t).clone()).unwrap_or_default()
    }
}

fn flat(path: &str) -> String {
    path.replace('.', "_")
}

/// What stands in each block of a U-Net, read off its paths.
#[derive(Clone, Debug, Default)]
struct Layout {
    /// Residual blocks of each block down, and whether a downsampler follows.
    down: Vec<(usize, bool)>,
    /// Residual blocks of each block up, and whether they have attentions.
    up: Vec<(usize, bool)>,
}

impl Layout {
    fn of(modules: &[Target]) -> Self {
        let mut layout = Self::default();
        for target in modules {
            let parts: Vec<&str> = target.path.split('.').collect();
            let [side @ ("down_blocks" | "up_blocks"), block, kind, index, ..] = parts.as_slice()
            else {
                continue;
            };
            let (Ok(block), Ok(index)) = (block.parse::<usize>(), index.parse::<usize>()) else {
                continue;
            };
            let blocks = if *side == "down_blocks" { &mut layout.down } else { &mut layout.up };
            if block >= blocks.len() {
                blocks.resize(block + 1, (0, false));
            }
            match (*kind, *side) {
                ("resnets", _) => blocks[block].0 = blocks[block].0.max(index + 1),
                ("downsamplers", "down_blocks") | ("attentions", "up_blocks") => {
                    blocks[block].1 = true;
                }
                _ => {}
            }
        }
        layout
    }

    /// The number of the original's block in which block `block` on the way down begins.
    fn down_start(&self, block: usize) -> usize {
        let before = self.down.iter().take(block);
        1 + before.map(|(resnets, down)| resnets + usize::from(*down)).sum::<usize>()
    }

    fn up_start(&self, block: usize) -> usize {
        self.up.iter().take(block).map(|(resnets, _)| *resnets).sum()
    }

    /// The path in the numbered blocks of Rombach et al.'s code.
    fn original(&self, path: &str) -> Option<String> {
        const HEADS: [(&str, &str); 6] = [
            ("conv_in", "input_blocks.0.0"),
            ("conv_out", "out.2"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
        ];
        if let Some((_, name)) = HEADS.iter().find(|(own, _)| *own == path) {
            return Some((*name).to_owned());
        }
        let parts: Vec<&str> = path.split('.').collect();
        let number = |text: &str| text.parse::<usize>().ok();
        let (place, rest) = match parts.as_slice() {
            ["down_blocks", block, kind, index, rest @ ..] => {
                let (block, index) = (number(block)?, number(index)?);
                let start = self.down_start(block);
                match *kind {
                    "resnets" => (format!("input_blocks.{}.0", start + index), rest),
                    "attentions" => (format!("input_blocks.{}.1", start + index), rest),
                    "downsamplers" => {
                        let last = start + self.down.get(block)?.0;
                        return (rest == ["conv"]).then(|| format!("input_blocks.{last}.0.op"));
                    }
                    _ => return None,
                }
            }
            ["mid_block", kind, index, rest @ ..] => match (*kind, number(index)?) {
                ("resnets", 0) => ("middle_block.0".to_owned(), rest),
                ("attentions", 0) => ("middle_block.1".to_owned(), rest),
                ("resnets", 1) => ("middle_block.2".to_owned(), rest),
                _ => return None,
            },
            ["up_blocks", block, kind, index, rest @ ..] => {
                let (block, index) = (number(block)?, number(index)?);
                let start = self.up_start(block);
                let (resnets, attentions) = *self.up.get(block)?;
                match *kind {
                    "resnets" => (format!("output_blocks.{}.0", start + index), rest),
                    "attentions" => (format!("output_blocks.{}.1", start + index), rest),
                    "upsamplers" => {
                        let last = start + resnets - 1;
                        let at = 1 + usize::from(attentions);
                        let name = format!("output_blocks.{last}.{at}.conv");
                        return (rest == ["conv"]).then_some(name);
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        let rest = rest.join(".");
        let inner = match rest.as_str() {
            "conv1" => "in_layers.2",
            "time_emb_proj" => "emb_layers.1",
            "conv2" => "out_layers.3",
            "conv_shortcut" => "skip_connection",
            other => other,
        };
        Some(format!("{place}.{inner}"))
    }
}

/// The other names of a module.
fn other_names(path: &str, layout: &Layout) -> Vec<String> {
    let mut names = vec![path.to_owned()];
    names.extend(layout.original(path));
    if let Some(layer) = path.strip_prefix("text_model.") {
        names.push(layer.to_owned());
        names.extend(open_clip(layer));
        for (own, old) in
            [("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("out_proj", "to_out")]
        {
            if let Some(stem) = layer.strip_suffix(own) {
                names.push(format!("{stem}{old}"));
                names.push(format!("text_model.{stem}{old}"));
            }
        }
    }
    // Before PEFT, attention layers were named without the number of the list that they are in.
    let plain: Vec<String> = names
        .iter()
        .filter_map(|n| n.strip_suffix(".to_out.0"))
        .map(|n| format!("{n}.to_out"))
        .collect();
    names.extend(plain);
    names
}

/// OpenCLIP's names of a layer of a text encoder.
fn open_clip(layer: &str) -> Vec<String> {
    let Some((number, rest)) =
        layer.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.'))
    else {
        return Vec::new();
    };
    let own = match rest {
        "self_attn.out_proj" => "attn.out_proj",
        "mlp.fc1" => "mlp.c_fc",
        "mlp.fc2" => "mlp.c_proj",
        _ => return Vec::new(),
    };
    ["transformer.resblocks", "resblocks"].map(|p| format!("{p}.{number}.{own}")).to_vec()
}

/// OpenCLIP's name of the matrix that holds query, key and value on top of each other, and which of
/// them this module is.
fn fused_name(path: &str) -> Option<(String, usize)> {
    let layer = path.strip_prefix("text_model.encoder.layers.")?;
    let (number, rest) = layer.split_once('.')?;
    let which = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    let which = which.iter().position(|w| *w == rest)?;
    Some((format!("transformer.resblocks.{number}.attn.in_proj"), which))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::weight::{Initial, Weight};

    /// A network that is nothing but paths.
    struct Paths(Vec<(String, Weight)>);

    impl Parameters for Paths {
        fn each(&self, _: &str, visit: &mut dyn FnMut(&str, &Weight)) {
            self.0.iter().for_each(|(path, weight)| visit(path, weight));
        }

        fn each_mut(&mut self, _: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
            self.0.iter_mut().for_each(|(path, weight)| visit(path, weight));
        }
    }

    fn modules(part: &str, paths: &[&str]) -> Modules {
        let weight = || Weight::new([2, 3], Initial::Zeros, &Device::flex());
        let paths = paths.iter().map(|p| (format!("{p}.weight"), weight())).collect();
        let mut modules = Modules::default();
        modules.add(part, &Paths(paths));
        modules
    }

    fn found(modules: &Modules, name: &str) -> Vec<String> {
        let (key, _) = super::super::keys::read(&format!("{name}.lora_down.weight")).unwrap();
        modules.find(&key, |_| true).into_iter().map(|t| t.path).collect()
    }

    /// The blocks of a U-Net with three levels of two residual blocks, attention from the second on.
    fn unet() -> Modules {
        let mut paths = vec!["conv_in".to_owned(), "time_embedding.linear_2".to_owned()];
        for block in 0..3 {
            for layer in 0..2 {
                paths.push(format!("down_blocks.{block}.resnets.{layer}.conv1"));
                if block > 0 {
                    paths.push(format!("down_blocks.{block}.attentions.{layer}.proj_in"));
                }
            }
            for layer in 0..3 {
                paths.push(format!("up_blocks.{block}.resnets.{layer}.conv_shortcut"));
                if block < 2 {
                    paths.push(format!(
                        "up_blocks.{block}.attentions.{layer}.transformer_blocks.0.attn1.to_out.0"
                    ));
                }
            }
            if block < 2 {
                paths.push(format!("down_blocks.{block}.downsamplers.0.conv"));
                paths.push(format!("up_blocks.{block}.upsamplers.0.conv"));
            }
        }
        paths.push("mid_block.resnets.1.conv2".to_owned());
        paths.push("mid_block.attentions.0.proj_in".to_owned());
        modules("unet", &paths.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Original and present names as the converters of diffusers and sd-scripts pair them for the
    /// network of Podell et al., which has these blocks.
    #[test]
    fn the_original_blocks_are_found() {
        let unet = unet();
        for (original, own) in [
            ("input_blocks_0_0", "conv_in"),
            ("time_embed_2", "time_embedding.linear_2"),
            ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
            ("input_blocks_2_0_in_layers_2", "down_blocks.0.resnets.1.conv1"),
            ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
            ("input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in"),
            ("input_blocks_8_1_proj_in", "down_blocks.2.attentions.1.proj_in"),
            ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
            ("middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
            ("output_blocks_2_0_skip_connection", "up_blocks.0.resnets.2.conv_shortcut"),
            ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"),
            (
                "output_blocks_3_1_transformer_blocks_0_attn1_to_out_0",
                "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
            ),
            ("output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
        ] {
            assert_eq!(found(&unet, &format!("lora_unet_{original}")), [own], "{original}");
        }
        assert!(found(&unet, "lora_unet_input_blocks_9_0_in_layers_2").is_empty());
        assert!(found(&unet, "lora_te_conv_in").is_empty());
    }

    #[test]
    fn one_module_goes_by_many_names() {
        let unet = unet();
        let own = "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0";
        for name in [
            own.to_owned(),
            format!("unet.{own}"),
            format!("base_model.model.{own}"),
            "unet.up_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_out".to_owned(),
            "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0".to_owned(),
            "diffusion_model.output_blocks.1.1.transformer_blocks.0.attn1.to_out.0".to_owned(),
        ] {
            assert_eq!(found(&unet, &name), [own], "{name}");
        }
    }

    #[test]
    fn a_fused_projection_is_three() {
        let layer = "text_model.encoder.layers.5";
        let names = ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "mlp.fc1"];
        let paths: Vec<String> = names.iter().map(|n| format!("{layer}.{n}")).collect();
        let text = modules("text_encoder", &paths.iter().map(String::as_str).collect::<Vec<_>>());
        let (key, _) =
            super::super::keys::read("lora_te_transformer_resblocks_5_attn_in_proj.lora_up.weight")
                .unwrap();
        let rows: BTreeMap<String, usize> =
            text.find(&key, |_| true).into_iter().map(|t| (t.path, t.rows.unwrap().from)).collect();
        let wanted = ["q_proj", "k_proj", "v_proj"].iter().enumerate();
        let wanted = wanted.map(|(i, n)| (format!("{layer}.self_attn.{n}"), i * 2)).collect();
        assert_eq!(rows, wanted);
        for name in [
            "lora_te_text_model_encoder_layers_5_self_attn_q_proj",
            "text_encoder.encoder.layers.5.self_attn.q_proj",
            "text_encoder.text_model.encoder.layers.5.self_attn.to_q",
        ] {
            assert_eq!(found(&text, name), [format!("{layer}.self_attn.q_proj")], "{name}");
        }
        let fc1 = found(&text, "lora_te1_transformer_resblocks_5_mlp_c_fc");
        assert_eq!(fc1, [format!("{layer}.mlp.fc1")]);
        assert_eq!(text.count(), 4);
    }
}
