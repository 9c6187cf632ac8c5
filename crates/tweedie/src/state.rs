//! The state of a sampling run: named segments over one batch, whatever the data's own rank.
//!
//! Every segment is kept as `[batch, features]` beside its natural shape, so that samplers, noise
//! and most guides, which only scale, add and take norms per row, are written once for images,
//! video, meshes, several coupled fields and tokens. Parts that look at space ask for
//! [`State::view`] and get [`Error::Rank`] on data of another rank.

use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::error::{Error, Result};
use crate::level::{Level, Levels};

/// The name of the only segment of a plain state.
pub const MAIN: &str = "x";

/// What a segment holds, as `[batch, features]`.
#[derive(Clone, Debug)]
pub enum Values {
    /// Real numbers, f32 or f64.
    Float(Tensor<2>),
    /// Integers: tokens, classes, graph labels.
    Int(Tensor<2, Int>),
}

/// One named field of a state.
#[derive(Clone, Debug)]
pub struct Segment {
    name: Arc<str>,
    values: Values,
    shape: Vec<usize>,
    lengths: Option<Arc<[usize]>>,
}

impl Segment {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its natural shape, batch first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many positions of the first natural axis after the batch are in use, a row each; `None`
    /// where every row is full.
    pub fn lengths(&self) -> Option<&[usize]> {
        self.lengths.as_deref()
    }

    /// The numbers.
    pub fn values(&self) -> &Values {
        &self.values
    }

    fn features(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    fn map_float(&self, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        let values = match &self.values {
            Values::Float(x) => Values::Float(f(x.clone())),
            Values::Int(x) => Values::Int(x.clone()),
        };
        Self { values, ..self.clone() }
    }

    fn rows(&self, rows: &[usize]) -> Self {
        let pick = |device: &Device| {
            let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), device)
        };
        let values = match &self.values {
            Values::Float(x) => Values::Float(x.clone().select(0, pick(&x.device()))),
            Values::Int(x) => Values::Int(x.clone().select(0, pick(&x.device()))),
        };
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let lengths = self.lengths.as_ref().map(|l| rows.iter().map(|&r| l[r]).collect());
        Self { name: self.name.clone(), values, shape, lengths }
    }
}

/// The state of a sampling run, `x_t`.
///
/// # Panics
///
/// The operators panic on states of different layout; that is a bug of the caller, never a matter
/// of user input. Integer segments take no part in arithmetic: the left operand's are carried.
#[derive(Clone, Debug)]
pub struct State {
    segments: Vec<Segment>,
}

impl State {
    /// A plain state from a tensor of natural shape `[batch, ...]`.
    pub fn new<const D: usize>(x: Tensor<D>) -> Self {
        let shape = x.dims().to_vec();
        let features = shape.iter().skip(1).product();
        let rows = x.reshape([shape[0], features]);
        let name = Arc::from(MAIN);
        Self { segments: vec![Segment { name, values: Values::Float(rows), shape, lengths: None }] }
    }

    /// A plain f64 state from host numbers in row-major order.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the count of numbers does not fill the shape.
    pub fn from_f64(data: Vec<f64>, shape: &[usize], device: &Device) -> Result<Self> {
        let count: usize = shape.iter().product();
        if data.len() != count || shape.is_empty() {
            return Err(Error::Shape {
                what: "numbers for a state".into(),
                wanted: shape.to_vec(),
                found: vec![data.len()],
            });
        }
        let rows = [shape[0], shape.iter().skip(1).product()];
        let x = Tensor::<2>::from_data(TensorData::new(data, rows), (device, DType::F64));
        Ok(Self {
            segments: vec![Segment {
                name: Arc::from(MAIN),
                values: Values::Float(x),
                shape: shape.to_vec(),
                lengths: None,
            }],
        })
    }

    /// A plain state of integers from a tensor of natural shape `[batch, ...]`.
    pub fn tokens<const D: usize>(x: Tensor<D, Int>) -> Self {
        let shape = x.dims().to_vec();
        let features = shape.iter().skip(1).product();
        let values = Values::Int(x.reshape([shape[0], features]));
        Self { segments: vec![Segment { name: Arc::from(MAIN), values, shape, lengths: None }] }
    }

