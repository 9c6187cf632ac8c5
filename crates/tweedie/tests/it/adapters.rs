//! LoRA files of every naming on tiny pipelines, against diffusers and PEFT.
//!
//! The fixtures are written by `tools/parity/tiny.py` and `tools/parity/adapters.py`.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;
use tweedie::denoiser::{Cond, Network, Pass, Times, field};
use tweedie::engine::{Model, Reading};
use tweedie::hub::{Dtype, Lora, Output, TensorFile, encode_safetensors};
use tweedie::state::State;

use crate::pipelines::{data, pipeline};

/// The largest error that is let pass, in units of the largest number.
const TOLERANCE: f64 = 2e-5;
/// What a mistake must at least change.
const HEARD: f64 = 1e-2;

#[derive(Clone, Deserialize)]
struct Case {
    model: String,
    loras: Vec<(String, f64)>,
}

struct Fixture {
    file: TensorFile,
    cases: Vec<Case>,
    models: BTreeMap<String, Model>,
    device: Device,
}

impl Fixture {
    fn open(models: &[&str]) -> Self {
        let file = TensorFile::open(data("adapters/references.safetensors")).unwrap();
        let cases = serde_json::from_str(&file.metadata()["cases"]).unwrap();
        let device = Device::flex();
        let open = |name: &&str| {
            let model = Model::open(&pipeline(name).to_string_lossy(), &device).unwrap();
            ((*name).to_owned(), model)
        };
        let models = models.iter().map(open).collect();
        Self { file, cases, models, device }
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let values = self.file.read_f32(name).unwrap();
        let shape = self.file.info(name).unwrap().shape;
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// What the network makes of the inputs.
    fn network(&self, name: &str, model: &Model) -> Vec<f32> {
        let x = State::new(self.tensor::<4>(&format!("{name}.sample")));
        let values = self.file.read_f32(&format!("{name}.timestep")).unwrap();
        let values = values.into_iter().map(f64::from).collect();
        let times = Times { values, positions: 1 };
        let mut cond =
            Cond { context: Some(self.tensor(&format!("{name}.context"))), ..Cond::default() };
        if self.file.contains(&format!("{name}.vector")) {
            cond.vector = Some(self.tensor(&format!("{name}.vector")));
            let ids = State::new(self.tensor::<2>(&format!("{name}.time_ids")));
            cond.fields.insert(field::TIME_IDS.into(), ids);
        }
        let network: &dyn Network = &*model.denoiser.network;
        let y = network.forward(&x, &times, &cond, &mut Pass::default()).unwrap();
        numbers(&y.view::<4>().unwrap())
    }

    /// The largest error of network and text, in units of the largest number of each.
    fn off(&self, at: usize, model: &Model) -> f64 {
        let case = &self.cases[at];
        let text = model.text.as_ref().unwrap();
        let made = text.encode(&["a red circle"], Reading::default()).unwrap();
        let mut found =
            vec![("unet", self.network(&case.model, model)), ("text", numbers(&made[0].context))];
        if self.file.contains(&format!("{at}.pooled")) {
            found.push(("pooled", numbers(&made[0].pooled)));
        }
        let of = |(name, found): (&str, Vec<f32>)| {
            let wanted = self.file.read_f32(&format!("{at}.{name}")).unwrap();
            assert_eq!(found.len(), wanted.len(), "{at}.{name}");
            let scale = wanted.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
            let pairs = found.iter().zip(&wanted);
            pairs.fold(0.0_f64, |m, (a, b)| m.max(f64::from((a - b).abs()))) / scale
        };
        found.into_iter().map(of).fold(0.0, f64::max)
    }

    fn with(&self, case: &Case) -> Model {
        let open = |name: &String| Lora::open(data("adapters").join(name)).unwrap();
        let loras: Vec<Lora> = case.loras.iter().map(|(name, _)| open(name)).collect();
        let weighed: Vec<(&Lora, f64)> =
            loras.iter().zip(case.loras.iter().map(|(_, w)| *w)).collect();
        let (model, applied) = self.models[&case.model].with_loras(&weighed, false).unwrap();
        for one in &applied {
            assert_eq!((one.matched, one.unmatched.len()), (one.modules, 0), "{one}");
            let weights: usize = one.parts.iter().map(|(_, n)| n).sum();
            assert_eq!(weights, one.modules, "{one}");
        }
        model
    }

    fn compare(&self, model: &str) -> usize {
        let mut count = 0;
        for (at, case) in self.cases.iter().enumerate().filter(|(_, c)| c.model == model) {
            let off = self.off(at, &self.with(case));
            println!("{:?}: off by {off:e}", case.loras);
            assert!(off <= TOLERANCE, "{:?} is off by {off:e}", case.loras);
            count += 1;
        }
        // The model itself is as it was.
        let plain = self.cases.iter().position(|c| c.model == model && c.loras.is_empty()).unwrap();
        assert!(self.off(plain, &self.models[model]) <= TOLERANCE);
        count
    }

    fn case(&self, file: &str) -> usize {
        self.cases.iter().position(|c| c.loras.len() == 1 && c.loras[0].0 == file).unwrap()
    }
}

fn numbers<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data_as::<f32>().iter::<f32>().collect()
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(name: &str) -> Tensors {
    let file = TensorFile::open(data("adapters").join(name)).unwrap();
    let of = |n: &str| (file.info(n).unwrap().shape, file.read_f32(n).unwrap());
    file.names().map(|n| (n.to_owned(), of(n))).collect()
}

/// A LoRA of tensors that were changed.
fn lora(tensors: &Tensors) -> tweedie::Result<Lora> {
    let outputs: Vec<Output<'_>> =
        tensors.iter().map(|(n, (s, v))| Output::f32(n, s, v, Dtype::F32)).collect();
    let bytes = encode_safetensors(&outputs, &BTreeMap::new()).unwrap();
    Lora::from_tensors(
        TensorFile::from_bytes(bytes, "changed.safetensors")?.into(),
        "changed",
        None,
    )
}

#[test]
fn loras_of_every_naming_as_elsewhere() {
    assert_eq!(Fixture::open(&["one"]).compare("one"), 10);
}

#[test]
fn loras_on_two_text_encoders_and_numbered_blocks_as_elsewhere() {
    assert_eq!(Fixture::open(&["two"]).compare("two"), 4);
}

#[test]
fn a_wrong_numbering_of_blocks_is_heard_or_refused() {
    let fixture = Fixture::open(&["two"]);
    let at = fixture.case("kohya_blocks.safetensors");
    let weight = fixture.cases[at].loras[0].1;
    let whole = tensors("kohya_blocks.safetensors");
    // Blocks on the way down counted from 0 rather than behind the first convolution.
    let renamed = |from: &str, to: &str| -> Tensors {
        whole.iter().map(|(n, t)| (n.replace(from, to), t.clone())).collect()
    };
    let put = |tensors: &Tensors| {
        let made = fixture.models["two"].with_loras(&[(&lora(tensors).unwrap(), weight)], false);
        made.map(|(model, _)| fixture.off(at, &model))
    };
    assert!(put(&whole).unwrap() <= TOLERANCE);
    let error = put(&renamed("input_blocks_3_", "input_blocks_2_")).unwrap_err().to_string();
    assert!(error.contains("input_blocks_2_"), "{error}");
    // Two encoders exchanged: their widths differ.
    let marked = renamed("lora_te1_", "lora_te9_");
    let marked = marked.into_iter().map(|(n, t)| (n.replace("lora_te2_", "lora_te1_"), t));
    let marked: Tensors = marked.map(|(n, t)| (n.replace("lora_te9_", "lora_te2_"), t)).collect();
    let error = put(&marked).unwrap_err().to_string();
    assert!(error.contains("lora_te"), "{error}");
}

#[test]
fn a_lost_alpha_is_heard() {
    let fixture = Fixture::open(&["one"]);
    let at = fixture.case("alphas.safetensors");
    let weight = fixture.cases[at].loras[0].1;
    let whole = tensors("alphas.safetensors");
    let of = |tensors: &Tensors| {
        let lora = lora(tensors).unwrap();
        let (model, _) = fixture.models["one"].with_loras(&[(&lora, weight)], false).unwrap();
        fixture.off(at, &model)
    };
    assert!(of(&whole) <= TOLERANCE);
    let is_alpha = |name: &str| name.rsplit('.').next() == Some("alpha");
    let without: Tensors = whole.clone().into_iter().filter(|(n, _)| !is_alpha(n)).collect();
    assert!(without.len() < whole.len() && of(&without) > HEARD);
    let mut loud = whole.clone();
    let (_, alpha) = loud.iter_mut().find(|(n, _)| n.ends_with("attn1_to_v.alpha")).unwrap();
    alpha.1[0] *= 2.0;
    assert!(of(&loud) > HEARD);
}

#[test]
fn exchanged_ways_and_other_names_are_refused() {
    let fixture = Fixture::open(&["one"]);
    let model = &fixture.models["one"];
    let put = |tensors: &Tensors, partial| {
        model.with_loras(&[(&lora(tensors).unwrap(), 1.0)], partial).map(|(_, applied)| applied)
    };
    let whole = tensors("kohya.safetensors");
    let exchanged = |n: &str| {
        let marked = n.replace("lora_down", "?").replace("lora_up", "lora_down");
        marked.replace('?', "lora_up")
    };
    let error = put(&whole.iter().map(|(n, t)| (exchanged(n), t.clone())).collect(), true);
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("changed.safetensors: `lora_"), "{error}");
    // The blocks of another network, all of them or one.
    let renamed = |from: &str, to: &str| -> Tensors {
        whole.iter().map(|(n, t)| (n.replace(from, to), t.clone())).collect()
    };
    for (from, to) in [("lora_unet_", "lora_net_"), ("up_blocks_1_att", "up_blocks_7_att")] {
        let error = put(&renamed(from, to), false).unwrap_err().to_string();
        assert!(error.contains("none of the model") && error.contains(to), "{error}");
    }
    let applied = put(&renamed("up_blocks_1_att", "up_blocks_7_att"), true).unwrap();
    assert!(applied[0].matched < applied[0].modules);
    assert!(applied[0].unmatched.iter().all(|n| n.contains("up_blocks_7_att")));
    // Nothing fits: an error whatever is allowed.
    let other = renamed("lora_unet_", "lora_net_");
    let other = other.into_iter().filter(|(n, _)| n.contains("lora_net_")).collect();
    let error = put(&other, true).unwrap_err().to_string();
    assert!(error.contains("none of its"), "{error}");
    // Factors of another width name the file, the tensor, what was found and what was wanted.
    let mut wide = whole.clone();
    let (key, (shape, values)) =
        wide.iter_mut().find(|(n, _)| n.ends_with("attn2_to_k.lora_down.weight")).unwrap();
    shape[1] += 1;
    values.resize(shape.iter().product(), 0.0);
    let (key, found) = (key.clone(), format!("{shape:?}"));
    let error = put(&wide, true).unwrap_err().to_string();
    assert!(error.contains(&key) && error.contains(&found) && error.contains("[8, 16]"), "{error}");
}

