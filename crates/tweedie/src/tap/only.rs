//! A tap that acts for some requests of a call and leaves the others alone.

use std::collections::BTreeSet;

use crate::denoiser::Row;
use crate::error::Result;
use crate::tap::{Features, SharedTap, Site, Tap, Verdict};

/// A tap that acts for some requests of a call and leaves the others alone: what keeps runs apart
/// that share a call and have taps of their own.
#[derive(Debug)]
pub struct Only {
    requests: BTreeSet<u64>,
    tap: SharedTap,
}

impl Only {
    /// Lets `tap` act on the rows of these requests.
    pub fn new(requests: impl IntoIterator<Item = u64>, tap: SharedTap) -> Self {
        Self { requests: requests.into_iter().collect(), tap }
    }

    /// The places of its own rows, and of the others.
    fn split(&self, rows: &[Row]) -> (Vec<usize>, Vec<usize>) {
        (0..rows.len()).partition(|&i| self.requests.contains(&rows[i].request))
    }

    /// Runs `edit` on its own rows and puts the others back unchanged.
    fn own(
        &self,
        rows: &[Row],
        all: Features,
        edit: impl FnOnce(&[Row], Features) -> Result<Features>,
    ) -> Result<Features> {
        let (own, other) = self.split(rows);
        if own.is_empty() {
            return Ok(all);
        }
        let mine: Vec<Row> = own.iter().map(|&i| rows[i]).collect();
        if other.is_empty() {
            return edit(&mine, all);
        }
        let edited = edit(&mine, all.select(&own))?;
        Features::merge(&own, &edited, &other, &all.select(&other))
    }
}

impl Tap for Only {
    fn wants(&self, site: &Site) -> bool {
        self.tap.lock().wants(site)
    }

    fn needs_map(&self, site: &Site) -> bool {
        self.tap.lock().needs_map(site)
    }

    fn decide(&mut self, site: &Site, rows: &[Row], input: &Features) -> Result<Vec<Verdict>> {
        let (own, _) = self.split(rows);
        let mut verdicts = vec![Verdict::Compute; rows.len()];
        if !own.is_empty() {
            let mine: Vec<Row> = own.iter().map(|&i| rows[i]).collect();
            let said = self.tap.lock().decide(site, &mine, &input.select(&own))?;
            own.iter().zip(said).for_each(|(&place, verdict)| verdicts[place] = verdict);
        }
        Ok(verdicts)
    }

    fn supply(&mut self, site: &Site, rows: &[Row], input: Features) -> Result<Features> {
        // Only its own rows were said to be supplied.
        self.tap.lock().supply(site, rows, input)
    }

    fn before(&mut self, site: &Site, rows: &[Row], input: Features) -> Result<Features> {
        self.own(rows, input, |rows, input| self.tap.lock().before(site, rows, input))
    }

    fn after(&mut self, site: &Site, rows: &[Row], output: Features) -> Result<Features> {
        self.own(rows, output, |rows, output| self.tap.lock().after(site, rows, output))
    }

    fn reset(&mut self) {
        self.tap.lock().reset();
    }
}