    /// The same numbers under another name; only for states of one segment.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        if let [one] = self.segments.as_mut_slice() {
            one.name = Arc::from(name);
        }
        self
    }

    /// Says how many positions of each row of the (only) segment are in use.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there is not one length a row, or one exceeds the segment.
    pub fn with_lengths(mut self, lengths: &[usize]) -> Result<Self> {
        let shape = self.segments[0].shape.clone();
        let longest = shape.get(1).copied().unwrap_or(0);
        if lengths.len() != shape[0] || lengths.iter().any(|&l| l > longest) {
            return Err(Error::Shape {
                what: format!("lengths per row, each at most {longest}"),
                wanted: vec![shape[0]],
                found: lengths.to_vec(),
            });
        }
        self.segments[0].lengths = Some(lengths.into());
        Ok(self)
    }

    /// Joins several fields over the same batch into one state.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] on different batches, [`Error::Setting`] on a name that comes twice.
    pub fn joined(fields: impl IntoIterator<Item = State>) -> Result<Self> {
        let segments: Vec<Segment> = fields.into_iter().flat_map(|s| s.segments).collect();
        for (i, segment) in segments.iter().enumerate() {
            if segment.shape[0] != segments[0].shape[0] {
                return Err(Error::Shape {
                    what: format!("batch of field `{}`", segment.name),
                    wanted: vec![segments[0].shape[0]],
                    found: vec![segment.shape[0]],
                });
            }
            if segments[..i].iter().any(|other| other.name == segment.name) {
                return Err(Error::setting(&*segment.name, "two fields of one state share a name"));
            }
        }
        Ok(Self { segments })
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// One field as a state of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] where no segment goes by that name.
    pub fn field(&self, name: &str) -> Result<State> {
        match self.segments.iter().find(|s| &*s.name == name) {
            Some(segment) => Ok(Self { segments: vec![segment.clone()] }),
            None => Err(Error::unknown("field", name, self.segments.iter().map(Segment::name))),
        }
    }

    /// The number of rows.
    pub fn batch(&self) -> usize {
        self.segments.first().map_or(0, |s| s.shape[0])
    }

    /// The natural shape of the first segment, batch first.
    pub fn shape(&self) -> &[usize] {
        self.segments.first().map_or(&[], |s| &s.shape)
    }

    /// The device of the first segment.
    pub fn device(&self) -> Device {
        match &self.segments[0].values {
            Values::Float(x) => x.device(),
            Values::Int(x) => x.device(),
        }
    }

    /// The floating-point type of the first real segment; f32 where there is none.
    pub fn dtype(&self) -> DType {
        self.segments
            .iter()
            .find_map(|s| match &s.values {
                Values::Float(x) => Some(x.dtype()),
                Values::Int(_) => None,
            })
            .unwrap_or(DType::F32)
    }

    /// The first segment in its natural rank.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] if the data have another rank or are integers.
    pub fn view<const D: usize>(&self) -> Result<Tensor<D>> {
        let segment = &self.segments[0];
        match (&segment.values, <[usize; D]>::try_from(segment.shape.as_slice())) {
            (Values::Float(x), Ok(shape)) => Ok(x.clone().reshape(shape)),
            _ => Err(Error::Rank { part: "view", wanted: D, got: segment.shape.len() }),
        }
    }

    /// The first segment's integers in their natural rank.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] if the data have another rank or are real.
    pub fn view_int<const D: usize>(&self) -> Result<Tensor<D, Int>> {
        let segment = &self.segments[0];
        match (&segment.values, <[usize; D]>::try_from(segment.shape.as_slice())) {
            (Values::Int(x), Ok(shape)) => Ok(x.clone().reshape(shape)),
            _ => Err(Error::Rank { part: "integer view", wanted: D, got: segment.shape.len() }),
        }
    }

    /// The first segment as `[batch, features]`.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] on integers.
    pub fn rows_tensor(&self) -> Result<Tensor<2>> {
        match &self.segments[0].values {
            Values::Float(x) => Ok(x.clone()),
            Values::Int(_) => Err(Error::Rank { part: "real numbers", wanted: 2, got: 0 }),
        }
    }

    /// A state of the same layout with `f` applied to every real segment as `[batch, features]`.
    #[must_use]
    pub fn map(&self, mut f: impl FnMut(Tensor<2>) -> Tensor<2>) -> Self {
        Self { segments: self.segments.iter().map(|s| s.map_float(&mut f)).collect() }
    }

    /// A state of the same layout with `f` applied to every pair of real segments.
    #[must_use]
    pub fn zip(&self, other: &Self, mut f: impl FnMut(Tensor<2>, Tensor<2>) -> Tensor<2>) -> Self {
        assert_eq!(self.segments.len(), other.segments.len(), "states of different fields");
        let segments = self.segments.iter().zip(&other.segments).map(|(a, b)| match &b.values {
            Values::Float(y) => a.map_float(|x| f(x, y.clone())),
            Values::Int(_) => a.clone(),
        });
        Self { segments: segments.collect() }
    }

    /// The same layout, all zero.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        self.map(|x| x.zeros_like())
    }

    /// The same layout filled from host numbers, one real segment after the other, each row-major;
    /// the device and type are kept.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the count does not match.
    pub fn filled_like(&self, data: &[f64]) -> Result<Self> {
        let wanted: usize = self.real_features() * self.batch();
        if data.len() != wanted {
            return Err(Error::Shape {
                what: "numbers for a state".into(),
                wanted: vec![wanted],
                found: vec![data.len()],
            });
        }
        let mut start = 0;
        Ok(self.map(|x| {
            let dims = x.dims();
            let end = start + dims[0] * dims[1];
            let part = data[start..end].to_vec();
            start = end;
            Tensor::from_data(TensorData::new(part, dims), (&x.device(), x.dtype()))
        }))
    }

    /// Real numbers in a row, over all segments.
    pub fn real_features(&self) -> usize {
        let real = self.segments.iter().filter(|s| matches!(s.values, Values::Float(_)));
        real.map(Segment::features).sum()
    }

    /// The real numbers on the host, a row after the other (segments joined within the row).
    pub fn to_rows(&self) -> Vec<Vec<f64>> {
        let mut rows = vec![Vec::with_capacity(self.real_features()); self.batch()];
        for segment in &self.segments {
            if let Values::Float(x) = &segment.values {
                let width = segment.features();
                let data: Vec<f64> = x.clone().into_data_as::<f64>().iter::<f64>().collect();
                for (row, part) in rows.iter_mut().zip(data.chunks(width.max(1))) {
                    row.extend_from_slice(part);
                }
            }
        }
        rows
    }

    /// The rows of the given indices, in that order; an index may come twice.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { segments: self.segments.iter().map(|s| s.rows(rows)).collect() }
    }

    /// Stacks states of one layout along the batch.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the layouts differ; [`Error::Setting`] where there is nothing.
    pub fn cat(states: &[State]) -> Result<Self> {
        let Some(first) = states.first() else {
            return Err(Error::setting("batch", "there is no state to stack"));
        };
        let mut segments = Vec::with_capacity(first.segments.len());
        for (i, segment) in first.segments.iter().enumerate() {
            let parts: Vec<&Segment> = states.iter().filter_map(|s| s.segments.get(i)).collect();
            let mut shape = segment.shape.clone();
            for part in &parts {
                if part.shape[1..] != shape[1..] || part.name != segment.name {
                    return Err(Error::Shape {
                        what: format!("field `{}` of stacked states", segment.name),
                        wanted: shape,
                        found: part.shape.clone(),
                    });
                }
            }
            if parts.len() != states.len() {
                return Err(Error::setting(&*segment.name, "a stacked state lacks this field"));
            }
            shape[0] = parts.iter().map(|p| p.shape[0]).sum();
            let floats: Vec<Tensor<2>> = parts
                .iter()
                .filter_map(|p| match &p.values {
                    Values::Float(x) => Some(x.clone()),
                    Values::Int(_) => None,
                })
                .collect();
            let values = if floats.len() == parts.len() {
                Values::Float(Tensor::cat(floats, 0))
            } else {
                let ints = parts.iter().filter_map(|p| match &p.values {
                    Values::Int(x) => Some(x.clone()),
                    Values::Float(_) => None,
                });
                Values::Int(Tensor::cat(ints.collect(), 0))
            };
            let lengths = segment.lengths.is_some().then(|| {
                let full = shape.get(1).copied().unwrap_or(0);
                let of = |p: &&Segment| {
                    p.lengths.as_ref().map_or(vec![full; p.shape[0]], |l| l.to_vec())
                };
                parts.iter().flat_map(of).collect()
            });
            segments.push(Segment { name: segment.name.clone(), values, shape, lengths });
        }
        Ok(Self { segments })
    }

    /// Every position scaled by a coefficient of its own level.
    ///
    /// With one level the coefficient is a scalar, with a level per row or position it is broadcast
    /// over the rest.
    #[must_use]
    pub fn scaled(&self, at: &Levels, coefficient: impl Fn(Level) -> f64) -> Self {
        let segments = self.segments.iter().map(|segment| {
            segment
                .map_float(|x| scale(x, &segment.shape, at.of_field(&segment.name), &coefficient))
        });
        Self { segments: segments.collect() }
    }

    /// Each row scaled by its own factor.
    #[must_use]
    pub fn scaled_rows(&self, factors: &[f64]) -> Self {
        self.map(|x| {
            let data = TensorData::new(factors.to_vec(), [factors.len(), 1]);
            let (device, dtype) = (x.device(), x.dtype());
            x * Tensor::from_data(data, (&device, dtype))
        })
    }

    /// The squared Euclidean norm of each row over all real segments, summed in a fixed order.
    pub fn square_norms(&self) -> Vec<f64> {
        self.to_rows().iter().map(|row| row.iter().map(|v| v * v).sum()).collect()
    }

    /// The inner product with `other`, a number a row.
    pub fn dots(&self, other: &Self) -> Vec<f64> {
        let (a, b) = (self.to_rows(), other.to_rows());
        a.iter().zip(&b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x * y).sum()).collect()
    }

    /// A copy whose real segments track gradients as leaves.
    #[must_use]
    pub fn tracked(&self) -> Self {
        self.map(|x| x.without_autodiff().autodiff().require_grad())
    }

    /// The same numbers without gradient history.
    #[must_use]
    pub fn untracked(&self) -> Self {
        self.map(Tensor::without_autodiff)
    }
}

