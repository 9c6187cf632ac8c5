//! Denoisers: state, level and condition in, estimate of the clean sample out.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::reward::Reward;
use crate::state::State;

mod asks;
mod batched;
mod branches;
mod memo;
mod network;
mod pass;

pub use asks::{AskedClass, AskedSizes, Asks, field};
pub use batched::{Batched, Seat};
pub use branches::evaluate_branches;
pub use memo::Memo;
pub use network::{Network, NetworkDenoiser, Scaling, TimeCode, Times};
pub use pass::{Branch, Cost, Pass, Row, SecondOf};

/// A network that says what the clean sample was.
pub trait Denoiser: Send + Sync {
    /// The expected clean sample, `E[x0 | x_t]`, row by row.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] or [`Error::Shape`] where the state does not fit the network;
    /// [`Error::Unsupported`] where the condition or the levels ask for what it lacks.
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State>;

    /// Where a network that is told its goal says `x` goes; `None` where it cannot be told.
    ///
    /// # Errors
    ///
    /// As [`Denoiser::x0`].
    fn jump(
        &self,
        _x: &State,
        _from: Level,
        _to: Level,
        _cond: &Cond,
        _pass: &mut Pass,
    ) -> Result<Option<State>> {
        Ok(None)
    }

    /// Whether it was taught guidance and looks at the weight that a condition tells it
    /// ([`Cond::guidance`]).
    fn is_told_guidance(&self) -> bool {
        false
    }

    /// The denoiser inside the guides around it, for guides that step aside.
    fn unguided(&self) -> Option<&dyn Denoiser> {
        None
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        (**self).x0(x, at, cond, pass)
    }

    fn jump(
        &self,
        x: &State,
        from: Level,
        to: Level,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<Option<State>> {
        (**self).jump(x, from, to, cond, pass)
    }

    fn is_told_guidance(&self) -> bool {
        (**self).is_told_guidance()
    }

    fn unguided(&self) -> Option<&dyn Denoiser> {
        (**self).unguided()
    }
}

/// What the sample should be of; every entry has the batch first.
#[derive(Clone, Debug, Default)]
pub struct Cond {
    /// A class a row, where the model has classes.
    pub class: Option<Arc<[i64]>>,
    /// Embedded tokens `[batch, tokens, channels]`, such as a text encoder's output.
    pub context: Option<Tensor<3>>,
    /// Which tokens of the context count, `[batch, tokens]`: 1 or 0.
    pub context_mask: Option<Tensor<2>>,
    /// A pooled embedding `[batch, channels]`, such as that of a whole text.
    pub vector: Option<Tensor<2>>,
    /// The guidance weight that a guidance-distilled network is told, a row.
    pub guidance: Option<Arc<[f64]>>,
    /// The other endpoint of a bridge or residual process.
    pub endpoint: Option<State>,
    /// Anything else a network asks for by name ([`field`]): sizes, channels beside the state, a
    /// control picture.
    pub fields: BTreeMap<Arc<str>, State>,
    /// What the sample is to score high in, for guides and searches; no network sees it.
    pub reward: Option<Arc<dyn Reward>>,
    /// What the sample should not be of; the branch without a condition where this is empty.
    pub negative: Option<Box<Cond>>,
}

impl Cond {
    /// A class a row.
    pub fn of_class(class: impl Into<Arc<[i64]>>) -> Self {
        Self { class: Some(class.into()), ..Self::default() }
    }

    /// The condition of the unconditional branch: the negative one, else none at all; the other
    /// endpoint and named fields stay.
    #[must_use]
    pub fn unconditional(&self) -> Self {
        match &self.negative {
            Some(negative) => Self { reward: self.reward.clone(), ..(**negative).clone() },
            None => Self {
                reward: self.reward.clone(),
                endpoint: self.endpoint.clone(),
                fields: self.fields.clone(),
                ..Self::default()
            },
        }
    }

    /// The given rows, the negative condition's too.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let of = |v: &Arc<[i64]>| rows.iter().map(|&r| v[r]).collect();
        let index = |x: &burn::tensor::Device| {
            let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), x)
        };
        Self {
            class: self.class.as_ref().map(of),
            context: self.context.as_ref().map(|t| t.clone().select(0, index(&t.device()))),
            context_mask: self
                .context_mask
                .as_ref()
                .map(|t| t.clone().select(0, index(&t.device()))),
            vector: self.vector.as_ref().map(|t| t.clone().select(0, index(&t.device()))),
            guidance: self.guidance.as_ref().map(|v| rows.iter().map(|&r| v[r]).collect()),
            endpoint: self.endpoint.as_ref().map(|s| s.select(rows)),
            fields: self.fields.iter().map(|(k, s)| (k.clone(), s.select(rows))).collect(),
            reward: self.reward.as_ref().map(|r| r.select(rows)),
            negative: self.negative.as_ref().map(|n| Box::new(n.select(rows))),
        }
    }

    /// Stacks conditions of the same kind along the batch; negatives and rewards are left behind.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where one has an entry that another lacks, or of another shape.
    pub fn cat(conds: &[&Cond]) -> Result<Self> {
        let mixed = |what: &str| {
            Error::unsupported(
                "stacking conditions",
                format!("{what} in all or none of them, of one shape"),
            )
        };
        let count = conds.len();
        let all = |present: usize, what: &str| match present {
            0 => Ok(false),
            n if n == count => Ok(true),
            _ => Err(mixed(what)),
        };
        let classes: Vec<_> = conds.iter().filter_map(|c| c.class.as_ref()).collect();
        let contexts: Vec<_> = conds.iter().filter_map(|c| c.context.clone()).collect();
        let masks: Vec<_> = conds.iter().filter_map(|c| c.context_mask.clone()).collect();
        let vectors: Vec<_> = conds.iter().filter_map(|c| c.vector.clone()).collect();
        let guidances: Vec<_> = conds.iter().filter_map(|c| c.guidance.as_ref()).collect();
        let endpoints: Vec<_> = conds.iter().filter_map(|c| c.endpoint.clone()).collect();
        if contexts.windows(2).any(|w| w[0].dims()[1..] != w[1].dims()[1..]) {
            return Err(mixed("a context"));
        }
        let mut fields = BTreeMap::new();
        for name in conds.iter().flat_map(|c| c.fields.keys()) {
            let parts: Vec<State> =
                conds.iter().filter_map(|c| c.fields.get(name).cloned()).collect();
            if all(parts.len(), name)? && !fields.contains_key(name) {
                fields.insert(name.clone(), State::cat(&parts)?);
            }
        }
        Ok(Self {
            class: all(classes.len(), "a class")?
                .then(|| classes.iter().flat_map(|c| c.iter().copied()).collect()),
            context: all(contexts.len(), "a context")?.then(|| Tensor::cat(contexts, 0)),
            context_mask: all(masks.len(), "a context mask")?.then(|| Tensor::cat(masks, 0)),
            vector: all(vectors.len(), "a vector")?.then(|| Tensor::cat(vectors, 0)),
            guidance: all(guidances.len(), "a guidance weight")?
                .then(|| guidances.iter().flat_map(|c| c.iter().copied()).collect()),
            endpoint: if all(endpoints.len(), "an endpoint")? {
                Some(State::cat(&endpoints)?)
            } else {
                None
            },
            fields,
            reward: None,
            negative: None,
        })
    }
}