#[test]
fn a_fused_projection_acts_on_its_three_thirds() {
    let fixture = Fixture::open(&["one"]);
    let layer = "text_model_encoder_layers_1_self_attn";
    let whole = tensors("kohya.safetensors");
    let [rank, width] = [2, 16];
    let take = |name: &str| {
        whole[&format!("lora_te_{layer}_{name}.lora_up.weight")].1[..width * rank].to_vec()
    };
    let down: Vec<f32> = (0..rank * width).map(|i| (i as f32 * 0.7).sin()).collect();
    let ups = ["q_proj", "k_proj", "v_proj"].map(|n| (n, take(n)));
    let mut apart = Tensors::new();
    let mut fused = Vec::new();
    for (name, up) in &ups {
        let key = format!("lora_te_{layer}_{name}");
        apart.insert(format!("{key}.lora_down.weight"), (vec![rank, width], down.clone()));
        apart.insert(format!("{key}.lora_up.weight"), (vec![width, rank], up.clone()));
        fused.extend(up);
    }
    let key = "lora_te_transformer_resblocks_1_attn_in_proj";
    let of = |fused: Vec<f32>| {
        let tensors: Tensors = [
            (format!("{key}.lora_down.weight"), (vec![rank, width], down.clone())),
            (format!("{key}.lora_up.weight"), (vec![3 * width, rank], fused)),
        ]
        .into();
        tensors
    };
    let text = |tensors: &Tensors| {
        let lora = lora(tensors).unwrap();
        let (model, _) = fixture.models["one"].with_loras(&[(&lora, 1.0)], false).unwrap();
        let text = model.text.as_ref().unwrap();
        numbers(&text.encode(&["a red circle"], Reading::default()).unwrap()[0].context)
    };
    let wanted = text(&apart);
    assert_eq!(text(&of(fused.clone())), wanted);
    // Query and key exchanged.
    let third = width * rank;
    let swapped = [&fused[third..2 * third], &fused[..third], &fused[2 * third..]].concat();
    assert_ne!(text(&of(swapped)), wanted);
}

#[test]
fn one_model_serves_several_at_once() {
    let fixture = Fixture::open(&["one"]);
    let file = |name: &str| Lora::open(data("adapters").join(name)).unwrap();
    let (kohya, old) = (file("kohya.safetensors"), file("old_layers.safetensors"));
    let base = &fixture.models["one"];
    let run = |lora: &Lora| {
        let (model, _) = base.with_loras(&[(lora, 0.75)], false).unwrap();
        fixture.off(fixture.case(lora.file().file_name().unwrap().to_str().unwrap()), &model)
    };
    std::thread::scope(|scope| {
        let [a, b] = [&kohya, &old].map(|lora| scope.spawn(move || run(lora)));
        assert!(a.join().unwrap() <= TOLERANCE && b.join().unwrap() <= TOLERANCE);
    });
    // A strength of 0 is the model itself, bit for bit.
    let (none, _) = base.with_loras(&[(&kohya, 0.0)], false).unwrap();
    assert_eq!(fixture.network("one", &none), fixture.network("one", base));
    assert!(base.with_loras(&[(&kohya, f64::NAN)], false).is_err());
}
