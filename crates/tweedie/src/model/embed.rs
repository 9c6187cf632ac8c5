//! The embedding of time and class.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::config::Activation;
use super::layers::{Embedding, Linear};
use super::ops;
use crate::denoiser::{AskedClass, Cond, field};
use crate::error::{Error, Result};
use crate::parameters;
use crate::weight::{Initial, Parameters, Weight};

/// The sines and cosines of a time.
#[derive(Clone, Copy, Debug)]
pub struct Sinusoid {
    /// How many numbers.
    pub width: usize,
    /// Whether the cosines come first.
    pub cos_first: bool,
    /// How far the frequencies are from filling the range; see [`ops::sinusoid`].
    pub shift: f64,
}

impl Sinusoid {
    /// `[times, width]`, beside the given tensor.
    pub fn of<const D: usize>(&self, times: &[f64], beside: &Tensor<D>) -> Tensor<2> {
        let values = ops::sinusoid(times, self.width, self.cos_first, self.shift);
        Tensor::from_data(TensorData::new(values, [times.len(), self.width]), &beside.device())
    }
}

/// What the time looks like before its layers.
#[derive(Clone, Debug)]
pub enum TimeSource {
    /// Sines and cosines of fixed frequencies.
    Sinusoid(Sinusoid),
    /// Sines and cosines of drawn frequencies.
    Fourier(Fourier),
    /// A row of a table for each whole time.
    Table(Embedding),
}

/// Sines and cosines of `2 pi w x`, of a time `x` or its logarithm, with drawn `w` (Tancik et al.,
/// "Fourier features let networks learn high frequency functions", 2020; Song et al. 2021).
#[derive(Clone, Debug)]
pub struct Fourier {
    weight: Weight,
    log: bool,
    cos_first: bool,
}
parameters!(Fourier { weight });

impl Fourier {
    /// With `count` frequencies of deviation `std`; of the logarithm of the time where `log`.
    pub fn new(count: usize, std: f64, log: bool, cos_first: bool, device: &Device) -> Self {
        Self { weight: Weight::new([count], Initial::Normal(std), device), log, cos_first }
    }

    /// `[times, 2 * count]`, rounded to f32 where the published class does. The frequencies are
    /// fixed: no gradient reaches them.
    fn of<const D: usize>(&self, times: &[f64], beside: &Tensor<D>) -> Tensor<2> {
        let frequencies = self.weight.to_vec();
        let mut values = Vec::with_capacity(times.len() * 2 * frequencies.len());
        for &time in times {
            let time = if self.log { (time as f32).ln() } else { time as f32 };
            let angle = |w: &f32| f64::from(time * w * 2.0 * std::f32::consts::PI);
            let sines = frequencies.iter().map(|w| angle(w).sin() as f32);
            let cosines = frequencies.iter().map(|w| angle(w).cos() as f32);
            if self.cos_first {
                values.extend(cosines.chain(sines));
            } else {
                values.extend(sines.chain(cosines));
            }
        }
        let shape = [times.len(), 2 * frequencies.len()];
        Tensor::from_data(TensorData::new(values, shape), &beside.device())
    }
}

impl TimeSource {
    /// How many numbers.
    pub fn width(&self) -> usize {
        match self {
            Self::Sinusoid(sinusoid) => sinusoid.width,
            Self::Fourier(fourier) => 2 * fourier.weight.count(),
            Self::Table(table) => table.weight().shape()[1],
        }
    }

    /// `[times, width]`, beside the given tensor.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a time that is no row of a table.
    pub fn of<const D: usize>(&self, times: &[f64], beside: &Tensor<D>) -> Result<Tensor<2>> {
        match self {
            Self::Sinusoid(sinusoid) => Ok(sinusoid.of(times, beside)),
            Self::Fourier(fourier) => Ok(fourier.of(times, beside)),
            Self::Table(table) => {
                let rows = table.rows();
                let fits = |t: &f64| t.fract() == 0.0 && *t >= 0.0 && *t < rows as f64;
                if let Some(bad) = times.iter().find(|t| !fits(t)) {
                    let why = format!("wanted a whole time from 0 to {}, found {bad}", rows - 1);
                    return Err(Error::setting("timestep", why));
                }
                let times: Vec<i64> = times.iter().map(|&t| t as i64).collect();
                Ok(lifted(table.forward(&times), beside))
            }
        }
    }
}

