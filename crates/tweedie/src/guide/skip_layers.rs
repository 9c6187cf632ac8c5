//! Skip-layer guidance: away from the network without some of its layers.
//!
//! Hyung et al., "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling", 2024,
//! [arXiv:2411.18664](https://arxiv.org/abs/2411.18664), equation 6, with whole blocks left out.
//!
//! ```text
//! x0 = u + weight (c - u) + scale (c - w)
//! a block of w:  hidden + residual(hidden)   becomes   hidden
//! ```
//!
//! Which blocks are best left out hangs on the network, and has to be said. One evaluation more than
//! the guidance it stands beside (`weight`, 1 for none).

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::weakened::Weakened;
use crate::guide::{Entry, Guide};
use crate::level::Levels;
use crate::state::State;
use crate::tap::{Skip, skip};

pub(crate) const CARD: Card = Card {
    id: "skip-layers",
    seam: Seam::Guide,
    title: "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling",
    source: "2411.18664",
    year: 2024,
    what: "away from the network without some of its blocks",
    aliases: &["slg", "SkipLayerGuidance"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD, &crate::tap::skip::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<SkipLayers>()?.checked()?)),
    defaults: defaults_of::<SkipLayers>,
    known_failures: &[],
};

/// Skip-layer guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SkipLayers {
    /// How far away from the network without the blocks. The default, 1, is the paper's.
    pub scale: f64,
    /// The weight of classifier-free guidance beside it. The default, 1, is none.
    pub weight: f64,
    /// Paths of modules: blocks at one of these paths or below it. There is no default.
    pub sites: Vec<String>,
}

impl Default for SkipLayers {
    fn default() -> Self {
        Self { scale: 1.0, weight: 1.0, sites: Vec::new() }
    }
}

impl SkipLayers {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`]; [`Error::Unsupported`] where no block is named.
    pub fn checked(self) -> Result<Self> {
        self.weights().checked()?;
        if self.sites.is_empty() {
            return Err(Error::unsupported("skip-layers", "the names of blocks, in `sites`"));
        }
        Ok(self)
    }

    fn weights(&self) -> Weakened {
        Weakened { part: "skip-layers", scale: self.scale, weight: self.weight }
    }
}

impl Guide for SkipLayers {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let settings = skip::Settings { sites: self.sites.clone(), ..skip::Settings::default() };
        self.weights().x0(Skip::new(settings), &self.sites, (model, cond), (x, at), pass)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::testing::blocked;

    #[test]
    fn the_block_is_left_out_of_the_weak_pass() {
        // A block that doubles: 2 x, and x without it.
        let sites = vec!["blocks.0".to_owned()];
        let mut guide = SkipLayers { scale: 1.5, weight: 1.0, sites };
        assert_eq!(blocked(&mut guide, 3.0).unwrap(), 6.0 + 1.5 * 3.0);
        guide.sites = vec!["blocks.7".to_owned()];
        assert!(blocked(&mut guide, 3.0).is_err());
    }

    #[test]
    fn blocks_have_to_be_named() {
        let error = SkipLayers::default().checked().unwrap_err().to_string();
        assert!(error.contains("sites"), "{error}");
    }
}
