//! One point on the path from data to noise, in every coordinate at once.

use std::sync::Arc;

use crate::error::{Error, Result};

/// One point on the path: `x_t = alpha x0 + anchor y + sigma eps`.
///
/// `anchor` is 0 for diffusions and flows; bridges and residual processes end at `y`. Every other
/// coordinate (the log signal-to-noise ratio, EDM's sigma) follows from the pair, so that nothing
/// is infinite at pure noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Time: 0 at the data, 1 at the noise.
    pub t: f64,
    /// The coefficient of the clean sample.
    pub alpha: f64,
    /// The coefficient of the other endpoint.
    pub anchor: f64,
    /// The coefficient of the noise.
    pub sigma: f64,
}

impl Level {
    /// A level without a second endpoint.
    pub const fn new(t: f64, alpha: f64, sigma: f64) -> Self {
        Self { t, alpha, anchor: 0.0, sigma }
    }

    /// The data's own level: `alpha = 1`, `sigma = 0`.
    pub const CLEAN: Self = Self::new(0.0, 1.0, 0.0);

    /// The variance-preserving level (`alpha^2 + sigma^2 = 1`) with this `lambda`, infinite or not.
    pub fn vp(t: f64, lambda: f64) -> Self {
        // Each share from its own logistic function: `1 - alpha^2` would lose the small one.
        let share = |lambda: f64| (1.0 / (1.0 + (-2.0 * lambda).exp())).sqrt();
        Self::new(t, share(lambda), share(-lambda))
    }

    /// Half the log signal-to-noise ratio, `ln(alpha / sigma)`; infinite at either end.
    pub fn lambda(self) -> f64 {
        (self.alpha / self.sigma).ln()
    }

    /// EDM's noise level, `sigma / alpha`; infinite at pure noise.
    pub fn sigma_edm(self) -> f64 {
        self.sigma / self.alpha
    }

    /// DDPM's `alpha_bar`, `alpha^2`; only for file formats that speak of it.
    pub fn alpha_bar(self) -> f64 {
        self.alpha * self.alpha
    }

    /// Whether all four numbers are finite.
    pub fn is_finite(self) -> bool {
        [self.t, self.alpha, self.anchor, self.sigma].iter().all(|v| v.is_finite())
    }
}

/// The levels of a batch: one for all, one a row, one a position, or one of these for each field.
///
/// Samplers step with one [`Level`]; the denoiser takes `Levels`, so that rows of different runs
/// share a call and frames or tokens may each have a level of their own.
#[derive(Clone, Debug, PartialEq)]
pub enum Levels {
    /// Every row at the same level.
    One(Level),
    /// One level a row.
    Rows(Arc<[Level]>),
    /// One level for each position of an axis (frame, token), row-major `[batch, positions]`.
    Positions {
        /// `batch * positions` levels.
        levels: Arc<[Level]>,
        /// Positions in a row.
        positions: usize,
        /// The axis of the natural shape that the positions run along; the batch is axis 0.
        axis: usize,
    },
    /// Levels for named fields; the first stands for fields that are not named.
    Fields(Arc<[(Arc<str>, Levels)]>),
}

impl From<Level> for Levels {
    fn from(level: Level) -> Self {
        Self::One(level)
    }
}

impl Levels {
    /// One level a row.
    pub fn rows(levels: impl Into<Arc<[Level]>>) -> Self {
        Self::Rows(levels.into())
    }

    /// One level for each position along `axis` of the natural shape.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the rows differ in length, [`Error::Setting`] for the batch axis.
    pub fn positions(rows: &[Vec<Level>], axis: usize) -> Result<Self> {
        let positions = rows.first().map_or(0, Vec::len);
        if axis == 0 || positions == 0 {
            return Err(Error::setting("levels", "positions run along an axis after the batch"));
        }
        if let Some(odd) = rows.iter().find(|r| r.len() != positions) {
            return Err(Error::Shape {
                what: "levels of a row".into(),
                wanted: vec![positions],
                found: vec![odd.len()],
            });
        }
        Ok(Self::Positions { levels: rows.concat().into(), positions, axis })
    }

