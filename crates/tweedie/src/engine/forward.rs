//! One component of a model on given tensors, so that anyone can check a port.
//!
//! Inputs are named as in the forward signatures of diffusers and transformers, and so are outputs;
//! what a component does not take is an error, never dropped.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::component;
use crate::denoiser::{AskedClass, Asks, Cond, Network, Pass, Times, field};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hub::folder::{Component, Folder};
use crate::hub::{Dtype, Output, TensorInfo, TensorSet, Values};
use crate::model::{Autoencoder, ClipText, ControlNet};
use crate::state::State;

/// The names of components that [`forward`] runs.
pub const COMPONENTS: [&str; 7] = [
    "unet",
    "transformer",
    "vae-encoder",
    "vae-decoder",
    "text_encoder",
    "text_encoder_2",
    "controlnet",
];

/// What came out of a component.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// The class of the component.
    pub class: String,
    /// The tensors in f32, by the names of diffusers and transformers.
    pub outputs: Vec<Output<'static>>,
}

/// Runs one component of a model on given tensors: [`LoadedComponent`] for one run.
///
/// # Errors
///
/// There is no such component, or it cannot be opened; an input is missing, is of another shape or
/// of another type of numbers, or is not one that the component takes.
pub fn forward(
    engine: &Engine,
    folder: &Folder,
    name: &str,
    inputs: &TensorSet,
) -> Result<Forwarded> {
    LoadedComponent::open(engine, folder, name)?.run(engine, inputs)
}

/// One component of a model with its weights, to be run on given tensors as often as one likes.
pub struct LoadedComponent {
    class: String,
    network: Loaded,
}

impl std::fmt::Debug for LoadedComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedComponent").field("class", &self.class).finish_non_exhaustive()
    }
}

enum Loaded {
    Denoising(Arc<dyn Network>),
    Encoder(Autoencoder),
    Decoder(Autoencoder),
    Text(Box<ClipText>),
    Control(Box<ControlNet>),
}

impl LoadedComponent {
    /// Opens a component: `name` is one of [`COMPONENTS`]. A folder that is a single component has
    /// no names of its own: it stands for any of them.
    ///
    /// # Errors
    ///
    /// There is no such component, or it cannot be opened.
    pub fn open(engine: &Engine, folder: &Folder, name: &str) -> Result<Self> {
        if !COMPONENTS.contains(&name) {
            return Err(Error::unknown("component to run", name, COMPONENTS));
        }
        let (component, device) = (part(folder, name)?, engine.device());
        let network = engine.install(|| {
            Ok(match name {
                "vae-encoder" => Loaded::Encoder(component::autoencoder(&component, device)?),
                "vae-decoder" => Loaded::Decoder(component::autoencoder(&component, device)?),
                "text_encoder" | "text_encoder_2" => {
                    Loaded::Text(Box::new(component::text_encoder(&component, device)?))
                }
                "controlnet" => Loaded::Control(Box::new(component::control(&component, device)?)),
                _ => Loaded::Denoising(component::denoising(&component, device)?),
            })
        })?;
        Ok(Self { class: component.class, network })
    }

    /// Runs it. The autoencoder's encoder takes `sample`, its decoder `latents`; denoising networks
    /// take `sample`, `timestep` (one number, or one a row) and what their settings ask for of
    /// `encoder_hidden_states`, `encoder_attention_mask`, `class_labels`, `timestep_cond`,
    /// `text_embeds` and `time_ids`; control networks take `controlnet_cond` and may take
    /// `conditioning_scale` besides; text encoders take `input_ids`.
    ///
    /// # Errors
    ///
    /// An input is missing, is of another shape or of another type of numbers, or is not one that
    /// the component takes.
    pub fn run(&self, engine: &Engine, inputs: &TensorSet) -> Result<Forwarded> {
        let outputs = engine.install(|| {
            let inputs = Inputs { set: inputs, device: engine.device(), taken: RefCell::default() };
            match &self.network {
                Loaded::Denoising(network) => denoising(&**network, &inputs),
                Loaded::Encoder(network) => encoder(network, &inputs),
                Loaded::Decoder(network) => decoder(network, &inputs),
                Loaded::Text(network) => text(network, &inputs),
                Loaded::Control(network) => control(network, &inputs),
            }
        })?;
        Ok(Forwarded { class: self.class.clone(), outputs })
    }
}

