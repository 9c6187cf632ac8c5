//! The embedding of time and class.

use burn::tensor::{DType, Device, Tensor, TensorData};
use tweedie_kernels as kernels;

use super::layers::{Embedding, Linear};
use super::ops;
use crate::denoiser::{AskedClass, Cond, field};
use crate::error::{Error, Result};
use crate::parameters;
use crate::weight::{Parameters, Weight};

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

/// Two linear layers with SiLU between them (diffusers' `TimestepEmbedding`).
#[derive(Clone, Debug)]
pub struct TimeMlp {
    cond_proj: Option<Linear>,
    linear_1: Linear,
    linear_2: Linear,
}
parameters!(TimeMlp { cond_proj, linear_1, linear_2 });

impl TimeMlp {
    /// From `inputs` to `outputs` features.
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            cond_proj: None,
            linear_1: Linear::new(inputs, outputs, device),
            linear_2: Linear::new(outputs, outputs, device),
        }
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
        self.linear_2.vectors(kernels::silu(self.linear_1.vectors(x)))
    }
}

/// How a class, or something in its place, becomes a vector that is added to the embedded time.
#[derive(Clone, Debug)]
pub enum ClassEmbedding {
    /// A table with a row a class; its last row stands for no class.
    Table(Embedding),
    /// The class is a number that is embedded as a time is.
    Time(TimeMlp, Sinusoid),
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
            Self::Time(part, _) | Self::Projected(part, _) => part.each(path, visit),
            Self::Linear(part, _) => part.each(path, visit),
            Self::Identity(_) => {}
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Table(part) => part.each_mut(path, visit),
            Self::Time(part, _) | Self::Projected(part, _) => part.each_mut(path, visit),
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
    /// The embedding of the time.
    pub time: Sinusoid,
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
                Some(Self::Time(TimeMlp::new(plan.time.width, width, device), plan.time))
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
            Self::Time(..) => AskedClass::Number,
            Self::Identity(width) | Self::Projected(_, width) | Self::Linear(_, width) => {
                AskedClass::Vector(*width)
            }
        }
    }

    /// `[batch, width]` for a condition.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a class that does not exist, [`Error::Unsupported`] where the
    /// condition lacks what the network needs, [`Error::Shape`] for a vector of another width.
    pub fn forward<const D: usize>(
        &self,
        cond: &Cond,
        batch: usize,
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
            Self::Time(mlp, sinusoid) => {
                let values: Vec<f64> = match (&cond.class, cond.fields.get(field::CLASS_LABELS)) {
                    (Some(class), _) => class.iter().map(|&c| c as f64).collect(),
                    (None, Some(labels)) => labels.to_rows().concat(),
                    (None, None) => {
                        return Err(Error::unsupported("unet", "a class in the condition"));
                    }
                };
                check_count(values.len(), batch)?;
                Ok(mlp.forward(sinusoid.of(&values, beside), None))
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