impl Parameters for TimeSource {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Sinusoid(_) => {}
            Self::Fourier(part) => part.each(path, visit),
            Self::Table(part) => part.each(path, visit),
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Sinusoid(_) => {}
            Self::Fourier(part) => part.each_mut(path, visit),
            Self::Table(part) => part.each_mut(path, visit),
        }
    }
}

/// Two linear layers with an activation between them (diffusers' `TimestepEmbedding`).
#[derive(Clone, Debug)]
pub struct TimeMlp {
    cond_proj: Option<Linear>,
    linear_1: Linear,
    linear_2: Linear,
    activation: Activation,
    last: Option<Activation>,
}
parameters!(TimeMlp { cond_proj, linear_1, linear_2 });

impl TimeMlp {
    /// From `inputs` to `outputs` features, with SiLU.
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            cond_proj: None,
            linear_1: Linear::new(inputs, outputs, device),
            linear_2: Linear::new(outputs, outputs, device),
            activation: Activation::Silu,
            last: None,
        }
    }

    /// The same with another activation, and one behind the second layer if there is one.
    #[must_use]
    pub fn with_activations(self, between: Activation, last: Option<Activation>) -> Self {
        Self { activation: between, last, ..self }
    }

    /// The same with a second input of `width` features, which is projected and added to the first.
    #[must_use]
    pub fn with_second(mut self, inputs: usize, width: usize, device: &Device) -> Self {
        self.cond_proj = Some(Linear::plain(width, inputs, device));
        self
    }

    /// `[batch, inputs]` to `[batch, outputs]`.
    pub fn forward(&self, x: Tensor<2>, second: Option<Tensor<2>>) -> Tensor<2> {
        let x = match (&self.cond_proj, second) {
            (Some(project), Some(second)) => x + project.vectors(second),
            _ => x,
        };
        let x = self.linear_2.vectors(ops::activate(self.linear_1.vectors(x), self.activation));
        match self.last {
            Some(last) => ops::activate(x, last),
            None => x,
        }
    }
}

/// How a class, or something in its place, becomes a vector that is added to the embedded time.
#[derive(Clone, Debug)]
pub enum ClassEmbedding {
    /// A table with a row a class; its last row stands for no class.
    Table(Embedding),
    /// The class is a number that is embedded as a time is.
    Time(TimeMlp),
    /// A vector in place of a class as it is, of this width.
    Identity(usize),
    /// A vector of this width through two linear layers.
    Projected(TimeMlp, usize),
    /// A vector of this width through one.
    Linear(Linear, usize),
}

impl Parameters for ClassEmbedding {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Table(part) => part.each(path, visit),
            Self::Time(part) | Self::Projected(part, _) => part.each(path, visit),
            Self::Linear(part, _) => part.each(path, visit),
            Self::Identity(_) => {}
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Table(part) => part.each_mut(path, visit),
            Self::Time(part) | Self::Projected(part, _) => part.each_mut(path, visit),
            Self::Linear(part, _) => part.each_mut(path, visit),
            Self::Identity(_) => {}
        }
    }
}

/// What [`ClassEmbedding::new`] is told.
#[derive(Clone, Debug)]
pub struct ClassPlan<'a> {
    /// The kind, as the published classes name it.
    pub kind: Option<&'a str>,
    /// Rows of the table.
    pub classes: Option<usize>,
    /// Width of the condition's vector for the kinds that project it.
    pub projected: Option<usize>,
    /// Features of the time before its layers.
    pub time: usize,
    /// The activation between the layers of the kind that embeds a time.
    pub activation: Activation,
    /// Features of the result.
    pub width: usize,
}

