//! Perturbed-attention guidance: away from the network whose self-attention looks at nothing else.
//!
//! Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", 2024,
//! [arXiv:2403.17377](https://arxiv.org/abs/2403.17377), equations 11 to 16.
//!
//! ```text
//! x0 = u + weight (c - u) + scale (c - w)
//! attention of w:  softmax(q k^T / sqrt(d)) v   becomes   v
//! ```
//!
//! at the chosen self-attentions. It needs no condition and no training. One evaluation more than
//! the guidance it stands beside (`weight`, 1 for none).

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass, Row};
use crate::error::{Error, Result};
use crate::guide::weakened::Weakened;
use crate::guide::{Entry, Guide};
use crate::level::Levels;
use crate::state::State;
use crate::tap::{Choice, Features, Site, SiteKind, Tap, Verdict};

pub(crate) const CARD: Card = Card {
    id: "pag",
    seam: Seam::Guide,
    title: "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance",
    source: "2403.17377",
    year: 2024,
    what: "away from the network whose self-attention is the identity",
    aliases: &["perturbed-attention", "PerturbedAttentionGuidance"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Pag>()?.checked()?)),
    defaults: defaults_of::<Pag>,
    known_failures: &[],
};

/// Perturbed-attention guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pag {
    /// How far away from the perturbed network, `s` in the paper. The default, 3, is the authors'.
    pub scale: f64,
    /// The weight of classifier-free guidance beside it. The default, 1, is none.
    pub weight: f64,
    /// Paths of modules: self-attentions at one of these paths or below it; all where the list is
    /// empty. The default is the middle of a U-Net, as in the paper.
    pub sites: Vec<String>,
}

impl Default for Pag {
    fn default() -> Self {
        Self { scale: 3.0, weight: 1.0, sites: vec!["mid_block".to_owned()] }
    }
}

impl Pag {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        self.weights().checked()?;
        Ok(self)
    }

    fn weights(&self) -> Weakened {
        Weakened { part: "pag", scale: self.scale, weight: self.weight }
    }
}

/// Self-attention whose map is the identity.
#[derive(Debug)]
struct Identity(Choice);

impl Tap for Identity {
    fn wants(&self, site: &Site) -> bool {
        site.kind == SiteKind::Attention && self.0.has_site(site)
    }

    fn decide(&mut self, site: &Site, rows: &[Row], input: &Features) -> Result<Vec<Verdict>> {
        if input.get("q")?.shape()[..3] != input.get("v")?.shape()[..3] {
            let needs = format!("tokens that attend to themselves alone, unlike `{}`", site.path);
            return Err(Error::unsupported("pag", needs));
        }
        Ok(vec![Verdict::Supply; rows.len()])
    }

    fn supply(&mut self, _site: &Site, _rows: &[Row], input: Features) -> Result<Features> {
        let mut kept = Features::new();
        kept.set("hidden", input.get("v")?.clone());
        Ok(kept)
    }
}

impl Guide for Pag {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let tap = Identity(Choice { sites: self.sites.clone(), first: 0, last: None });
        self.weights().x0(tap, &self.sites, (model, cond), (x, at), pass)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::testing::{Says, attends};
    use crate::level::Level;

    #[test]
    fn the_identity_takes_the_values() {
        // Two tokens with values 1 and 3 that attend evenly: their mean is 2.
        let guide = Pag { scale: 2.0, weight: 1.0, sites: Vec::new() };
        let found = attends(&mut guide.clone(), [0.0, 0.0], [1.0, 3.0]).unwrap();
        assert!((found[0] - (2.0 + 2.0 * 1.0)).abs() < 1e-6, "{found:?}");
        assert!((found[1] - (2.0 - 2.0 * 1.0)).abs() < 1e-6, "{found:?}");
        let elsewhere = Pag { sites: vec!["up_blocks.0".to_owned()], ..guide };
        let error = attends(&mut elsewhere.clone(), [0.0, 0.0], [1.0, 3.0]).unwrap_err();
        assert!(error.to_string().contains("up_blocks.0"), "{error}");
    }

    #[test]
    fn without_a_scale_it_is_cfg() {
        use crate::guide::Cfg;
        use crate::guide::testing::ask;
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let at = Level::vp(0.5, 0.0);
        let mut guide = Pag { scale: 0.0, weight: 2.5, sites: Vec::new() };
        assert_eq!(ask(&mut guide, &model, at), ask(&mut Cfg { weight: 2.5 }, &model, at));
        assert!(Pag { scale: f64::NAN, ..Pag::default() }.checked().is_err());
    }
}
