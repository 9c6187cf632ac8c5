//! Checks of the methods in miniature, and long runs of what the tests run in short.

mod check;
mod edits;
mod inversions;
mod record;
mod soak;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use crate::record::Verdict;

/// Checks of the methods in miniature, and long runs of what the tests run in short.
#[derive(Parser)]
#[command(name = "tweedie-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a method's claim with its baseline and its ablation, and write the record.
    Check {
        /// The ids of the methods; every check where nothing is said.
        ids: Vec<String>,
    },
    /// Measure a method of editing on scenes with one thing changed.
    Edits(edits::Args),
    /// Measure how exactly pictures come back after they were inverted.
    Inversions(inversions::Args),
    /// List the checks.
    List,
    /// Run in full what the tests run with reduced counts.
    Soak {
        /// What to run; a list where nothing is said.
        name: Option<String>,
        /// How many cases, in place of the full count.
        #[arg(long)]
        count: Option<usize>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A line on standard output; a closed pipe ends nothing.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::List => {
            for check in check::CHECKS {
                say(&format!("{:16} {}; wanted {}", check.id, check.claim, check.bar));
            }
            Ok(())
        }
        Command::Edits(args) => edits::run(&args, &mut |line| say(&line)),
        Command::Inversions(args) => inversions::run(&args, &mut |line| say(&line)),
        Command::Check { ids } => {
            let all = || check::CHECKS.iter().map(|c| c.id.to_owned()).collect();
            let mut short = Vec::new();
            for id in if ids.is_empty() { all() } else { ids } {
                let record = check::run(check::find(&id)?, &mut |line| say(&line))?;
                say(&format!("{id}: {:?} in {:.1} s", record.verdict, record.seconds));
                record.why.iter().for_each(|why| say(&format!("{id}: {why}")));
                if record.verdict == Verdict::Short {
                    short.push(id);
                }
            }
            if short.is_empty() { Ok(()) } else { bail!("short: {}", short.join(", ")) }
        }
        Command::Soak { name, count } => soak::run(name.as_deref(), count, &mut |line| say(&line)),
    }
}