fn scale(x: Tensor<2>, shape: &[usize], at: &Levels, f: &impl Fn(Level) -> f64) -> Tensor<2> {
    let (device, dtype) = (x.device(), x.dtype());
    match at {
        Levels::One(level) => x * f(*level),
        Levels::Rows(levels) => {
            let data: Vec<f64> = levels.iter().map(|l| f(*l)).collect();
            let rows = data.len();
            x * Tensor::from_data(TensorData::new(data, [rows, 1]), (&device, dtype))
        }
        Levels::Positions { levels, positions, axis } => {
            let before: usize = shape[1..*axis].iter().product();
            let after: usize = shape[axis + 1..].iter().product();
            let data: Vec<f64> = levels.iter().map(|l| f(*l)).collect();
            let factor = TensorData::new(data, [shape[0], 1, *positions, 1]);
            let factor = Tensor::<4>::from_data(factor, (&device, dtype));
            let dims = x.dims();
            (x.reshape([shape[0], before, *positions, after]) * factor).reshape(dims)
        }
        Levels::Fields(_) => x,
    }
}

impl Add for State {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.zip(&other, |a, b| a + b)
    }
}

impl Sub for State {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.zip(&other, |a, b| a - b)
    }
}

impl Mul<f64> for State {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        self.map(|x| x * factor)
    }
}

impl Neg for State {
    type Output = Self;
    fn neg(self) -> Self {
        self.map(|x| -x)
    }
}
