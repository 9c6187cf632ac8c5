//! Taps: run around a named site inside a network and record, replace, skip or edit.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Made};
use crate::denoiser::Row;
use crate::error::Result;

pub mod attention_control;
mod feature;
mod only;
pub mod record;
pub mod replace;
pub mod skip;

pub use attention_control::AttentionControl;
pub use feature::{Feature, Features};
pub use only::Only;
pub use record::{Record, Recorder};
pub use replace::Replace;
pub use skip::Skip;

/// What stands at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SiteKind {
    /// A whole residual or transformer block: `hidden`, `time` in; `hidden` out.
    Block,
    /// A self-attention after its projections: `q`, `k`, `v` (and `bias`) in, each
    /// `[batch, heads, tokens, channels]`; `hidden` out, and `map` where a tap needs it.
    Attention,
    /// A cross-attention after its projections; as [`SiteKind::Attention`].
    CrossAttention,
    /// A feed-forward network inside a block.
    Ff,
    /// A normalisation.
    Norm,
    /// Everything from this depth of a U-shaped network inward: `hidden` and the skips in,
    /// `hidden` out; leaving it out is what a deep-feature cache does.
    Span,
}

/// A named place inside a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Which network: `unet`, `transformer`, `vae` …
    pub network: Arc<str>,
    /// The path of the module, as in the file of weights: `down_blocks.0.resnets.1`.
    pub path: Arc<str>,
    /// What stands there.
    pub kind: SiteKind,
    /// Which one of its kind, counted from the input; for a span its depth.
    pub depth: usize,
}

impl Site {
    /// A site.
    pub fn new(network: &str, path: impl AsRef<str>, kind: SiteKind, depth: usize) -> Self {
        Self { network: network.into(), path: path.as_ref().into(), kind, depth }
    }
}

/// Which sites and steps a tap acts at, as its settings say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Paths of modules: a site is chosen that has one of these paths or stands below it. All sites
    /// where the list is empty.
    pub sites: Vec<String>,
    /// The first step.
    pub first: usize,
    /// The last step; the end of the run where nothing is said.
    pub last: Option<usize>,
}

impl Choice {
    /// Whether the site is chosen.
    pub fn has_site(&self, site: &Site) -> bool {
        let below = |path: &String| {
            site.path
                .strip_prefix(path.as_str())
                .is_some_and(|r| r.is_empty() || r.starts_with('.'))
        };
        self.sites.is_empty() || self.sites.iter().any(below)
    }

    /// Whether the step is chosen.
    pub fn has_step(&self, step: usize) -> bool {
        self.first <= step && self.last.is_none_or(|last| step <= last)
    }
}

/// What a tap says of a row at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The network computes this row.
    Compute,
    /// The tap supplies the result and the row is not computed.
    Supply,
}

/// Something that listens in on a network and may act, row by row.
///
/// A tap does not know which network it is in. What it remembers belongs to (request, branch,
/// site), so that branches and requests that share a call never mix.
pub trait Tap: Debug + Send {
    /// Whether it acts at this site at all.
    fn wants(&self, site: &Site) -> bool;

    /// Whether it needs the attention map of this site.
    fn needs_map(&self, _site: &Site) -> bool {
        false
    }

    /// For every row, whether the network computes it.
    ///
    /// # Errors
    ///
    /// Whatever makes the tap unable to go on.
    fn decide(&mut self, _site: &Site, rows: &[Row], _input: &Features) -> Result<Vec<Verdict>> {
        Ok(vec![Verdict::Compute; rows.len()])
    }

    /// The result for the rows that it said it supplies.
    ///
    /// # Errors
    ///
    /// Where it has nothing to supply.
    fn supply(&mut self, _site: &Site, _rows: &[Row], input: Features) -> Result<Features> {
        Ok(input)
    }

    /// Sees, and may edit, what goes into the rows that are computed.
    ///
    /// # Errors
    ///
    /// Where the features are not what it works on.
    fn before(&mut self, _site: &Site, _rows: &[Row], input: Features) -> Result<Features> {
        Ok(input)
    }

    /// Sees, and may edit, what comes out of the rows that were computed.
    ///
    /// # Errors
    ///
    /// Where the features are not what it works on.
    fn after(&mut self, _site: &Site, _rows: &[Row], output: Features) -> Result<Features> {
        Ok(output)
    }

    /// Forgets the last run.
    fn reset(&mut self) {}
}

impl Tap for Box<dyn Tap> {
    fn wants(&self, site: &Site) -> bool {
        (**self).wants(site)
    }

    fn needs_map(&self, site: &Site) -> bool {
        (**self).needs_map(site)
    }

    fn decide(&mut self, site: &Site, rows: &[Row], input: &Features) -> Result<Vec<Verdict>> {
        (**self).decide(site, rows, input)
    }

    fn supply(&mut self, site: &Site, rows: &[Row], input: Features) -> Result<Features> {
        (**self).supply(site, rows, input)
    }

    fn before(&mut self, site: &Site, rows: &[Row], input: Features) -> Result<Features> {
        (**self).before(site, rows, input)
    }

    fn after(&mut self, site: &Site, rows: &[Row], output: Features) -> Result<Features> {
        (**self).after(site, rows, output)
    }

    fn reset(&mut self) {
        (**self).reset();
    }
}

/// A tap that several passes and runs share.
#[derive(Clone, Debug)]
pub struct SharedTap(Arc<Mutex<dyn Tap>>);

impl From<Box<dyn Tap>> for SharedTap {
    /// Shares a tap that the catalogue made.
    fn from(tap: Box<dyn Tap>) -> Self {
        Self::new(tap)
    }
}

impl SharedTap {
    /// Shares a tap.
    pub fn new(tap: impl Tap + 'static) -> Self {
        Self(Arc::new(Mutex::new(tap)))
    }

    /// Shares a tap of the catalogue.
    pub fn boxed(tap: Box<dyn Tap>) -> Self {
        Self::from(tap)
    }

    /// Shares the given handle: the caller keeps a typed view of what the tap records.
    pub fn of<T: Tap + 'static>(tap: &Arc<Mutex<T>>) -> Self {
        let tap: Arc<Mutex<dyn Tap>> = tap.clone();
        Self(tap)
    }

    /// The tap itself; a panic elsewhere while it was held does not poison it.
    pub fn lock(&self) -> MutexGuard<'_, dyn Tap + 'static> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tap of the catalogue.
pub type Entry = Made<dyn Tap>;

/// Every tap.
pub(crate) const ENTRIES: &[Entry] =
    &[attention_control::ENTRY, record::ENTRY, replace::ENTRY, skip::ENTRY];

/// Every tap of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}
