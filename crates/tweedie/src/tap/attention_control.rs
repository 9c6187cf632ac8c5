//! One walk's attention lent to another: self-attention as a whole, cross-attention for words that stay.
//!
//! Hertz et al., "Prompt-to-Prompt Image Editing with Cross Attention Control", 2022,
//! [arXiv:2208.01626](https://arxiv.org/abs/2208.01626), Algorithm 1 and section 3 (word swap and adding a
//! new phrase).
//!
//! Rows come in pairs, a source and another; in a step the source is evaluated before the other, or in
//! the same call. Over the first steps, and for the conditional estimate alone, the other's weights are
//! the source's while its values stay its own:
//!
//! ```text
//! self-attention    softmax(q_s k_s) v
//! cross-attention   M v,   M[.., j] = softmax(q_s k_s)[.., w(j)] where w(j) is a word, else softmax(q k)[.., j]
//! ```
//!
//! `w` says for each token of the other text which token of the source's text it stands for. The weights
//! are not made to add up to one again, as in the authors' code.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Row};
use crate::error::{Error, Result};
use crate::tap::{Choice, Entry, Feature, Features, Site, SiteKind, Tap, Verdict};

pub(crate) const CARD: Card = Card {
    id: "attention-control",
    seam: Seam::Tap,
    title: "Prompt-to-Prompt Image Editing with Cross Attention Control",
    source: "2208.01626",
    year: 2022,
    what: "lends a walk the attention of another beside it",
    aliases: &["prompt-to-prompt", "p2p"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| {
        s.read::<Settings>()?;
        let needs = "two walks side by side, given to AttentionControl::new";
        Err(Error::unsupported("attention-control", needs))
    },
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of attention control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The share of the walked steps, from the first on, in which words that stay have the source's
    /// cross-attention. The default, 0.8, is the paper's notebook's.
    pub cross: f64,
    /// The share of the walked steps in which self-attention is the source's. The default, 0.4, is the
    /// paper's notebook's.
    pub own: f64,
    /// The most tokens of a self-attention that is lent. The default, 256, is the authors': 16 by 16.
    pub tokens: usize,
    /// Paths of modules: sites with one of these paths or below it; all where the list is empty.
    pub sites: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cross: 0.8, own: 0.4, tokens: 256, sites: Vec::new() }
    }
}

/// What a source's row had at a site.
#[derive(Clone, Debug)]
struct Lent {
    step: usize,
    q: Feature,
    k: Feature,
}

/// Lends the attention of source rows to the rows that they are paired with.
#[derive(Debug)]
pub struct AttentionControl {
    settings: Settings,
    choice: Choice,
    /// The source of each other row.
    sources: BTreeMap<u64, u64>,
    words: Option<Vec<Option<usize>>>,
    /// The first step that is walked.
    first: usize,
    memory: BTreeMap<(u64, Arc<str>), Lent>,
}

impl AttentionControl {
    /// For pairs of requests, the source's first; `words` names for each token of the other text the
    /// token of the source's text that it stands for, and `first` the step that the walks begin with.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for shares outside 0 to 1.
    pub fn new(
        settings: Settings,
        pairs: Vec<(u64, u64)>,
        words: Option<Vec<Option<usize>>>,
        first: usize,
    ) -> Result<Self> {
        for (key, share) in [("cross", settings.cross), ("own", settings.own)] {
            if !(0.0..=1.0).contains(&share) {
                let why = format!("{share}, wanted 0 to 1");
                return Err(Error::setting(format!("attention-control:{key}"), why));
            }
        }
        let choice = Choice { sites: settings.sites.clone(), first: 0, last: None };
        let sources = pairs.into_iter().map(|(source, other)| (other, source)).collect();
        Ok(Self { settings, choice, sources, words, first, memory: BTreeMap::new() })
    }

    /// Whether the step is among the first of that share.
    fn is_early(&self, share: f64, row: &Row) -> bool {
        let walked = row.steps.saturating_sub(self.first) as f64;
        let done = row.step.saturating_sub(self.first) as f64;
        done < (walked * share).floor()
    }

