//! `tweedie data`.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tweedie::data::fetch::{Fetch, Outcome, get, verify};
use tweedie::data::{root, sets};

use crate::{output, progress};

/// Bring the public data sets that training and evaluation use.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the sets, and whether they are here.
    List,
    /// Fetch a set and check it against its published checksums.
    Get {
        /// The set.
        name: String,
        /// The folder of data sets; `TWEEDIE_DATA` or the user's cache where nothing is said.
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Check the files of a set that is here.
    Verify {
        /// The set.
        name: String,
    },
}

/// Speaks HTTP.
struct Http(ureq::Agent);

impl Http {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build();
        Self(config.into())
    }
}

impl Fetch for Http {
    fn open(&self, address: &str) -> std::io::Result<Box<dyn Read>> {
        let response = self.0.get(address).call().map_err(std::io::Error::other)?;
        Ok(Box::new(response.into_body().into_reader()))
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::List => list(),
        Command::Get { name, into } => {
            let set = sets::named(name)?;
            let into =
                into.clone().or_else(root::own).context("no folder for data: say --into DIR")?;
            let total = set.files.iter().map(|f| f.bytes).sum();
            let bar = progress::bar(total, "bytes", false);
            bar.set_message(set.name);
            let mut before = 0;
            let mut now = (String::new(), 0);
            let (folder, outcomes) = get(set, &into, &Http::new(), &mut |file, bytes| {
                if now.0 != file.name {
                    before += now.1;
                    now = (file.name.to_owned(), 0);
                }
                now.1 = bytes;
                bar.set_position(before + bytes);
            })?;
            bar.finish_and_clear();
            let fetched = outcomes.iter().filter(|o| **o == Outcome::Fetched).count();
            let kept = outcomes.len() - fetched;
            output::say(&format!(
                "{}: {fetched} file(s) fetched, {kept} already there",
                folder.display()
            ));
            Ok(())
        }
        Command::Verify { name } => {
            let set = sets::named(name)?;
            let folder = root::find(set.name).with_context(|| root::absent(set.name))?;
            verify(set, &folder)?;
            output::say(&format!("{}: all {} files are right", folder.display(), set.files.len()));
            Ok(())
        }
    }
}

fn list() -> Result<()> {
    for set in sets::SETS {
        let bytes: u64 = set.files.iter().map(|f| f.bytes).sum();
        let here = root::find(set.name).map_or("not here".to_owned(), |f| f.display().to_string());
        output::say(&format!(
            "{:16} {:>8.1} MB  {:12} {here}",
            set.name,
            bytes as f64 / 1e6,
            set.licence
        ));
    }
    Ok(())
}
