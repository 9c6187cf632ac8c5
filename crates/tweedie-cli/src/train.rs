//! `tweedie train`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use tweedie::engine::Engine;
use tweedie::train::log::Line;
use tweedie::train::{self, Config, Crew, Outcome, Trainer, task};

use crate::{output, progress};

/// Time between two lines where no bar is drawn.
const QUIET: Duration = Duration::from_secs(10);

/// Train a model from a configuration.
///
/// The run has a folder of its own with the log (JSON lines), sample grids and one checkpoint, which
/// is written whole or not at all. Ctrl-C saves and ends; --resume goes on from there bit for bit.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration, such as configs/fashion.toml.
    config: PathBuf,
    /// Go on from the checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,
    /// The run's folder; `runs/NAME` where nothing is said.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Take this many steps in place of those of the configuration.
    #[arg(long)]
    steps: Option<u64>,
    /// Write the averaged weights as a model folder when the run is finished.
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Only write the model of the last checkpoint, without training.
    #[arg(long, requires = "export")]
    export_only: bool,
    /// Threads; as many as there are cores where nothing is said.
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Micro-batches computed side by side, the threads divided among them: faster where the
    /// configuration has `accumulate` above 1, for the memory of one more copy each. The result is
    /// the same.
    #[arg(short, long, default_value_t = 1)]
    workers: usize,
}

struct Watcher {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    /// When a line was last written where there is no bar.
    last: Instant,
    first: Option<(Instant, u64)>,
}

impl Watcher {
    fn say(&self, text: &str) {
        if self.bar.is_hidden() { output::warn(text) } else { self.bar.println(text) }
    }
}

impl train::Watch for Watcher {
    fn step(&mut self, done: u64, steps: u64) -> ControlFlow<()> {
        self.bar.set_position(done);
        let (start, from) = *self.first.get_or_insert((Instant::now(), done));
        if self.bar.is_hidden() && done > from && self.last.elapsed() > QUIET {
            self.last = Instant::now();
            let each = start.elapsed().as_secs_f64() / (done - from) as f64;
            let left = each * steps.saturating_sub(done) as f64 / 60.0;
            output::warn(&format!("step {done} of {steps}, {each:.2} s each, {left:.0} min left"));
        }
        if self.stop.load(Ordering::SeqCst) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn line(&mut self, line: &Line) {
        self.say(&line.json().to_string());
    }

    fn wrote(&mut self, file: &Path) {
        self.say(&format!("wrote {}", file.display()));
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let engine = Engine::cpu(args.threads)?;
    let mut config = Config::read(&args.config)?;
    config.steps = args.steps.unwrap_or(config.steps);
    let folder = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&config.name));
    let stop = progress::stop_flag()?;
    let bar = progress::bar(config.steps, "steps", false);
    bar.set_message(config.name.clone());
    let mut watcher = Watcher { bar, stop, last: Instant::now(), first: None };
    let workers = args.workers.min(config.accumulate).min(engine.threads());
    if workers < args.workers {
        let (parts, threads) = (config.accumulate, engine.threads());
        let why = format!("a step has {parts} micro-batches (`accumulate`), and {threads} threads");
        output::warn(&format!("{} workers in place of {}: {why}", workers.max(1), args.workers));
    }
    let mut crew = match workers > 1 && !args.export_only {
        true => {
            Some(Crew::new(&config, engine.device(), workers, (engine.threads() / workers).max(1))?)
        }
        false => None,
    };
    let outcome = engine.install(|| -> tweedie::Result<Outcome> {
        let work = task::open(&config, engine.device())?;
        let mut trainer = if args.resume || args.export_only {
            Trainer::resumed(config, work, &folder)?
        } else {
            Trainer::fresh(config, work, &folder)?
        };
        if let Some(crew) = crew.take() {
            trainer = trainer.with_crew(crew);
        }
        let outcome =
            if args.export_only { Outcome::Finished } else { trainer.run(&mut watcher)? };
        if let (Outcome::Finished, Some(export)) = (outcome, &args.export) {
            trainer.export(export)?;
        }
        Ok(outcome)
    })?;
    watcher.bar.finish_and_clear();
    match outcome {
        Outcome::Finished => output::say(&format!("finished: {}", folder.display())),
        Outcome::Stopped => output::say(&format!(
            "stopped and saved: {}; go on with `tweedie train {} --resume`",
            folder.display(),
            args.config.display()
        )),
    }
    Ok(())
}