    /// Whether this row of another walk is lent its source's attention here.
    fn lends(&self, site: &Site, row: &Row, input: &Features) -> Result<bool> {
        if row.branch != Branch::Cond || !self.sources.contains_key(&row.request) {
            return Ok(false);
        }
        let share = match site.kind {
            SiteKind::CrossAttention => self.settings.cross,
            _ if input.get("q")?.shape()[2] > self.settings.tokens => 0.0,
            _ => self.settings.own,
        };
        Ok(self.is_early(share, row))
    }

    /// What the source of this row had here at this step.
    fn lent(&self, site: &Site, row: &Row) -> Result<&Lent> {
        let lent = self.sources.get(&row.request);
        let lent = lent.and_then(|source| self.memory.get(&(*source, site.path.clone())));
        lent.filter(|lent| lent.step == row.step).ok_or_else(|| {
            let needs = format!("its source evaluated before it, at `{}`", site.path);
            Error::unsupported("attention-control", needs)
        })
    }
}

impl Tap for AttentionControl {
    fn wants(&self, site: &Site) -> bool {
        let kind = match site.kind {
            SiteKind::Attention => self.settings.own > 0.0,
            SiteKind::CrossAttention => self.settings.cross > 0.0 && self.words.is_some(),
            _ => false,
        };
        kind && self.choice.has_site(site)
    }

    fn decide(&mut self, site: &Site, rows: &[Row], input: &Features) -> Result<Vec<Verdict>> {
        for (i, row) in rows.iter().enumerate() {
            if row.branch == Branch::Cond && self.sources.values().any(|s| *s == row.request) {
                let (q, k) = (input.get("q")?.select(&[i]), input.get("k")?.select(&[i]));
                let lent = Lent { step: row.step, q, k };
                self.memory.insert((row.request, site.path.clone()), lent);
            }
        }
        let verdict = |row| match self.lends(site, row, input)? {
            true => Ok(Verdict::Supply),
            false => Ok(Verdict::Compute),
        };
        rows.iter().map(verdict).collect()
    }

    fn supply(&mut self, site: &Site, rows: &[Row], input: Features) -> Result<Features> {
        let lent = rows.iter().map(|row| self.lent(site, row)).collect::<Result<Vec<_>>>()?;
        let cat = |of: fn(&Lent) -> &Feature| -> Result<Tensor<4>> {
            let rows = lent.iter().map(|lent| of(lent).view::<4>());
            Ok(Tensor::cat(rows.collect::<Result<Vec<_>>>()?, 0))
        };
        let bias = if input.has("bias") { Some(input.get("bias")?.view::<4>()?) } else { None };
        let source = weights(cat(|l| &l.q)?, cat(|l| &l.k)?, bias.clone());
        let v: Tensor<4> = input.get("v")?.view()?;
        let (SiteKind::CrossAttention, Some(words)) = (site.kind, &self.words) else {
            return Ok(Features::hidden(source.matmul(v)));
        };
        let own = weights(input.get("q")?.view()?, input.get("k")?.view()?, bias);
        let keys = own.dims()[3];
        if words.len() != keys {
            return Err(Error::Shape {
                what: "words of attention-control".into(),
                wanted: vec![keys],
                found: vec![words.len()],
            });
        }
        let device = own.device();
        let from: Vec<i64> = words.iter().map(|w| w.unwrap_or(0) as i64).collect();
        let stays: Vec<f32> = words.iter().map(|w| f32::from(u8::from(w.is_some()))).collect();
        let from = Tensor::<1, Int>::from_data(TensorData::new(from, [keys]), &device);
        let stays = TensorData::new(stays, [1, 1, 1, keys]);
        let stays = Tensor::<4>::from_data(stays, (&device, own.dtype()));
        let mixed = source.select(3, from) * stays.clone() + own * (stays * -1.0 + 1.0);
        Ok(Features::hidden(mixed.matmul(v)))
    }

    fn reset(&mut self) {
        self.memory.clear();
    }
}

