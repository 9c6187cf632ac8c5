//! Smoothed energy guidance: away from the network whose queries are blurred.
//!
//! Hong, "Smoothed Energy Guidance: Guiding Diffusion Models with Reduced Energy Curvature of
//! Attention", 2024, [arXiv:2408.00760](https://arxiv.org/abs/2408.00760), section 4 and Algorithm 1.
//!
//! ```text
//! x0 = u + weight (c - u) + scale (c - w)
//! attention of w:  softmax(q' k^T / sqrt(d)) v        q' = q blurred over the tokens' grid
//! ```
//!
//! at the chosen self-attentions. Blurring the queries flattens the curve of the energy that the
//! attention goes down; without a limit of the blur each query is the mean of all. A blur of a given
//! width is Gaussian over a square grid of tokens, reflected at its edges.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass, Row};
use crate::error::{Error, Result};
use crate::guide::weakened::Weakened;
use crate::guide::{Entry, Guide};
use crate::level::Levels;
use crate::state::State;
use crate::tap::{Choice, Feature, Features, Site, SiteKind, Tap};

pub(crate) const CARD: Card = Card {
    id: "seg",
    seam: Seam::Guide,
    title: "Smoothed Energy Guidance: Guiding Diffusion Models with Reduced Energy Curvature of Attention",
    source: "2408.00760",
    year: 2024,
    what: "away from the network whose queries are blurred",
    aliases: &["smoothed-energy", "SmoothedEnergyGuidance"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Seg>()?.checked()?)),
    defaults: defaults_of::<Seg>,
    known_failures: &[],
};

/// Smoothed energy guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seg {
    /// How far away from the blurred network, `gamma` in the paper. The default, 3, is the paper's.
    pub scale: f64,
    /// The weight of classifier-free guidance beside it. The default, 1, is none.
    pub weight: f64,
    /// The standard deviation of the blur in tokens. The default, none, is without limit, which the
    /// paper finds best.
    pub blur: Option<f64>,
    /// Paths of modules: self-attentions at one of these paths or below it; all where the list is
    /// empty. The default is the middle of a U-Net, as in the paper.
    pub sites: Vec<String>,
}

impl Default for Seg {
    fn default() -> Self {
        Self { scale: 3.0, weight: 1.0, blur: None, sites: vec!["mid_block".to_owned()] }
    }
}

impl Seg {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        self.weights().checked()?;
        match self.blur {
            Some(blur) if !(blur > 0.0 && blur.is_finite()) => {
                Err(Error::setting("seg:blur", format!("{blur}, wanted more than 0, finite")))
            }
            _ => Ok(self),
        }
    }

    fn weights(&self) -> Weakened {
        Weakened { part: "seg", scale: self.scale, weight: self.weight }
    }
}

/// Self-attention with blurred queries.
#[derive(Debug)]
struct Blurred {
    choice: Choice,
    blur: Option<f64>,
}

impl Tap for Blurred {
    fn wants(&self, site: &Site) -> bool {
        site.kind == SiteKind::Attention && self.choice.has_site(site)
    }

    fn before(&mut self, site: &Site, _rows: &[Row], mut input: Features) -> Result<Features> {
        let q = input.get("q")?.view::<4>()?;
        let [_, _, tokens, _] = q.dims();
        let blurred = match self.blur {
            None => q.clone().mean_dim(2).expand(q.dims()),
            Some(blur) => {
                let side = (1..=tokens).find(|s| s * s >= tokens).unwrap_or(1);
                if side * side != tokens {
                    let needs = format!("a square of tokens, `{}` has {tokens}", site.path);
                    return Err(Error::unsupported("seg:blur", needs));
                }
                let line = kernel(side, blur);
                let weight = |a: usize, b: usize| {
                    // Along the rows of the grid and along its columns.
                    let (row, column) = (a % side, b % side);
                    let (a, b) = ((a - row) / side, (b - column) / side);
                    line[a * side + b] * line[row * side + column]
                };
                let data = (0..tokens * tokens).map(|i| {
                    let b = i % tokens;
                    weight((i - b) / tokens, b)
                });
                let data = TensorData::new(data.collect::<Vec<f64>>(), [1, 1, tokens, tokens]);
                let [batch, heads, ..] = q.dims();
                let matrix = Tensor::<4>::from_data(data, (&q.device(), q.dtype()));
                matrix.expand([batch, heads, tokens, tokens]).matmul(q)
            }
        };
        input.set("q", Feature::new(blurred));
        Ok(input)
    }
}

/// A Gaussian blur of a line of `side` points, reflected at its ends: `side` rows of weights.
fn kernel(side: usize, blur: f64) -> Vec<f64> {
    let reach = ((3.0 * blur).ceil() as usize).min(side.saturating_sub(1)) as i64;
    let weight = |d: i64| (-0.5 * (d as f64 / blur).powi(2)).exp();
    let sum: f64 = (-reach..=reach).map(weight).sum();
    let last = side as i64 - 1;
    let mut rows = vec![0.0; side * side];
    for at in 0..=last {
        for d in -reach..=reach {
            let from = (at + d).abs();
            let from = if from > last { 2 * last - from } else { from };
            rows[at as usize * side + from.max(0) as usize] += weight(d) / sum;
        }
    }
    rows
}

impl Guide for Seg {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let choice = Choice { sites: self.sites.clone(), first: 0, last: None };
        let tap = Blurred { choice, blur: self.blur };
        self.weights().x0(tap, &self.sites, (model, cond), (x, at), pass)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::testing::attends;

    #[test]
    fn without_a_limit_every_query_is_the_mean() {
        // Queries 0 and 2 over keys of -1 and 1 and values 1 and 3; one channel, so no scaling.
        let share = |q: f64| 1.0 / (1.0 + (-2.0 * q).exp());
        let value = |q: f64| 1.0 + 2.0 * share(q);
        let mut guide = Seg { scale: 2.0, weight: 1.0, blur: None, sites: Vec::new() };
        let found = attends(&mut guide, [0.0, 2.0], [1.0, 3.0]).unwrap();
        for (found, q) in found.iter().zip([0.0, 2.0]) {
            let wanted = value(q) + 2.0 * (value(q) - value(1.0));
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
        guide.blur = Some(1.0);
        let error = attends(&mut guide, [0.0, 2.0], [1.0, 3.0]).unwrap_err();
        assert!(error.to_string().contains("square"), "{error}");
    }

    #[test]
    fn a_blur_keeps_the_sum_and_is_reflected() {
        let rows = kernel(5, 0.8);
        for row in rows.chunks(5) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-14);
        }
        // At the end both neighbours are the same point.
        let ratio = rows[1] / rows[0];
        assert!((ratio - 2.0 * (-0.5 / 0.64_f64).exp()).abs() < 1e-12, "{ratio}");
        assert!(Seg { blur: Some(0.0), ..Seg::default() }.checked().is_err());
    }
}
