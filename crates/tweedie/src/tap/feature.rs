//! What goes in and out of a site: a small named set of rank-erased tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::{Error, Result};

/// One tensor at a site, kept as `[batch, features]` beside its natural shape.
#[derive(Clone, Debug)]
pub struct Feature {
    rows: Tensor<2>,
    shape: Vec<usize>,
}

impl Feature {
    /// From a tensor of natural shape `[batch, ...]`.
    pub fn new<const D: usize>(x: Tensor<D>) -> Self {
        let shape = x.dims().to_vec();
        let features = shape.iter().skip(1).product();
        Self { rows: x.reshape([shape[0], features]), shape }
    }

    /// The natural shape, batch first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The tensor in its natural rank.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`].
    pub fn view<const D: usize>(&self) -> Result<Tensor<D>> {
        match <[usize; D]>::try_from(self.shape.as_slice()) {
            Ok(shape) => Ok(self.rows.clone().reshape(shape)),
            Err(_) => Err(Error::Rank { part: "feature", wanted: D, got: self.shape.len() }),
        }
    }

    /// The tensor as `[batch, features]`.
    pub fn rows(&self) -> Tensor<2> {
        self.rows.clone()
    }

    /// The same shape with `f` applied to `[batch, features]`.
    #[must_use]
    pub fn map(&self, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        Self { rows: f(self.rows.clone()), shape: self.shape.clone() }
    }

    /// The given rows.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let rows = self.rows.clone().select(0, index(rows, &self.rows.device()));
        Self { rows, shape }
    }
}

fn index(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let data: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
    Tensor::from_data(TensorData::new(data, [rows.len()]), device)
}

/// The named tensors at a site: `hidden`, `encoder`, `time`, `skip`; `q`, `k`, `v`, `bias`, `map`.
#[derive(Clone, Debug, Default)]
pub struct Features(Vec<(&'static str, Feature)>);

impl Features {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The same numbers without gradient history.
    #[must_use]
    pub fn untracked(self) -> Self {
        let plain = |f: Feature| Feature { rows: f.rows.without_autodiff(), shape: f.shape };
        Self(self.0.into_iter().map(|(name, f)| (name, plain(f))).collect())
    }

    /// The same numbers as constants on the tape where `other` is on one.
    #[must_use]
    pub fn beside(self, other: &Self) -> Self {
        if !other.0.iter().any(|(_, f)| f.rows.is_autodiff()) {
            return self;
        }
        let lifted = |f: Feature| Feature { rows: f.rows.autodiff(), shape: f.shape };
        Self(self.0.into_iter().map(|(name, f)| (name, lifted(f))).collect())
    }

    /// Just the hidden state.
    pub fn hidden<const D: usize>(x: Tensor<D>) -> Self {
        Self::new().with("hidden", x)
    }

    /// One more.
    #[must_use]
    pub fn with<const D: usize>(mut self, name: &'static str, x: Tensor<D>) -> Self {
        self.set(name, Feature::new(x));
        self
    }

    /// Puts or replaces one.
    pub fn set(&mut self, name: &'static str, feature: Feature) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = feature,
            None => self.0.push((name, feature)),
        }
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`].
    pub fn get(&self, name: &str) -> Result<&Feature> {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found.map(|(_, f)| f).ok_or_else(|| Error::unknown("feature", name, self.names()))
    }

    /// One of them in its natural rank, taken out so that nobody else holds it.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] or [`Error::Rank`].
    pub fn take<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>> {
        let Some(place) = self.0.iter().position(|(n, _)| *n == name) else {
            return Err(Error::unknown("feature", name, self.names()));
        };
        let (_, feature) = self.0.swap_remove(place);
        let rank = feature.shape.len();
        match <[usize; D]>::try_from(feature.shape.as_slice()) {
            Ok(shape) => Ok(feature.rows.reshape(shape)),
            Err(_) => Err(Error::Rank { part: "feature", wanted: D, got: rank }),
        }
    }

    /// Whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| *n == name)
    }

    /// The names, in the order in which they were put.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(n, _)| *n)
    }

    /// The given rows of each.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self(self.0.iter().map(|(n, f)| (*n, f.select(rows))).collect())
    }

    /// Stacks sets of rows one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where there is none, [`Error::Unknown`] where one lacks a feature of the
    /// first, [`Error::Shape`] where they differ in shape.
    pub fn cat(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::setting("features", "there is nothing to stack"));
        };
        let mut stacked = Self::new();
        for (name, lead) in &first.0 {
            let mut tensors = Vec::with_capacity(parts.len());
            let mut shape = lead.shape.clone();
            shape[0] = 0;
            for part in parts {
                let feature = part.get(name)?;
                if feature.shape[1..] != lead.shape[1..] {
                    return Err(Error::Shape {
                        what: format!("feature `{name}` of stacked rows"),
                        wanted: lead.shape.clone(),
                        found: feature.shape.clone(),
                    });
                }
                shape[0] += feature.shape[0];
                tensors.push(feature.rows.clone());
            }
            stacked.set(name, Feature { rows: Tensor::cat(tensors, 0), shape });
        }
        Ok(stacked)
    }

    /// Puts two disjoint sets of rows together: `a` stands at the places `at_a`, `b` at `at_b`.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] where one lacks a feature of the other, [`Error::Shape`] where they
    /// differ in shape.
    pub fn merge(at_a: &[usize], a: &Self, at_b: &[usize], b: &Self) -> Result<Self> {
        let mut order = vec![0; at_a.len() + at_b.len()];
        for (from, &to) in at_a.iter().chain(at_b).enumerate() {
            order[to] = from;
        }
        let mut merged = Self::new();
        for (name, part) in &a.0 {
            let other = b.get(name)?;
            if part.shape[1..] != other.shape[1..] {
                return Err(Error::Shape {
                    what: format!("feature `{name}` of the supplied rows"),
                    wanted: part.shape.clone(),
                    found: other.shape.clone(),
                });
            }
            let rows = Tensor::cat(vec![part.rows.clone(), other.rows.clone()], 0);
            let mut shape = part.shape.clone();
            shape[0] = order.len();
            merged.set(name, Feature { rows, shape: shape.clone() }.select(&order));
        }
        Ok(merged)
    }
}
