//! `tweedie forward`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use tweedie::engine::{COMPONENTS, Engine, forward};
use tweedie::hub::{Output, Parts, TensorSet, Values, encode_safetensors};

use crate::output;

/// Run one component of a model on given tensors, to check it against another program.
///
/// Inputs and outputs are safetensors files. Inputs are named as in the forward signatures of
/// diffusers and transformers: `sample`, `timestep`, `encoder_hidden_states`, `class_labels`,
/// `timestep_cond`, `text_embeds`, `time_ids`, `input_ids`, `controlnet_cond`, and `latents` for the
/// decoder. Outputs are `sample`; `mean` and `logvar` of the encoder; `last_hidden_state`, `pooled`
/// and `text_embeds` of text encoders; `down_0`, `down_1` ... and `mid` of a control network.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: `builtin:NAME`, a model folder, the folder of one component, a single file, or
    /// `organisation/name` in the local Hugging Face cache.
    #[arg(short, long)]
    model: String,
    /// Which part of it to run.
    #[arg(short, long, value_parser = COMPONENTS)]
    component: String,
    /// The safetensors file with the inputs.
    #[arg(short, long, value_name = "FILE")]
    inputs: PathBuf,
    /// The safetensors file to write the outputs to.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Threads.
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Print what came out as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let engine = Engine::cpu(args.threads)?;
    // Other components may be missing: they are not asked for.
    let folder = Parts::new(&*args.model).look()?.folder;
    let inputs = TensorSet::open(&args.inputs)?;
    let start = Instant::now();
    let done = forward(&engine, &folder, &args.component, &inputs)?;
    let seconds = start.elapsed();
    output::write(
        &args.out,
        &encode_safetensors(&done.outputs, &std::collections::BTreeMap::new())?,
    )?;
    let facts: Vec<Facts> = done.outputs.iter().map(Facts::of).collect();
    if args.json {
        let outputs = facts.iter().map(|f| {
            json!({
                "name": f.name, "shape": f.shape,
                "mean": f.mean, "std": f.std, "max_abs": f.max_abs,
            })
        });
        let report = json!({
            "model": args.model, "component": args.component, "class": done.class,
            "seconds": seconds.as_secs_f64(), "out": args.out.display().to_string(),
            "outputs": outputs.collect::<Vec<_>>(),
        });
        output::say(&serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    for f in &facts {
        let Facts { name, shape, mean, std, max_abs } = f;
        output::say(&format!(
            "{name} {shape:?}: mean {mean:.6}, deviation {std:.6}, largest {max_abs:.6}"
        ));
    }
    output::say(&format!(
        "{} of class {} in {}: {}",
        args.component,
        done.class,
        output::seconds(seconds),
        args.out.display()
    ));
    Ok(())
}

/// What is worth saying of a tensor.
struct Facts<'a> {
    name: &'a str,
    shape: &'a [usize],
    mean: f64,
    std: f64,
    max_abs: f64,
}

impl<'a> Facts<'a> {
    fn of(tensor: &'a Output<'_>) -> Self {
        let values: &[f32] = match &tensor.values {
            Values::F32(values) => values,
            _ => &[],
        };
        let count = values.len().max(1) as f64;
        let numbers = || values.iter().map(|v| f64::from(*v));
        let mean = numbers().sum::<f64>() / count;
        let std = (numbers().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
        let max_abs = numbers().fold(0.0, |m: f64, v| m.max(v.abs()));
        Self { name: &tensor.name, shape: &tensor.shape, mean, std, max_abs }
    }
}
