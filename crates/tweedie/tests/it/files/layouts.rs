//! Every published layout: told by its keys, its settings read off the shapes, its tensors under the
//! names and with the numbers that diffusers gives them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::listing::{self, Numbers};

/// What each file of the reference is.
const WHAT: &[(&str, &str, &str)] = &[
    ("sd1", "Stable Diffusion 1", "StableDiffusionPipeline"),
    ("sd1_inpaint", "Stable Diffusion 1, for inpainting", "StableDiffusionInpaintPipeline"),
    ("sd1_instruct", "Stable Diffusion 1, for editing", "StableDiffusionInstructPix2PixPipeline"),
    ("sd2", "Stable Diffusion 2", "StableDiffusionPipeline"),
    ("sd2_inpaint", "Stable Diffusion 2, for inpainting", "StableDiffusionInpaintPipeline"),
    ("sdxl", "Stable Diffusion XL", "StableDiffusionXLPipeline"),
    ("refiner", "Stable Diffusion XL refiner", "StableDiffusionXLImg2ImgPipeline"),
    ("controlnet", "ControlNet in the original names", ""),
];

#[test]
fn published_files_are_told_by_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let expected = listing::expected();
    assert_eq!(expected["files"].as_object().unwrap().len(), WHAT.len());
    for (name, what, pipeline) in WHAT {
        let file = &expected["files"][name];
        let opened = listing::look(&listing::hollow(folder.path(), &listing::shapes(file)));
        assert!(opened.what.contains(what), "{name}: {}", opened.what);
        assert_eq!(opened.folder.index().map_or("", |i| &i.class), *pipeline, "{name}");
        for (part, wanted) in file["components"].as_object().unwrap() {
            let component = opened.folder.component(part).unwrap();
            let tensors = component.tensors().unwrap();
            assert_eq!(component.class, wanted["class"].as_str().unwrap(), "{name}/{part}");
            assert_eq!(tensors.len() as u64, wanted["tensors"].as_u64().unwrap(), "{name}/{part}");
            assert_eq!(listing::digest(&tensors, false), wanted["names"], "{name}/{part}");
            let blocks = wanted["config"]["block_out_channels"].as_array().map_or(0, Vec::len);
            for (key, value) in wanted["config"].as_object().unwrap() {
                let found = component.config.get(key).cloned().unwrap_or_default();
                // One number stands for as many as there are blocks.
                let spread = |v: &Value| match v {
                    Value::Number(_)
                        if key.ends_with("per_block") || key.starts_with("attention_") =>
                    {
                        json!(vec![v; blocks])
                    }
                    other => other.clone(),
                };
                assert_eq!(spread(&found), spread(value), "{name}/{part}: {key}");
            }
        }
    }
}

/// The file of the reference in small, with numbers.
fn small(name: &str) -> (Value, BTreeMap<String, Numbers>) {
    let file = listing::expected()["files"][name].clone();
    let tensors = listing::filled(&listing::shapes(&file));
    (file, tensors)
}

/// Which components of a file have not the numbers of the reference.
fn wrong(file: &Value, tensors: &BTreeMap<String, Numbers>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    listing::write(&path, tensors);
    let opened = listing::look(&path);
    let components = file["components"].as_object().unwrap().iter();
    let differs = |part: &str, wanted: &Value| {
        let tensors = opened.folder.component(part).unwrap().tensors().unwrap();
        listing::digest(&tensors, true) != wanted["numbers"].as_str().unwrap()
    };
    components.filter(|(part, wanted)| differs(part, wanted)).map(|(p, _)| p.clone()).collect()
}

#[test]
fn every_number_is_where_diffusers_has_it() {
    for (name, ..) in WHAT {
        let (file, tensors) = small(name);
        assert_eq!(wrong(&file, &tensors), [""; 0], "{name}");
    }
}

#[test]
fn a_unet_without_its_prefix_is_the_same() {
    let (file, tensors) = small("sd2");
    let bare: BTreeMap<String, Numbers> = tensors
        .into_iter()
        .filter_map(|(k, v)| Some((k.strip_prefix("model.diffusion_model.")?.to_owned(), v)))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unet.safetensors");
    listing::write(&path, &bare);
    let opened = listing::look(&path);
    let unet = opened.folder.component("unet").unwrap().tensors().unwrap();
    assert_eq!(listing::digest(&unet, true), file["components"]["unet"]["numbers"]);
    let missing: Vec<&str> = opened.missing.iter().map(|m| m.component.as_str()).collect();
    assert_eq!(missing, ["vae", "text_encoder"]);
}

/// Exchanges rows `a..a + count` and `b..b + count` of a tensor.
fn exchange(tensor: &mut Numbers, [a, b, count]: [usize; 3]) {
    let row = tensor.1.len() / tensor.0[0];
    for i in 0..count * row {
        tensor.1.swap(a * row + i, b * row + i);
    }
}

/// Breaks the tensors of a file in one way.
type Change<'a> = Box<dyn Fn(&mut BTreeMap<String, Numbers>) + 'a>;

#[test]
fn what_is_easily_mistaken_is_seen() {
    let fused = "conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_weight";
    let bias = "conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_bias";
    let projection = "conditioner.embedders.1.model.text_projection";
    let at = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0";
    let gate = format!("{at}.ff.net.0.proj.weight");
    let (file, tensors) = small("sdxl");
    let cases: [(&str, Change<'_>); 6] = [
        ("text_encoder_2", Box::new(|t| exchange(t.get_mut(fused).unwrap(), [0, 40, 40]))),
        ("text_encoder_2", Box::new(|t| exchange(t.get_mut(bias).unwrap(), [40, 80, 40]))),
        (
            "text_encoder_2",
            Box::new(|t| {
                // The projection as if it were not transposed.
                let (shape, numbers) = t.get_mut(projection).unwrap();
                let n = shape[0];
                let old = numbers.clone();
                for i in 0..n * n {
                    numbers[i] = old[(i % n) * n + i / n];
                }
            }),
        ),
        (
            "unet",
            Box::new(|t| {
                let half = t[&gate].0[0] / 2;
                exchange(t.get_mut(&gate).unwrap(), [0, half, half]);
            }),
        ),
        (
            "unet",
            Box::new(|t| {
                let [q, k] = ["to_q", "to_k"].map(|n| format!("{at}.attn1.{n}.weight"));
                let old = t[&q].clone();
                let new = t.insert(k, old).unwrap();
                t.insert(q, new);
            }),
        ),
        (
            "vae",
            Box::new(|t| {
                let [q, k] =
                    ["q", "k"].map(|n| format!("first_stage_model.decoder.mid.attn_1.{n}.weight"));
                let old = t[&q].clone();
                let new = t.insert(k, old).unwrap();
                t.insert(q, new);
            }),
        ),
    ];
    for (part, change) in cases {
        let mut broken = tensors.clone();
        change(&mut broken);
        assert_eq!(wrong(&file, &broken), [part]);
    }
}
