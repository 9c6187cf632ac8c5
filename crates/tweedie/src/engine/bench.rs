//! Named pieces of work to be timed, the same ones that other programs are timed on.
//!
//! A piece runs once to warm up, on inputs of its own, and then as often as asked. With given inputs
//! the timed runs take those, so that their output can be compared with another program's.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
pub use tweedie_kernels::profile::Spent;
use tweedie_kernels::{peak, profile};

use super::forward::LoadedComponent;
use super::machine::Engine;
use crate::denoiser::{Cond, Network, Pass, Times};
use crate::error::{Error, Result};
use crate::hub::folder::Folder;
use crate::hub::{Dtype, Output, TensorFile, TensorSet, Values, encode_safetensors};
use crate::model::UNet2D;
use crate::model::config::{DownBlock, UNet2DConfig, UpBlock};
use crate::random::Key;
use crate::spec::Storage;
use crate::state::State;
use crate::train::gradients::loss_and_gradients;
use crate::train::optimiser::Optimiser;
use crate::train::schedule::{EmaSettings, OptimiserSettings};
use crate::weight;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// The model's folder below the root, and the component; none trains a small network of its own.
    pub component: Option<[&'static str; 2]>,
    /// Its inputs by name, with their shapes.
    pub inputs: &'static [(&'static str, &'static [usize])],
}

impl Piece {
    /// Inputs drawn from a seed: standard normal numbers, time 10, class 1.
    fn draw(&self, seed: u64) -> Result<TensorSet> {
        let mut generator = Key::new(seed, 0, 0).generator();
        let mut outputs = Vec::new();
        for (name, shape) in self.inputs {
            let count = shape.iter().product();
            outputs.push(match *name {
                "timestep" | "class_labels" => Output {
                    name: (*name).into(),
                    shape: shape.to_vec(),
                    values: Values::I64(
                        vec![if *name == "timestep" { 10 } else { 1 }; count].into(),
                    ),
                    dtype: Dtype::I64,
                },
                _ => {
                    let values: Vec<f32> = (0..count).map(|_| generator.normal() as f32).collect();
                    let (values, dtype) = (Values::F32(values.into()), Dtype::F32);
                    Output { name: (*name).into(), shape: shape.to_vec(), values, dtype }
                }
            });
        }
        let bytes = encode_safetensors(&outputs, &BTreeMap::new())?;
        Ok(TensorFile::from_bytes(bytes, format!("the inputs of {}", self.name))?.into())
    }
}

/// What timing a piece gave.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Seconds of each run, in their order.
    pub seconds: Vec<f64>,
    /// What the last run put out.
    pub outputs: Vec<Output<'static>>,
    /// Where one more run spent its time.
    pub breakdown: Breakdown,
}

/// Where the time of a run goes.
#[derive(Clone, Debug, Default)]
pub struct Breakdown {
    /// Seconds of the run.
    pub seconds: f64,
    /// What each class of kernels took of them; the rest is everything else.
    pub spent: Vec<Spent>,
}

impl Timed {
    /// The median; the later of the middle two.
    pub fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Times a piece: once to warm up, then `runs` times on `inputs` or on those of its own, and once more
/// to see where the time goes. `root` has the model folders.
///
/// # Errors
///
/// The model cannot be opened, or the inputs do not fit.
pub fn time(
    engine: &Engine,
    root: &Path,
    piece: &Piece,
    storage: Option<Storage>,
    inputs: Option<&TensorSet>,
    runs: usize,
) -> Result<Timed> {
    let own = piece.draw(0)?;
    let given = inputs.unwrap_or(&own);
    let mut timed =
        Timed { seconds: Vec::new(), outputs: Vec::new(), breakdown: Breakdown::default() };
    let mut measure = |run: &mut dyn FnMut(&TensorSet) -> Result<Vec<Output<'static>>>| {
        run(&own)?;
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            timed.outputs = run(given)?;
            timed.seconds.push(start.elapsed().as_secs_f64());
        }
        let start = Instant::now();
        profile::begin();
        let result = run(given);
        let spent = profile::end();
        timed.breakdown = Breakdown { seconds: start.elapsed().as_secs_f64(), spent };
        result.map(|_| ())
    };
    match piece.component {
        Some([folder, name]) => {
            let mut folder = Folder::open(root.join(folder))?;
            if let Some(storage) = storage {
                folder = folder.stored_as(storage);
            }
            let component = LoadedComponent::open(engine, &folder, name)?;
            measure(&mut |inputs| Ok(component.run(engine, inputs)?.outputs))?;
        }
        None => {
            let mut training = engine.install(|| Training::new(engine.device()))?;
            measure(&mut |inputs| engine.install(|| training.step(inputs)))?;
        }
    }
    Ok(timed)
}

/// Floating-point operations a second that the engine's threads reach together when nothing holds them
/// up: what percentages of the peak are of.
pub fn peak_rate(engine: &Engine) -> f64 {
    engine.install(peak)
}

/// A small U-Net in training.
struct Training {
    network: UNet2D,
    optimiser: Optimiser,
    device: Device,
    step: u64,
}

impl Training {
    fn new(device: &Device) -> Result<Self> {
        let config = UNet2DConfig {
            layers_per_block: 2,
            block_out_channels: vec![64, 128, 128],
            norm_num_groups: 32,
            down_block_types: vec![
                DownBlock::DownBlock2D,
                DownBlock::AttnDownBlock2D,
                DownBlock::DownBlock2D,
            ],
            up_block_types: vec![UpBlock::UpBlock2D, UpBlock::AttnUpBlock2D, UpBlock::UpBlock2D],
            ..UNet2DConfig::default()
        };
        let mut network = UNet2D::new(config, device)?;
        weight::draw(&mut network, 0)?;
        let optimiser = Optimiser::new(&network);
        Ok(Self { network, optimiser, device: device.clone(), step: 0 })
    }

    /// One step towards giving the pictures back; puts out the loss.
    fn step(&mut self, inputs: &TensorSet) -> Result<Vec<Output<'static>>> {
        let shape = inputs.info("sample")?.shape;
        let [b, c, h, w] = shape[..] else {
            let wanted = vec![64, 3, 32, 32];
            return Err(Error::Shape { what: "sample".into(), wanted, found: shape });
        };
        let data = TensorData::new(inputs.read_f32("sample")?, [b, c, h, w]);
        let x = Tensor::<4>::from_data(data, &self.device);
        let values = inputs.read_i64("timestep")?.into_iter().map(|t| t as f64).collect();
        let times = Times { values, positions: 1 };
        let (loss, gradients) = loss_and_gradients(&mut self.network, |network| {
            let (state, cond) = (State::new(x.clone()), Cond::default());
            let y = network.forward(&state, &times, &cond, &mut Pass::default())?;
            let difference = y.view::<4>()? - x.autodiff();
            Ok((difference.clone() * difference).mean())
        })?;
        let settings = OptimiserSettings::default();
        let at = (self.step, 1e-4);
        let ema = EmaSettings::default();
        self.optimiser.step(&mut self.network, gradients, &settings, &ema, at)?;
        self.step += 1;
        let values = Values::F32(vec![loss as f32].into());
        Ok(vec![Output { name: "loss".into(), shape: vec![1], values, dtype: Dtype::F32 }])
    }
}
