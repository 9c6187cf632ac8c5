//! Leaves blocks out: what comes out is the hidden state that went in.
//!
//! The weak branch of skip-layer guidance, and of the study of residual networks that it goes back
//! to: Veit, Wilber and Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow
//! Networks", 2016, [arXiv:1605.06431](https://arxiv.org/abs/1605.06431), section 4.1.
//!
//! ```text
//! hidden + residual(hidden)   becomes   hidden
//! ```
//!
//! Only a block that keeps the shape of its hidden state can be left out. The first time that a
//! block comes by it is computed once, to see whether it does; one that does not is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::Row;
use crate::error::{Error, Result};
use crate::tap::{Choice, Entry, Feature, Features, Site, SiteKind, Tap, Verdict};

pub(crate) const CARD: Card = Card {
    id: "skip",
    seam: Seam::Tap,
    title: "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
    source: "1605.06431",
    year: 2016,
    what: "leaves blocks out",
    aliases: &["skip-layers"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Skip::new(s.read()?))),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of skipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Paths of modules: sites with one of these paths or below it; all where the list is empty.
    pub sites: Vec<String>,
    /// The first step, by default 0.
    pub first: usize,
    /// The last step; the end of the run by default.
    pub last: Option<usize>,
    /// What stands at the sites that are left out. The default is blocks.
    pub kind: SiteKind,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sites: Vec::new(), first: 0, last: None, kind: SiteKind::Block }
    }
}

/// Leaves blocks out.
#[derive(Debug)]
pub struct Skip {
    choice: Choice,
    kind: SiteKind,
    /// What went into blocks that are being seen for the first time.
    pending: BTreeMap<(Arc<str>, Arc<str>), Feature>,
    /// Blocks that keep the shape of their hidden state.
    keeps: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Skip {
    /// Leaves the chosen blocks out.
    pub fn new(settings: Settings) -> Self {
        Self {
            choice: Choice { sites: settings.sites, first: settings.first, last: settings.last },
            kind: settings.kind,
            pending: BTreeMap::new(),
            keeps: BTreeSet::new(),
        }
    }
}

fn key(site: &Site) -> (Arc<str>, Arc<str>) {
    (site.network.clone(), site.path.clone())
}

impl Tap for Skip {
    fn wants(&self, site: &Site) -> bool {
        site.kind == self.kind && self.choice.has_site(site)
    }

    fn decide(&mut self, site: &Site, rows: &[Row], _input: &Features) -> Result<Vec<Verdict>> {
        let known = self.keeps.contains(&key(site));
        let verdict = |row: &Row| {
            if known && self.choice.has_step(row.step) { Verdict::Supply } else { Verdict::Compute }
        };
        Ok(rows.iter().map(verdict).collect())
    }

    fn supply(&mut self, _site: &Site, _rows: &[Row], input: Features) -> Result<Features> {
        let mut kept = Features::new();
        kept.set("hidden", input.get("hidden")?.clone());
        Ok(kept)
    }

    fn before(&mut self, site: &Site, _rows: &[Row], input: Features) -> Result<Features> {
        if !self.keeps.contains(&key(site)) {
            self.pending.insert(key(site), input.get("hidden")?.clone());
        }
        Ok(input)
    }

    fn after(&mut self, site: &Site, rows: &[Row], output: Features) -> Result<Features> {
        let Some(input) = self.pending.remove(&key(site)) else { return Ok(output) };
        let acts = |row: &Row| self.choice.has_step(row.step);
        let computed = output.get("hidden")?;
        if input.shape() != computed.shape() {
            if !rows.iter().any(acts) {
                return Ok(output);
            }
            let needs = format!("a block that keeps its shape, `{}` does not", site.path);
            return Err(Error::unsupported("skip", needs));
        }
        self.keeps.insert(key(site));
        let (left, stays): (Vec<usize>, Vec<usize>) =
            (0..rows.len()).partition(|&i| acts(&rows[i]));
        let mut kept = output.clone();
        kept.set("hidden", input);
        match (left.is_empty(), stays.is_empty()) {
            (true, _) => Ok(output),
            (_, true) => Ok(kept),
            _ => Features::merge(&stays, &output.select(&stays), &left, &kept.select(&left)),
        }
    }

    fn reset(&mut self) {
        self.pending.clear();
        self.keeps.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    use crate::denoiser::Branch;
    use crate::level::Level;

    fn features(width: usize) -> Features {
        Features::hidden(Tensor::<2>::zeros([1, width], &Device::flex()))
    }

    #[test]
    fn a_block_that_changes_its_shape_is_an_error() {
        let level = Level::vp(0.5, 0.0);
        let row = Row { request: 0, branch: Branch::Cond, step: 1, steps: 9, level };
        let site = Site::new("net", "down.0", SiteKind::Block, 0);
        for (first, fails) in [(0, true), (2, false)] {
            let mut tap = Skip::new(Settings { first, ..Settings::default() });
            let verdicts = tap.decide(&site, &[row], &features(4)).unwrap();
            assert_eq!(verdicts, [Verdict::Compute]);
            tap.before(&site, &[row], features(4)).unwrap();
            let after = tap.after(&site, &[row], features(8));
            assert_eq!(after.is_err(), fails);
            if let Err(error) = after {
                assert!(error.to_string().contains("`down.0`"), "{error}");
            }
        }
    }

    #[test]
    fn a_known_block_is_not_computed_again() {
        let level = Level::vp(0.5, 0.0);
        let row = Row { request: 0, branch: Branch::Cond, step: 1, steps: 9, level };
        let site = Site::new("net", "mid.0", SiteKind::Block, 0);
        let mut tap = Skip::new(Settings::default());
        tap.before(&site, &[row], features(4)).unwrap();
        tap.after(&site, &[row], features(4)).unwrap();
        assert_eq!(tap.decide(&site, &[row], &features(4)).unwrap(), [Verdict::Supply]);
        tap.reset();
        assert_eq!(tap.decide(&site, &[row], &features(4)).unwrap(), [Verdict::Compute]);
    }
}
