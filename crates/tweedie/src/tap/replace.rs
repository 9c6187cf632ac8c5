//! Puts recorded features in the place of computed ones.
//!
//! Hertz et al., "Prompt-to-Prompt Image Editing with Cross Attention Control", 2022,
//! [arXiv:2208.01626](https://arxiv.org/abs/2208.01626), Algorithm 1: features of one run are
//! injected into another over a range of steps. See [`crate::tap::record`] for how they are kept.
//!
//! A chosen row is not computed. Each row gets what was recorded for its own request, or for one
//! request that stands for all ([`Replace::from_request`]). A site or step that the record does not
//! hold is an error, not a silent computation.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::Row;
use crate::error::{Error, Result};
use crate::tap::record::{Place, Visits};
use crate::tap::{Choice, Entry, Features, Record, Site, Tap, Verdict};

pub(crate) const CARD: Card = Card {
    id: "replace",
    seam: Seam::Tap,
    title: "Prompt-to-Prompt Image Editing with Cross Attention Control",
    source: "2208.01626",
    year: 2022,
    what: "puts recorded features in the place of computed ones",
    aliases: &[],
    ledger: "",
    parts: &[&crate::tap::record::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| {
        s.read::<Settings>()?;
        let needs = "a record of another run, given to Replace::new";
        Err(Error::unsupported("replace", needs))
    },
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of the replacement.
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

/// Puts recorded features in the place of computed ones.
#[derive(Debug)]
pub struct Replace {
    choice: Choice,
    record: Record,
    request: Option<u64>,
    visits: Visits,
    places: Vec<Option<Place>>,
}

impl Replace {
    /// Replaces by what `record` holds for the same request.
    pub fn new(settings: Settings, record: &Record) -> Self {
        let choice = Choice { sites: settings.sites, first: settings.first, last: settings.last };
        let (record, visits) = (record.clone(), Visits::default());
        Self { choice, record, request: None, visits, places: Vec::new() }
    }

    /// The same for every request: what `record` holds for this one.
    #[must_use]
    pub fn from_request(mut self, request: u64) -> Self {
        self.request = Some(request);
        self
    }
}

impl Tap for Replace {
    fn wants(&self, site: &Site) -> bool {
        self.choice.has_site(site)
    }

    fn decide(&mut self, site: &Site, rows: &[Row], _input: &Features) -> Result<Vec<Verdict>> {
        self.places.clear();
        for row in rows {
            let mut place = self.visits.next(site, row);
            place.request = self.request.unwrap_or(place.request);
            self.places.push(self.choice.has_step(row.step).then_some(place));
        }
        let verdict = |p: &Option<Place>| match p {
            Some(_) => Verdict::Supply,
            None => Verdict::Compute,
        };
        Ok(self.places.iter().map(verdict).collect())
    }

    fn supply(&mut self, _site: &Site, _rows: &[Row], input: Features) -> Result<Features> {
        // `decide` has just named the places of these rows, in this order.
        let parts = self.places.drain(..).flatten().map(|place| {
            self.record.get(&place).ok_or_else(|| {
                let needs = format!(
                    "a record of `{}` at step {} for request {}",
                    place.path, place.step, place.request
                );
                Error::unsupported("replace", needs)
            })
        });
        Ok(Features::cat(&parts.collect::<Result<Vec<_>>>()?)?.beside(&input))
    }

    fn reset(&mut self) {
        self.visits.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    use crate::denoiser::Branch;
    use crate::level::Level;
    use crate::tap::{Recorder, SiteKind};

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
    fn a_row_gets_its_own_and_a_missing_one_is_named() {
        let record = Record::default();
        let settings = crate::tap::record::Settings::default();
        let mut recorder = Recorder::new(settings, &record);
        recorder.after(&site(), &[row(3)], features(5.0)).unwrap();
        let mut tap = Replace::new(Settings::default(), &record);
        let mut ask = |step| {
            let verdicts = tap.decide(&site(), &[row(step)], &features(1.0)).unwrap();
            assert_eq!(verdicts, [Verdict::Supply]);
            tap.supply(&site(), &[row(step)], features(1.0))
        };
        let given = ask(3).unwrap().get("hidden").unwrap().rows().into_scalar::<f32>();
        assert_eq!(given, 5.0);
        let error = ask(4).unwrap_err().to_string();
        assert!(error.contains("`blocks.1` at step 4 for request 7"), "{error}");
    }
}
