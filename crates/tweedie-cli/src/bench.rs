//! `tweedie bench`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use tweedie::engine::bench::{Breakdown, Piece, peak_rate, time};
use tweedie::engine::{Engine, bytes, instruction_set, peak_memory};
use tweedie::hub::{TensorSet, encode_safetensors};

use crate::demands::Stored;
use crate::output;

/// Every piece, as the folders of full-size models with random weights call them.
const PIECES: [Piece; 6] = [
    Piece {
        name: "unet32",
        about: "Stable Diffusion 1.5's U-Net, latents of 32x32",
        component: Some(["sd15", "unet"]),
        inputs: &[
            ("sample", &[1, 4, 32, 32]),
            ("timestep", &[1]),
            ("encoder_hidden_states", &[1, 77, 768]),
        ],
    },
    Piece {
        name: "unet64",
        about: "Stable Diffusion 1.5's U-Net, latents of 64x64",
        component: Some(["sd15", "unet"]),
        inputs: &[
            ("sample", &[1, 4, 64, 64]),
            ("timestep", &[1]),
            ("encoder_hidden_states", &[1, 77, 768]),
        ],
    },
    Piece {
        name: "unet64b2",
        about: "the same for two rows, as guidance asks for",
        component: Some(["sd15", "unet"]),
        inputs: &[
            ("sample", &[2, 4, 64, 64]),
            ("timestep", &[1]),
            ("encoder_hidden_states", &[2, 77, 768]),
        ],
    },
    Piece {
        name: "vae512",
        about: "decoding latents to 512x512",
        component: Some(["sd15", "vae-decoder"]),
        inputs: &[("latents", &[1, 4, 64, 64])],
    },
    Piece {
        name: "dit256",
        about: "DiT-XL/2, latents of 32x32",
        component: Some(["dit-xl-2", "transformer"]),
        inputs: &[("sample", &[1, 4, 32, 32]), ("timestep", &[1]), ("class_labels", &[1])],
    },
    Piece {
        name: "train",
        about: "one AdamW step of a small pixel U-Net, 64 pictures of 32x32",
        component: None,
        inputs: &[("sample", &[64, 3, 32, 32]), ("timestep", &[64])],
    },
];

/// Time named pieces of work, to compare with another program.
///
/// Each piece runs once to warm up and then as often as asked; the median counts. The root holds
/// full-size model folders: `sd15` and `dit-xl-2`. Run this and the other program in turn on a quiet
/// machine, with the same number of threads.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of the model folders `sd15` and `dit-xl-2`; `train` needs none.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// What to time, separated by commas: unet32, unet64, unet64b2, vae512, dit256, train.
    #[arg(long, value_delimiter = ',', value_parser = PIECES.map(|p| p.name),
        default_values_t = PIECES.map(|p| p.name.to_owned()))]
    pieces: Vec<String>,
    /// Timed runs of each piece.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Threads.
    #[arg(short, long, default_value_t = 2)]
    threads: usize,
    /// Hold the weights in this type, as `tweedie generate --dtype` does.
    #[arg(long, value_enum)]
    dtype: Option<Stored>,
    /// Run the piece on these tensors (safetensors, named as for `tweedie forward`).
    #[arg(long, value_name = "FILE", requires = "out")]
    inputs: Option<PathBuf>,
    /// Write what the last timed run of the piece put out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the medians in seconds and the peak memory as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let named = |name: &String| PIECES.into_iter().find(|piece| piece.name == *name);
    let pieces: Vec<Piece> = args.pieces.iter().filter_map(named).collect();
    if args.out.is_some() && pieces.len() != 1 {
        bail!("--out holds what one piece puts out: name it with --pieces");
    }
    let inputs = args.inputs.as_ref().map(TensorSet::open).transpose()?;
    let engine = Engine::cpu(args.threads)?;
    let storage = args.dtype.map(Stored::storage);
    let (mut report, mut breakdowns) = (Map::new(), Map::new());
    let rate = peak_rate(&engine);
    if !args.json {
        let set = instruction_set();
        let (threads, runs) = (engine.threads(), args.runs);
        output::say(&format!(
            "{threads} threads, {set}, {:.0} GFLOP/s at their peak; seconds of {runs} runs",
            rate * 1e-9
        ));
        output::say(&format!("{:<10} {:>9} {:>9} {:>9}", "piece", "median", "least", "most"));
    }
    for piece in &pieces {
        let timed = time(&engine, &args.root, piece, storage, inputs.as_ref(), args.runs.into())?;
        if let Some(out) = &args.out {
            output::write(out, &encode_safetensors(&timed.outputs, &BTreeMap::new())?)?;
        }
        let median = timed.median();
        let least = timed.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = timed.seconds.iter().copied().fold(0.0, f64::max);
        report.insert(piece.name.to_owned(), json!(median));
        if !args.json {
            output::say(&format!(
                "{:<10} {median:>9.3} {least:>9.3} {most:>9.3}   {}",
                piece.name, piece.about
            ));
            table(&timed.breakdown, rate);
        }
        breakdowns.insert(piece.name.to_owned(), classes(&timed.breakdown));
    }
    let peak = peak_memory();
    if args.json {
        report.insert("peak_rss_mb".into(), json!(peak.map(|p| p as f64 / f64::from(1 << 20))));
        report.insert("breakdown".into(), Value::Object(breakdowns));
        report.insert("peak_gflops".into(), json!(rate * 1e-9));
        report.insert("threads".into(), json!(engine.threads()));
        report.insert("instruction_set".into(), json!(instruction_set()));
        output::say(&serde_json::to_string_pretty(&Value::Object(report))?);
    } else if let Some(peak) = peak {
        output::say(&format!("peak memory {}", bytes(peak)));
    }
    Ok(())
}

/// Where the time goes, a line for each class of operations.
fn table(breakdown: &Breakdown, rate: f64) {
    let share = |seconds: f64| 100.0 * seconds / breakdown.seconds.max(1e-12);
    let mut rest = breakdown.seconds;
    for spent in &breakdown.spent {
        rest -= spent.seconds;
        let speed = spent.operations / spent.seconds.max(1e-12);
        let speed = if spent.operations > 0.0 {
            format!("{:>6.0} GFLOP/s, {:>3.0} % of the peak", speed * 1e-9, 100.0 * speed / rate)
        } else {
            String::new()
        };
        output::say(&format!(
            "  {:<12} {:>9.3} {:>7.1} % {:>6} calls {speed}",
            spent.class.name(),
            spent.seconds,
            share(spent.seconds),
            spent.calls
        ));
    }
    output::say(&format!("  {:<12} {:>9.3} {:>7.1} %", "else", rest, share(rest)));
}

/// The same as JSON.
fn classes(breakdown: &Breakdown) -> Value {
    let mut classes = Map::new();
    for spent in &breakdown.spent {
        let one = json!({
            "seconds": spent.seconds, "calls": spent.calls, "gflop": spent.operations * 1e-9,
        });
        classes.insert(spent.class.name().to_owned(), one);
    }
    json!({"seconds": breakdown.seconds, "classes": classes})
}
