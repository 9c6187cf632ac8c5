//! The `tweedie` command.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod adapt;
mod aliases;
mod bench;
mod convert;
mod data;
mod demands;
mod demo;
mod devices;
mod edit;
mod evaluate;
mod forward;
mod generate;
mod grid;
mod inspect;
mod methods;
mod output;
mod parts;
mod progress;
mod save;
mod serve;
mod task;
mod train;
mod tune;

/// An engine for diffusion models: opens the models that people have, and combines published
/// methods.
///
/// Start with `tweedie generate`: it draws pictures from the two small models that are part of this
/// program. `tweedie methods` lists everything that can be combined.
#[derive(Debug, Parser)]
#[command(name = "tweedie", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make pictures.
    Generate(Box<generate::Args>),
    /// Change what a picture shows, and keep the rest.
    Edit(Box<edit::Edit>),
    /// Find what a picture could have been made from, and make it from that.
    Invert(Box<edit::Invert>),
    /// Serve models to programs and to a browser.
    Serve(Box<serve::Args>),
    /// Train a model from a configuration.
    Train(train::Args),
    /// Measure a model against real data.
    Evaluate(evaluate::Args),
    /// Search the times that a run of few steps stops at.
    Tune(tune::Args),
    /// List the methods that can be combined, with their settings.
    Methods(methods::Args),
    /// Say what a model folder or a file of weights holds.
    Inspect(inspect::Args),
    /// Write a model in another layout or in narrower numbers.
    Convert(convert::Args),
    /// Run one component of a model on given tensors.
    Forward(forward::Args),
    /// Time named pieces of work, to compare with another program.
    Bench(bench::Args),
    /// Bring the public data sets that training and evaluation use.
    Data(data::Args),
    /// List the devices that this program was built for and this machine has.
    Devices(devices::Args),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    tweedie::engine::keep_freed_memory();
    tweedie::engine::InstructionSet::prefer_tiles();
    let result = match Cli::parse().command {
        Command::Generate(args) => generate::run(&args),
        Command::Edit(args) => edit::edit(&args),
        Command::Invert(args) => edit::invert(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Methods(args) => methods::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Forward(args) => forward::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tweedie", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            // Many an error says its cause itself.
            causes.dedup_by(|cause, before| before.ends_with(cause.as_str()));
            output::warn(&format!("error: {}", causes.join(": ").replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