impl ClassEmbedding {
    /// As the plan says; `None` for a network without classes.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a kind that does not exist or lacks its width.
    pub fn new(plan: &ClassPlan<'_>, device: &Device) -> Result<Option<Self>> {
        let width = plan.width;
        let projected = || {
            let why = "is wanted by this `class_embed_type`";
            plan.projected
                .ok_or_else(|| Error::setting("projection_class_embeddings_input_dim", why))
        };
        Ok(match plan.kind {
            None => {
                plan.classes.map(|classes| Self::Table(Embedding::new(classes, width, 1.0, device)))
            }
            Some("timestep") => {
                let mlp = TimeMlp::new(plan.time, width, device);
                Some(Self::Time(mlp.with_activations(plan.activation, None)))
            }
            Some("identity") => Some(Self::Identity(width)),
            Some("projection") => {
                let inputs = projected()?;
                Some(Self::Projected(TimeMlp::new(inputs, width, device), inputs))
            }
            Some("simple_projection") => {
                let inputs = projected()?;
                Some(Self::Linear(Linear::new(inputs, width, device), inputs))
            }
            Some(other) => {
                let known = ["timestep", "identity", "projection", "simple_projection"];
                return Err(Error::unknown("class_embed_type", other, known));
            }
        })
    }

    /// What it wants to find in a condition.
    pub fn asks(&self) -> AskedClass {
        match self {
            Self::Table(table) => AskedClass::Label(table.rows()),
            Self::Time(_) => AskedClass::Number,
            Self::Identity(width) | Self::Projected(_, width) | Self::Linear(_, width) => {
                AskedClass::Vector(*width)
            }
        }
    }

    /// `[batch, width]` for a condition; `time` is how the network sees times.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a class that does not exist, [`Error::Unsupported`] where the
    /// condition lacks what the network needs, [`Error::Shape`] for a vector of another width.
    pub fn forward<const D: usize>(
        &self,
        cond: &Cond,
        batch: usize,
        time: &TimeSource,
        beside: &Tensor<D>,
    ) -> Result<Tensor<2>> {
        let vector = |width: usize| {
            let vector = match cond.fields.get(field::CLASS_LABELS) {
                Some(labels) => Some(labels.view::<2>()?.cast(DType::F32)),
                None => cond.vector.clone(),
            };
            match vector {
                Some(vector) if vector.dims() == [batch, width] => Ok(lifted(vector, beside)),
                Some(vector) => Err(Error::Shape {
                    what: "vector of the condition".into(),
                    wanted: vec![batch, width],
                    found: vector.dims().to_vec(),
                }),
                None => Err(Error::unsupported("unet", "a vector in the condition")),
            }
        };
        match self {
            Self::Table(table) => {
                let rows = classes(cond, batch, table.rows(), table.rows() as i64 - 1)?;
                Ok(lifted(table.forward(&rows), beside))
            }
            Self::Time(mlp) => {
                let values: Vec<f64> = match (&cond.class, cond.fields.get(field::CLASS_LABELS)) {
                    (Some(class), _) => class.iter().map(|&c| c as f64).collect(),
                    (None, Some(labels)) => labels.to_rows().concat(),
                    (None, None) => {
                        return Err(Error::unsupported("unet", "a class in the condition"));
                    }
                };
                check_count(values.len(), batch)?;
                Ok(mlp.forward(time.of(&values, beside)?, None))
            }
            Self::Identity(width) => vector(*width),
            Self::Projected(mlp, width) => Ok(mlp.forward(vector(*width)?, None)),
            Self::Linear(layer, width) => Ok(layer.vectors(vector(*width)?)),
        }
    }
}

/// The classes of a condition, each below `count`; `none` a row where it has none.
///
/// # Errors
///
/// [`Error::Setting`] for a class that does not exist, [`Error::Shape`] for another number of them.
pub fn classes(cond: &Cond, batch: usize, count: usize, none: i64) -> Result<Vec<i64>> {
    let Some(class) = &cond.class else { return Ok(vec![none; batch]) };
    check_count(class.len(), batch)?;
    match class.iter().find(|&&c| c < 0 || c >= count as i64) {
        Some(bad) => {
            Err(Error::setting("class", format!("wanted 0 to {}, found {bad}", count - 1)))
        }
        None => Ok(class.to_vec()),
    }
}

fn check_count(found: usize, batch: usize) -> Result<()> {
    if found == batch {
        return Ok(());
    }
    Err(Error::Shape { what: "classes of a batch".into(), wanted: vec![batch], found: vec![found] })
}

/// A tensor on the autodiff side where its partner is on it.
pub fn lifted<const D: usize, const E: usize>(x: Tensor<D>, beside: &Tensor<E>) -> Tensor<D> {
    if beside.is_autodiff() { x.autodiff() } else { x }
}
