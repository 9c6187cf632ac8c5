//! `tweedie methods`.

use anyhow::Result;
use serde_json::{Value, json};
use tweedie::catalog::{Card, Made, Seam};
use tweedie::{edit, grid, guide, process, reward, sampler, search, tap, tune};

use crate::output;

/// List the methods that can be combined, with their settings.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show one method, or the methods of one seam: process, grid, sampler, guide, tap, reward,
    /// search, edit, tune.
    name: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

struct Row {
    card: &'static Card,
    defaults: Value,
}

fn rows() -> Vec<Row> {
    fn of<T: ?Sized>(entries: &'static [Made<T>]) -> impl Iterator<Item = Row> {
        entries.iter().map(|e| Row { card: e.card, defaults: (e.defaults)() })
    }
    of(process::entries())
        .chain(of(grid::entries()))
        .chain(of(sampler::entries()))
        .chain(of(guide::entries()))
        .chain(of(tap::entries()))
        .chain(of(edit::entries()))
        .chain(of(tune::entries()))
        .chain(of(reward::entries()))
        .chain(of(search::entries()))
        .collect()
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut rows = rows();
    if let Some(name) = &args.name {
        let known: Vec<&str> =
            Seam::ALL.iter().map(|s| s.name()).chain(rows.iter().map(|r| r.card.id)).collect();
        let same = |other: &str| other.eq_ignore_ascii_case(name);
        let hit = |r: &Row| {
            same(r.card.seam.name()) || same(r.card.id) || r.card.aliases.iter().any(|a| same(a))
        };
        if !rows.iter().any(hit) {
            return Err(tweedie::Error::unknown("method or seam", name, known).into());
        }
        rows.retain(hit);
    }
    if args.json {
        let list: Vec<Value> =
            rows.iter().map(|r| json!({ "card": r.card, "settings": r.defaults })).collect();
        output::say(&serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    for seam in Seam::ALL {
        let of: Vec<&Row> = rows.iter().filter(|r| r.card.seam == seam).collect();
        if of.is_empty() {
            continue;
        }
        output::say(&format!("{}:", seam.name()));
        for row in of {
            output::say(&format!("  {:18} {} ({})", row.card.id, row.card.what, row.card.year));
            if args.name.is_some() {
                output::say(&format!("  {:18} {}, {}", "", row.card.title, row.card.source));
            }
            if !row.card.aliases.is_empty() {
                output::say(&format!("  {:18} also: {}", "", row.card.aliases.join(", ")));
            }
            if let Value::Object(settings) = &row.defaults
                && !settings.is_empty()
            {
                let list: Vec<String> = settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
                output::say(&format!("  {:18} settings: {}", "", list.join(", ")));
            }
        }
    }
    Ok(())
}
