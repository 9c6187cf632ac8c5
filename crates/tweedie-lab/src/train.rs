//! `train`: the trainer of the library with a line every few seconds.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use tweedie::train::log::Line;
use tweedie::train::{Config, Outcome, Trainer, Watch, task};

/// Train a model from its configuration.
#[derive(Args)]
pub(crate) struct Train {
    /// The configuration, such as configs/fashion.toml.
    config: PathBuf,
    /// Go on from the checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,
    /// The folder of the run: checkpoint, log, samples. By default out/train/NAME.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the averaged model into this folder at the end.
    #[arg(long)]
    export: Option<PathBuf>,
    /// Take this many steps instead of those of the configuration.
    #[arg(long)]
    steps: Option<u64>,
    /// Only write the model of the checkpoint, without training.
    #[arg(long, requires = "export")]
    export_only: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Train) -> anyhow::Result<()> {
    let mut config = Config::read(&arguments.config)?;
    if let Some(steps) = arguments.steps {
        config.steps = steps;
    }
    let folder = arguments.out.clone().unwrap_or_else(|| Path::new("out/train").join(&config.name));
    let device = burn::tensor::Device::flex();
    let started = Instant::now();
    let task = task::open(&config, &device)?;
    say(&format!("data ready after {:.1} s", started.elapsed().as_secs_f64()));
    let mut trainer = if arguments.resume || arguments.export_only {
        Trainer::resumed(config, task, &folder)?
    } else {
        Trainer::fresh(config, task, &folder)?
    };
    say(&format!("{} weights, at step {}", trainer.weights(), trainer.position().step));
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .context("cannot catch the stop signal")?;
    let mut watch = Lines { stop, last: Instant::now(), first: None };
    if !arguments.export_only && trainer.run(&mut watch)? == Outcome::Stopped {
        say("stopped; --resume goes on");
        return Err(anyhow!("stopped at step {}", trainer.position().step));
    }
    if let Some(folder) = &arguments.export {
        trainer.export(folder)?;
        say(&format!("wrote {}", folder.display()));
    }
    Ok(())
}

/// Prints a line every few seconds, and ends the run when asked to.
struct Lines {
    stop: Arc<AtomicBool>,
    last: Instant,
    first: Option<(Instant, u64)>,
}

impl Watch for Lines {
    fn step(&mut self, done: u64, steps: u64) -> ControlFlow<()> {
        let (start, from) = *self.first.get_or_insert((Instant::now(), done));
        if self.last.elapsed() > Duration::from_secs(10) && done > from {
            let each = start.elapsed().as_secs_f64() / (done - from) as f64;
            let left = each * steps.saturating_sub(done) as f64;
            say(&format!("step {done}/{steps}, {:.2} s a step, {:.0} min left", each, left / 60.0));
            self.last = Instant::now();
        }
        if self.stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn line(&mut self, line: &Line) {
        say(&line.json().to_string());
    }

    fn wrote(&mut self, file: &Path) {
        say(&format!("wrote {}", file.display()));
    }
}

/// A line on the standard output; a closed pipe ends nothing.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