/// The weights of an attention, `[batch, heads, tokens, keys]`.
fn weights(q: Tensor<4>, k: Tensor<4>, bias: Option<Tensor<4>>) -> Tensor<4> {
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let scores = q.matmul(k.swap_dims(2, 3)) * scale;
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    activation::softmax(scores, 3)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::level::Level;

    fn row(request: u64, branch: Branch, step: usize) -> Row {
        Row { request, branch, step, steps: 10, level: Level::vp(0.5, 0.0) }
    }

    /// One head, one asking token, two keys; numbers differ by row.
    fn input(rows: &[f32]) -> Features {
        let device = Device::flex();
        let of = |f: fn(f32) -> [f32; 2], tokens: usize| {
            let data: Vec<f32> = rows.iter().flat_map(|r| f(*r)).collect();
            let shape = [rows.len(), 1, tokens, 2 / tokens];
            Tensor::<4>::from_data(TensorData::new(data, shape), &device)
        };
        let q = of(|r| [r, 0.0], 2).narrow(2, 0, 1);
        Features::new()
            .with("q", q)
            .with("k", of(|r| [r, -r], 2))
            .with("v", of(|r| [r, 2.0 * r], 2))
    }

    fn site(kind: SiteKind) -> Site {
        Site::new("net", "a", kind, 0)
    }

    fn tap(words: Option<Vec<Option<usize>>>) -> AttentionControl {
        let settings = Settings { cross: 0.5, own: 0.5, ..Settings::default() };
        AttentionControl::new(settings, vec![(1, 2)], words, 0).unwrap()
    }

    fn hidden(made: &Features) -> f32 {
        made.get("hidden").unwrap().rows().into_scalar::<f32>()
    }

    #[test]
    fn early_conditional_rows_get_the_sources_weights_and_keep_their_values() {
        let mut tap = tap(None);
        let site = site(SiteKind::Attention);
        let (source, other) = (row(1, Branch::Cond, 0), row(2, Branch::Cond, 0));
        let verdicts = tap.decide(&site, &[source, other], &input(&[1.0, 3.0])).unwrap();
        assert_eq!(verdicts, [Verdict::Compute, Verdict::Supply]);
        let found = hidden(&tap.supply(&site, &[other], input(&[3.0])).unwrap());
        let first = 1.0 / (1.0 + (-2.0_f32).exp());
        assert!((found - (first * 3.0 + (1.0 - first) * 6.0)).abs() < 1e-5, "{found}");
        for (row, wanted) in [
            (row(2, Branch::Uncond, 0), Verdict::Compute),
            (row(2, Branch::Cond, 5), Verdict::Compute),
            (row(3, Branch::Cond, 0), Verdict::Compute),
        ] {
            assert_eq!(tap.decide(&site, &[row], &input(&[3.0])).unwrap(), [wanted], "{row:?}");
        }
        // The source's last step is not this one's.
        let late = self::row(2, Branch::Cond, 1);
        assert!(tap.supply(&site, &[late], input(&[3.0])).is_err());
    }

    #[test]
    fn words_that_stay_are_lent_and_new_ones_are_not() {
        let mut tap = tap(Some(vec![Some(1), None]));
        let site = site(SiteKind::CrossAttention);
        let (source, other) = (row(1, Branch::Cond, 0), row(2, Branch::Cond, 0));
        tap.decide(&site, &[source, other], &input(&[1.0, 3.0])).unwrap();
        let found = hidden(&tap.supply(&site, &[other], input(&[3.0])).unwrap());
        let weight = |r: f32| 1.0 / (1.0 + (-2.0 * r * r).exp());
        // The first word of the new text is the second of the old.
        let wanted = (1.0 - weight(1.0)) * 3.0 + (1.0 - weight(3.0)) * 6.0;
        assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        assert!(tap.supply(&site, &[other], input(&[3.0])).is_ok());
        tap.words = Some(vec![None; 3]);
        assert!(tap.supply(&site, &[other], input(&[3.0])).is_err());
    }
}
