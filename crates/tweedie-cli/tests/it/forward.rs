//! `tweedie forward` as somebody meets it who checks a port.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::{Device, Tensor, TensorData};
use tweedie::denoiser::{Cond, Network, Pass, Times};
use tweedie::hub::{self, Dtype, ModelFolder, TensorFile, outputs, write_safetensors};
use tweedie::model::UNet2D;
use tweedie::model::config::UNet2DConfig;
use tweedie::random::Key;
use tweedie::state::State;
use tweedie::weight::Parameters;

fn tiny() -> (UNet2DConfig, UNet2D) {
    let settings = serde_json::json!({
        "in_channels": 2, "out_channels": 3, "num_class_embeds": 4, "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1,
        "norm_num_groups": 4, "attention_head_dim": 4,
    });
    let config: UNet2DConfig = serde_json::from_value(settings).unwrap();
    let mut network = UNet2D::new(config.clone(), &Device::flex()).unwrap();
    let mut index = 0;
    network.each_mut("", &mut |_, weight| {
        index += 1;
        let mut generator = Key::new(5, 0, index).generator();
        let values = (0..weight.count()).map(|_| 0.2 * generator.normal() as f32).collect();
        weight.set_vec(values).unwrap();
    });
    (config, network)
}

fn values(count: usize) -> Vec<f32> {
    let mut generator = Key::new(6, 0, 0).generator();
    (0..count).map(|_| generator.normal() as f32).collect()
}

fn inputs(folder: &Path, change: impl Fn(&mut Vec<hub::Output<'_>>)) -> std::path::PathBuf {
    let sample = values(2 * 2 * 8 * 8);
    let mut tensors = vec![
        hub::Output::f32("sample", &[2, 2, 8, 8], &sample, Dtype::F32),
        hub::Output::i64("timestep", &[], &[250]),
        hub::Output::i64("class_labels", &[2], &[3, 1]),
    ];
    change(&mut tensors);
    let path = folder.join("inputs.safetensors");
    write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    path
}

fn run(folder: &Path, component: &str, inputs: &Path, json: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tweedie"));
    command.args(["forward", "--threads", "1", "--component", component]);
    command.arg("--model").arg(folder.join("model")).arg("--inputs").arg(inputs);
    command.arg("--out").arg(folder.join("out.safetensors"));
    if json {
        command.arg("--json");
    }
    command.output().unwrap()
}

#[test]
fn a_component_runs_on_given_tensors() {
    let here = tempfile::tempdir().unwrap();
    let (config, network) = tiny();
    let weights = outputs(&network, Dtype::F32);
    ModelFolder::single(&config, weights).unwrap().write(here.path().join("model")).unwrap();
    let done = run(here.path(), "unet", &inputs(here.path(), |_| {}), true);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["class"], "UNet2DModel");
    assert_eq!(report["outputs"][0]["shape"], serde_json::json!([2, 3, 8, 8]));
    let x = TensorData::new(values(2 * 2 * 8 * 8), [2, 2, 8, 8]);
    let x = State::new(Tensor::<4>::from_data(x, &Device::flex()));
    let times = Times { values: vec![250.0; 2], positions: 1 };
    let cond = Cond::of_class([3, 1]);
    let wanted = network.forward(&x, &times, &cond, &mut Pass::default()).unwrap();
    let found = TensorFile::open(here.path().join("out.safetensors")).unwrap();
    let found = found.read_f32("sample").unwrap();
    let wanted: Vec<f32> = wanted.to_rows().concat().into_iter().map(|v| v as f32).collect();
    assert_eq!(found, wanted);
    assert!(found.iter().any(|v| v.abs() > 0.01));
}

#[test]
fn what_does_not_fit_is_said() {
    let here = tempfile::tempdir().unwrap();
    let (config, network) = tiny();
    let weights = outputs(&network, Dtype::F32);
    ModelFolder::single(&config, weights).unwrap().write(here.path().join("model")).unwrap();
    let says = |component: &str, change: &dyn Fn(&mut Vec<hub::Output<'_>>)| {
        let done = run(here.path(), component, &inputs(here.path(), change), false);
        assert!(!done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    let missing = says("unet", &|t| drop(t.remove(1)));
    assert!(missing.contains("`timestep`: this input is missing; the file holds"), "{missing}");
    let shape = says("unet", &|t| t[0].shape = vec![2, 8, 2, 8]);
    assert!(
        shape.contains("`sample`: wanted shape [any, 2, any, any], found [2, 8, 2, 8]"),
        "{shape}"
    );
    let dtype =
        says("unet", &|t| t[2] = hub::Output::f32("class_labels", &[2], &[3.0, 1.0], Dtype::F32));
    assert!(dtype.contains("`class_labels`: wanted whole numbers"), "{dtype}");
    let dtype = says("unet", &|t| t[0] = hub::Output::i64("sample", &[1, 2, 1, 1], &[1, 2]));
    assert!(dtype.contains("`sample`: wanted real numbers"), "{dtype}");
    let times = says("unet", &|t| t[1] = hub::Output::i64("timestep", &[3], &[1, 2, 3]));
    assert!(times.contains("`timestep`: wanted shape [] or [2], found [3]"), "{times}");
    let more = says("unet", &|t| t.push(hub::Output::i64("labels", &[1], &[1])));
    assert!(
        more.contains("`labels`: this component does not take it; it takes class_labels"),
        "{more}"
    );
    let class = says("unet", &|t| t[2] = hub::Output::i64("class_labels", &[2], &[4, 1]));
    assert!(class.contains("wanted 0 to 3, found 4"), "{class}");
    let other = says("vae-decoder", &|_| {});
    assert!(other.contains("UNet2DModel") && other.contains("AutoencoderKL"), "{other}");
    assert!(says("unett", &|_| {}).contains("'unett'"));
}