/// The component of the folder that goes by this name.
fn part(folder: &Folder, name: &str) -> Result<Component> {
    if folder.index().is_none() {
        return folder.component("");
    }
    folder.component(if name.starts_with("vae-") { "vae" } else { name })
}

fn denoising(network: &dyn Network, inputs: &Inputs<'_>) -> Result<Vec<Output<'static>>> {
    let asks = network.asks();
    let x = inputs.real("sample", [Side::Any, Side::of(asks.channels), Side::Any, Side::Any])?;
    let batch = x.dims()[0];
    let times = inputs.times(batch)?;
    let cond = inputs.condition(&asks, batch)?;
    inputs.nothing_else()?;
    let y = network.forward(&State::new(x), &times, &cond, &mut Pass::default())?;
    Ok(vec![output("sample", y.view::<4>()?)])
}

fn encoder(network: &Autoencoder, inputs: &Inputs<'_>) -> Result<Vec<Output<'static>>> {
    let channels = Side::Is(network.image_channels());
    let x = inputs.real("sample", [Side::Any, channels, Side::Any, Side::Any])?;
    inputs.nothing_else()?;
    let (mean, logvar) = network.encode(&x)?;
    Ok(match logvar {
        Some(logvar) => vec![output("mean", mean), output("logvar", logvar)],
        // Without a variance the mean is all there is, and goes by its own names too.
        None => {
            let names = ["mean", "latents", "sample"];
            names.map(|name| output(name, mean.clone())).into()
        }
    })
}

fn decoder(network: &Autoencoder, inputs: &Inputs<'_>) -> Result<Vec<Output<'static>>> {
    let channels = Side::Is(network.latent_channels());
    let z = inputs.real("latents", [Side::Any, channels, Side::Any, Side::Any])?;
    inputs.nothing_else()?;
    Ok(vec![output("sample", network.decode(&z)?)])
}

fn text(network: &ClipText, inputs: &Inputs<'_>) -> Result<Vec<Output<'static>>> {
    let (ids, shape) = inputs.whole("input_ids", [Side::Any, Side::Any])?;
    inputs.nothing_else()?;
    let rows: Vec<Vec<i64>> = ids.chunks(shape[1]).map(<[i64]>::to_vec).collect();
    let encoded = network.encode(&rows, 0)?;
    let mut outputs =
        vec![output("last_hidden_state", encoded.hidden), output("pooled", encoded.pooled)];
    outputs.extend(encoded.projected.map(|projected| output("text_embeds", projected)));
    Ok(outputs)
}

fn control(network: &ControlNet, inputs: &Inputs<'_>) -> Result<Vec<Output<'static>>> {
    let (asks, config) = (network.asks(), network.config());
    let x = inputs.real("sample", [Side::Any, Side::of(asks.channels), Side::Any, Side::Any])?;
    let batch = x.dims()[0];
    let times = inputs.times(batch)?;
    let cond = inputs.condition(&asks, batch)?;
    let channels = Side::Is(config.conditioning_channels);
    let sides = [Side::Is(batch), channels, Side::Any, Side::Any];
    let picture = inputs.real("controlnet_cond", sides)?;
    let scale = match inputs.has("conditioning_scale") {
        true => inputs.per_row("conditioning_scale", 1)?[0],
        false => 1.0,
    };
    inputs.nothing_else()?;
    let said = network.forward(&State::new(x), &times, &cond, &picture, &mut Pass::default())?;
    let down = said.down.into_iter().enumerate();
    let mut outputs: Vec<Output<'static>> =
        down.map(|(i, x)| output(format!("down_{i}"), x * scale)).collect();
    outputs.push(output("mid", said.mid * scale));
    Ok(outputs)
}

fn output<const D: usize>(name: impl Into<Cow<'static, str>>, x: Tensor<D>) -> Output<'static> {
    let shape = x.dims().to_vec();
    let values: Vec<f32> = x.into_data_as::<f32>().iter::<f32>().collect();
    Output { name: name.into(), shape, values: Values::F32(values.into()), dtype: Dtype::F32 }
}

/// A side of a wanted shape.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// Any but none.
    Any,
    /// This one.
    Is(usize),
}

impl Side {
    fn of(side: Option<usize>) -> Self {
        side.map_or(Self::Any, Self::Is)
    }

    fn takes(self, found: usize) -> bool {
        match self {
            Self::Any => found > 0,
            Self::Is(side) => found == side,
        }
    }
}

/// The tensors that go in, and the names of those that were asked for.
struct Inputs<'a> {
    set: &'a TensorSet,
    device: &'a Device,
    taken: RefCell<BTreeSet<&'static str>>,
}

impl Inputs<'_> {
    /// The tensor that must be there.
    fn info(&self, name: &'static str) -> Result<TensorInfo> {
        match self.maybe(name)? {
            Some(info) => Ok(info),
            None => {
                let found: Vec<&str> = self.set.names().take(20).collect();
                let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
                Err(self.wrong(name, format!("this input is missing; the file holds {found}")))
            }
        }
    }

    fn maybe(&self, name: &'static str) -> Result<Option<TensorInfo>> {
        self.taken.borrow_mut().insert(name);
        if self.set.contains(name) { self.set.info(name).map(Some) } else { Ok(None) }
    }

    fn has(&self, name: &'static str) -> bool {
        self.taken.borrow_mut().insert(name);
        self.set.contains(name)
    }

    fn wrong(&self, name: &str, why: impl Into<String>) -> Error {
        Error::format(self.set.name(), name, why)
    }

    fn shaped<const D: usize>(
        &self,
        name: &'static str,
        wanted: [Side; D],
    ) -> Result<(TensorInfo, [usize; D])> {
        let info = self.info(name)?;
        let fits = info.shape.len() == D
            && info.shape.iter().zip(wanted).all(|(&found, side)| side.takes(found));
        match <[usize; D]>::try_from(info.shape.as_slice()) {
            Ok(shape) if fits => Ok((info, shape)),
            _ => {
                let sides = wanted.map(|side| match side {
                    Side::Any => "any".to_owned(),
                    Side::Is(side) => side.to_string(),
                });
                let sides = sides.join(", ");
                Err(self.wrong(name, format!("wanted shape [{sides}], found {:?}", info.shape)))
            }
        }
    }

    /// Real numbers, in f32.
    fn real<const D: usize>(&self, name: &'static str, wanted: [Side; D]) -> Result<Tensor<D>> {
        let (info, shape) = self.shaped(name, wanted)?;
        if is_whole(info.dtype) {
            let why =
                format!("wanted real numbers (f32, f16, bf16 or f64), found {:?}", info.dtype);
            return Err(self.wrong(name, why));
        }
        self.numbers(name, shape)
    }

    /// Numbers of any type, in f32.
    fn numbers<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        let values = self.set.read_f32(name)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// Whole numbers.
    fn whole<const D: usize>(
        &self,
        name: &'static str,
        wanted: [Side; D],
    ) -> Result<(Vec<i64>, [usize; D])> {
        let (info, shape) = self.shaped(name, wanted)?;
        if !is_whole(info.dtype) {
            let why = format!("wanted whole numbers (i64, i32 ...), found {:?}", info.dtype);
            return Err(self.wrong(name, why));
        }
        Ok((self.set.read_i64(name)?, shape))
    }

    /// One time a row; a single one stands for all rows.
    fn times(&self, batch: usize) -> Result<Times> {
        let values = self.per_row("timestep", batch)?;
        Ok(Times { values, positions: 1 })
    }

    /// One number a row; a single one stands for all rows.
    fn per_row(&self, name: &'static str, batch: usize) -> Result<Vec<f64>> {
        let info = self.info(name)?;
        match info.shape.as_slice() {
            [] => {}
            [n] if *n == 1 || *n == batch => {}
            found => {
                let why = format!("wanted shape [] or [{batch}], found {found:?}");
                return Err(self.wrong(name, why));
            }
        }
        let values: Vec<f64> = match is_whole(info.dtype) {
            true => self.set.read_i64(name)?.into_iter().map(|v| v as f64).collect(),
            false => self.set.read_f32(name)?.into_iter().map(f64::from).collect(),
        };
        Ok(if values.len() == batch { values } else { vec![values[0]; batch] })
    }

    /// Everything that the network asks for beside state and time.
    fn condition(&self, asks: &Asks, batch: usize) -> Result<Cond> {
        let mut cond = Cond::default();
        match asks.class {
            AskedClass::None => {}
            AskedClass::Label(_) => {
                let (labels, _) = self.whole("class_labels", [Side::Is(batch)])?;
                cond.class = Some(labels.into());
            }
            AskedClass::Number => {
                let labels: Vec<f32> =
                    self.per_row("class_labels", batch)?.into_iter().map(|v| v as f32).collect();
                let data = TensorData::new(labels, [batch, 1]);
                let labels = Tensor::<2>::from_data(data, self.device);
                cond.fields.insert(field::CLASS_LABELS.into(), State::new(labels));
            }
            AskedClass::Vector(width) => {
                let labels = self.real("class_labels", [Side::Is(batch), Side::Is(width)])?;
                cond.fields.insert(field::CLASS_LABELS.into(), State::new(labels));
            }
        }
        if let Some(width) = asks.context {
            let sides = [Side::Is(batch), Side::Any, Side::Is(width)];
            let context = self.real("encoder_hidden_states", sides)?;
            let tokens = context.dims()[1];
            cond.context = Some(context);
            if self.has("encoder_attention_mask") {
                let (_, shape) =
                    self.shaped("encoder_attention_mask", [Side::Is(batch), Side::Is(tokens)])?;
                cond.context_mask = Some(self.numbers("encoder_attention_mask", shape)?);
            }
        }
        if asks.sizes.is_some() {
            let pooled = self.real("text_embeds", [Side::Is(batch), Side::Any])?;
            let count = asks.size_count(pooled.dims()[1]);
            cond.vector = Some(pooled);
            let (_, shape) = self.shaped("time_ids", [Side::Is(batch), Side::of(count)])?;
            let ids = State::new(self.numbers("time_ids", shape)?);
            cond.fields.insert(field::TIME_IDS.into(), ids);
        }
        if let Some(width) = asks.guidance
            && self.has("timestep_cond")
        {
            let second = self.real("timestep_cond", [Side::Is(batch), Side::Is(width)])?;
            cond.fields.insert(field::TIMESTEP_COND.into(), State::new(second));
        }
        Ok(cond)
    }

    /// Refuses tensors that nothing asked for.
    fn nothing_else(&self) -> Result<()> {
        let taken = self.taken.borrow();
        match self.set.names().find(|name| !taken.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let names = taken.iter().copied().collect::<Vec<_>>().join(", ");
                let why = format!("this component does not take it; it takes {names}");
                Err(self.wrong(&crate::hub::json::one_line(name), why))
            }
        }
    }
}

/// Whether a type of numbers has whole numbers or truth values alone.
fn is_whole(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::BOOL
            | Dtype::U8
            | Dtype::I8
            | Dtype::U16
            | Dtype::I16
            | Dtype::U32
            | Dtype::I32
            | Dtype::U64
            | Dtype::I64
    )
}
