//! Keeps what comes out of sites.
//!
//! The mechanism behind feature and attention injection (Hertz et al., "Prompt-to-Prompt Image
//! Editing with Cross Attention Control", 2022, [arXiv:2208.01626](https://arxiv.org/abs/2208.01626);
//! Tumanyan et al., "Plug-and-Play Diffusion Features", 2022): a first run is recorded, a second one
//! gets parts of it ([`crate::tap::Replace`]).
//!
//! Outputs are kept by (request, branch, network, path, step, visit); the visit counts the
//! evaluations of a step, of which Heun's method has two. The record is shared: keep a clone of it
//! to read what the tap has seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Row};
use crate::error::Result;
use crate::tap::{Choice, Entry, Features, Site, Tap};

pub(crate) const CARD: Card = Card {
    id: "record",
    seam: Seam::Tap,
    title: "Prompt-to-Prompt Image Editing with Cross Attention Control",
    source: "2208.01626",
    year: 2022,
    what: "keeps what comes out of sites",
    aliases: &[],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Recorder::new(s.read()?, &Record::default()))),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// Where something was recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which sample of which run.
    pub request: u64,
    /// Which evaluation of the step.
    pub branch: Branch,
    /// The network.
    pub network: Arc<str>,
    /// The site's path.
    pub path: Arc<str>,
    /// The step.
    pub step: usize,
    /// Which evaluation within the step, from 0.
    pub visit: usize,
}

/// A row of one branch at a site: request, branch, network, path.
type Visitor = (u64, Branch, Arc<str>, Arc<str>);

/// Counts the visits of each row to each site within a step: the step and the last visit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visits(BTreeMap<Visitor, (usize, usize)>);

impl Visits {
    /// The place of a row that comes by now.
    pub(crate) fn next(&mut self, site: &Site, row: &Row) -> Place {
        let key = (row.request, row.branch, site.network.clone(), site.path.clone());
        let visit = match self.0.get(&key) {
            Some((step, visit)) if *step == row.step => visit + 1,
            _ => 0,
        };
        self.0.insert(key, (row.step, visit));
        Place {
            request: row.request,
            branch: row.branch,
            network: site.network.clone(),
            path: site.path.clone(),
            step: row.step,
            visit,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What was recorded: a row each. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<BTreeMap<Place, Features>>>);

impl Record {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Features>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The features of one row at a place.
    pub fn get(&self, place: &Place) -> Option<Features> {
        self.lock().get(place).cloned()
    }

    /// Every place, in order.
    pub fn places(&self) -> Vec<Place> {
        self.lock().keys().cloned().collect()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }
}

/// The settings of the recorder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Paths of modules: sites with one of these paths or below it; all where the list is empty.
    pub sites: Vec<String>,
    /// The first step, by default 0.
    pub first: usize,
    /// The last step; the end of the run by default.
    pub last: Option<usize>,
}

/// Keeps what comes out of sites.
#[derive(Debug)]
pub struct Recorder {
    choice: Choice,
    record: Record,
    visits: Visits,
}

impl Recorder {
    /// Records into `record`.
    pub fn new(settings: Settings, record: &Record) -> Self {
        let choice = Choice { sites: settings.sites, first: settings.first, last: settings.last };
        Self { choice, record: record.clone(), visits: Visits::default() }
    }
}

impl Tap for Recorder {
    fn wants(&self, site: &Site) -> bool {
        self.choice.has_site(site)
    }

    fn after(&mut self, site: &Site, rows: &[Row], output: Features) -> Result<Features> {
        let mut record = self.record.lock();
        for (i, row) in rows.iter().enumerate() {
            let place = self.visits.next(site, row);
            if self.choice.has_step(row.step) {
                // A tape that is kept would be run twice, and holds all that it was made of.
                record.insert(place, output.select(&[i]).untracked());
            }
        }
        Ok(output)
    }

    fn reset(&mut self) {
        self.visits.clear();
        self.record.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    use crate::level::Level;
    use crate::tap::SiteKind;

    fn row(step: usize) -> Row {
        let level = Level::vp(0.5, 0.0);
        Row { request: 7, branch: Branch::Cond, step, steps: 9, level }
    }

    fn features(x: f64) -> Features {
        Features::hidden(Tensor::<2>::from_floats([[x]], &Device::flex()))
    }

    fn site() -> Site {
        Site::new("net", "blocks.1", SiteKind::Block, 1)
    }

    #[test]
    fn visits_count_within_a_step_and_start_again() {
        let record = Record::default();
        let mut tap = Recorder::new(Settings { first: 1, ..Settings::default() }, &record);
        for (step, x) in [(0, 1.0), (1, 2.0), (1, 3.0), (2, 4.0)] {
            tap.after(&site(), &[row(step)], features(x)).unwrap();
        }
        let seen: Vec<_> = record.places().iter().map(|p| (p.step, p.visit)).collect();
        assert_eq!(seen, [(1, 0), (1, 1), (2, 0)]);
        tap.reset();
        assert!(record.places().is_empty());
    }
}
