//! What guides by a weakened pass through the network have in common.
//!
//! ```text
//! x0 = u + weight (c - u) + scale (c - w)
//! ```
//!
//! with the estimates `c` and `u` with and without the condition and `w` under the condition of the
//! network with something at its sites made worse. With `weight = 1` nothing is asked without the
//! condition, and none is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::denoiser::{Branch, Cond, Denoiser, Pass, Row};
use crate::error::{Error, Result};
use crate::guide::cfg::both;
use crate::level::Levels;
use crate::state::State;
use crate::tap::{Features, SharedTap, Site, Tap, Verdict};

/// Two weights, and who they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weakened {
    pub(crate) part: &'static str,
    pub(crate) scale: f64,
    pub(crate) weight: f64,
}

impl Weakened {
    pub(crate) fn checked(self) -> Result<Self> {
        for (key, value) in [("scale", self.scale), ("weight", self.weight)] {
            if !value.is_finite() {
                let why = format!("{value}, wanted a finite number");
                return Err(Error::setting(format!("{}:{key}", self.part), why));
            }
        }
        Ok(self)
    }

    /// The guided estimate; `tap` makes the network worse and `sites` are where it was to act.
    pub(crate) fn x0(
        self,
        tap: impl Tap + 'static,
        sites: &[String],
        (model, cond): (&dyn Denoiser, &Cond),
        (x, at): (&State, &Levels),
        pass: &mut Pass,
    ) -> Result<State> {
        let (with, guided) = if self.weight == 1.0 {
            let with = pass.on_branch(Branch::Cond, at, |pass| model.x0(x, at, cond, pass))?;
            (with.clone(), with)
        } else {
            let (with, without) = both(self.part, model, x, at, cond, pass)?;
            (with.clone(), without.clone() + (with - without) * self.weight)
        };
        if self.scale == 0.0 {
            return Ok(guided);
        }
        // Other taps may stand before this one and leave it nothing.
        let alone = pass.taps().is_empty();
        let met = Arc::new(AtomicUsize::new(0));
        let tap = SharedTap::new(Counted { tap, met: met.clone() });
        let weak = pass.lend(tap, |pass| {
            pass.on_branch(Branch::Weak, at, |pass| model.x0(x, at, cond, pass))
        })?;
        if alone && met.load(Ordering::Relaxed) == 0 {
            let needs =
                format!("a network with such layers at the sites that are chosen: {sites:?}");
            return Err(Error::unsupported(self.part, needs));
        }
        Ok(guided + (with - weak) * self.scale)
    }
}

/// A tap that counts the sites that it met.
#[derive(Debug)]
struct Counted<T> {
    tap: T,
    met: Arc<AtomicUsize>,
}

impl<T: Tap> Tap for Counted<T> {
    fn wants(&self, site: &Site) -> bool {
        self.tap.wants(site)
    }

    fn needs_map(&self, site: &Site) -> bool {
        self.tap.needs_map(site)
    }

    fn decide(&mut self, site: &Site, rows: &[Row], input: &Features) -> Result<Vec<Verdict>> {
        self.met.fetch_add(1, Ordering::Relaxed);
        self.tap.decide(site, rows, input)
    }

    fn supply(&mut self, site: &Site, rows: &[Row], input: Features) -> Result<Features> {
        self.tap.supply(site, rows, input)
    }

    fn before(&mut self, site: &Site, rows: &[Row], input: Features) -> Result<Features> {
        self.tap.before(site, rows, input)
    }

    fn after(&mut self, site: &Site, rows: &[Row], output: Features) -> Result<Features> {
        self.tap.after(site, rows, output)
    }

    fn reset(&mut self) {
        self.tap.reset();
    }
}
