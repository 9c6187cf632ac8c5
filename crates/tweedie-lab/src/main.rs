//! Checks and benches of the methods, and training without the command line.

mod train;

use clap::{Parser, Subcommand};

/// Checks and benches of the methods.
#[derive(Parser)]
#[command(name = "tweedie-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model from its configuration.
    Train(train::Train),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Train(arguments) => train::run(&arguments),
    }
}