    /// Levels of named fields.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where there is none.
    pub fn fields(fields: impl IntoIterator<Item = (&'static str, Levels)>) -> Result<Self> {
        let fields: Vec<_> = fields.into_iter().map(|(n, l)| (Arc::from(n), l)).collect();
        if fields.is_empty() {
            return Err(Error::setting("levels", "a state needs the level of at least one field"));
        }
        Ok(Self::Fields(fields.into()))
    }

    /// The levels of one field.
    pub fn of_field(&self, name: &str) -> &Levels {
        match self {
            Self::Fields(fields) => {
                let found = fields.iter().find(|(n, _)| &**n == name);
                &found.unwrap_or(&fields[0]).1
            }
            other => other,
        }
    }

    /// The level of a row; of its first position or field where it has several.
    pub fn row(&self, row: usize) -> Level {
        match self {
            Self::One(level) => *level,
            Self::Rows(levels) => levels[row],
            Self::Positions { levels, positions, .. } => levels[row * positions],
            Self::Fields(fields) => fields[0].1.row(row),
        }
    }

    /// The one level of the whole batch, where there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where rows or positions differ.
    pub fn single(&self, part: &str) -> Result<Level> {
        match self {
            Self::One(level) => Ok(*level),
            Self::Rows(levels) if levels.iter().all(|l| *l == levels[0]) => Ok(levels[0]),
            _ => Err(Error::unsupported(part, "one level for the whole batch")),
        }
    }

    /// The levels of the given rows.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::One(level) => Self::One(*level),
            Self::Rows(levels) => Self::Rows(rows.iter().map(|&r| levels[r]).collect()),
            Self::Positions { levels, positions, axis } => {
                let of = |&r: &usize| levels[r * positions..(r + 1) * positions].to_vec();
                let levels = rows.iter().flat_map(of).collect();
                Self::Positions { levels, positions: *positions, axis: *axis }
            }
            Self::Fields(fields) => {
                Self::Fields(fields.iter().map(|(n, l)| (n.clone(), l.select(rows))).collect())
            }
        }
    }

    /// Stacks the levels of several batches of the given sizes into one of a level a row.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where positions or fields of different kinds would mix.
    pub fn cat(parts: &[(Levels, usize)]) -> Result<Self> {
        if let Some((Self::One(first), _)) = parts.first()
            && parts.iter().all(|(l, _)| *l == Self::One(*first))
        {
            return Ok(Self::One(*first));
        }
        if let Some((Self::Positions { positions, axis, .. }, _)) = parts.first() {
            let mut all = Vec::new();
            for (part, _) in parts {
                match part {
                    Self::Positions { levels, positions: p, axis: a }
                        if p == positions && a == axis =>
                    {
                        all.extend_from_slice(levels);
                    }
                    _ => return Err(Error::unsupported("stacking", "levels of one kind")),
                }
            }
            return Ok(Self::Positions { levels: all.into(), positions: *positions, axis: *axis });
        }
        let mut all = Vec::new();
        for (part, size) in parts {
            match part {
                Self::One(level) => all.extend(std::iter::repeat_n(*level, *size)),
                Self::Rows(levels) => all.extend_from_slice(levels),
                _ => return Err(Error::unsupported("stacking", "levels of one kind")),
            }
        }
        Ok(Self::Rows(all.into()))
    }

    /// Every level, in storage order.
    pub fn all(&self) -> Vec<Level> {
        match self {
            Self::One(level) => vec![*level],
            Self::Rows(levels) | Self::Positions { levels, .. } => levels.to_vec(),
            Self::Fields(fields) => fields.iter().flat_map(|(_, l)| l.all()).collect(),
        }
    }
}
