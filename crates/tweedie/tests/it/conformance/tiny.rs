//! A network of a few hundred numbers with announced blocks: four in, four out, three residual
//! blocks, classes.

use burn::tensor::{Device, Tensor, TensorData};
use tweedie::Result;
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::level::{Level, Levels};
use tweedie::prediction::Prediction;
use tweedie::random::Key;
use tweedie::state::State;
use tweedie::tap::{Features, Site, SiteKind};

pub(super) const DIM: usize = 4;
const WIDTH: usize = 6;
const CLASSES: usize = 3;
pub(super) const BLOCKS: usize = 3;

pub(super) struct Tiny {
    prediction: Prediction,
    into: Vec<f64>,
    out: Vec<f64>,
    time: Vec<f64>,
    classes: Vec<f64>,
    blocks: Vec<Vec<f64>>,
    attends: bool,
}

impl Tiny {
    pub(super) fn new(seed: u64, prediction: Prediction) -> Self {
        let mut rng = Key::new(seed, 9, 0).generator();
        let mut draw = |count: usize, scale: f64| {
            (0..count).map(|_| scale * rng.normal()).collect::<Vec<f64>>()
        };
        Self {
            prediction,
            into: draw(WIDTH * DIM, 0.5),
            out: draw(DIM * WIDTH, 0.5),
            time: draw(WIDTH * 2, 0.5),
            classes: draw(CLASSES * WIDTH, 0.8),
            blocks: (0..BLOCKS).map(|_| draw(WIDTH * WIDTH, 0.5)).collect(),
            attends: false,
        }
    }

    /// The same with a self-attention of three tokens after the blocks.
    pub(super) fn attending(self) -> Self {
        Self { attends: true, ..self }
    }

    pub(super) fn site(block: usize) -> Site {
        Site::new("tiny", format!("blocks.{block}"), SiteKind::Block, block)
    }
}

fn constant(data: &[f64], shape: [usize; 3], device: &Device) -> Tensor<3> {
    Tensor::from_data(TensorData::new(data.to_vec(), shape), (device, burn::tensor::DType::F64))
}

/// `x W^T` for a few numbers, summed the same way whatever the batch.
fn times(x: Tensor<2>, w: &[f64], out: usize) -> Tensor<2> {
    let [batch, width] = x.dims();
    let w = constant(w, [1, out, width], &x.device());
    (x.reshape([batch, 1, width]) * w).sum_dim(2).reshape([batch, out])
}

impl Denoiser for Tiny {
    fn is_told_guidance(&self) -> bool {
        true
    }

    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        pass.count_forward();
        let flat = x.rows_tensor()?;
        let batch = flat.dims()[0];
        let device = flat.device();
        let scale = |l: Level| (l.alpha * l.alpha + l.sigma * l.sigma).sqrt();
        let told = (0..batch).flat_map(|row| {
            let l = at.row(row);
            [l.alpha / scale(l), l.sigma / scale(l)]
        });
        let told = constant(&told.collect::<Vec<_>>(), [batch, 2, 1], &device);
        let told = told.reshape([batch, 2]);
        let inner = x.scaled(at, |l| 1.0 / scale(l)).rows_tensor()?;
        let mut hidden = times(inner, &self.into, WIDTH) + times(told, &self.time, WIDTH);
        if let Some(classes) = &cond.class {
            let rows = classes.iter().flat_map(|&c| {
                let c = c.clamp(0, CLASSES as i64 - 1) as usize;
                self.classes[c * WIDTH..(c + 1) * WIDTH].to_vec()
            });
            let rows = constant(&rows.collect::<Vec<_>>(), [batch, WIDTH, 1], &device);
            hidden = hidden + rows.reshape([batch, WIDTH]);
        }
        if let Some(weights) = &cond.guidance {
            let rows = weights.iter().flat_map(|w| [0.05 * w; WIDTH]).collect::<Vec<_>>();
            hidden = hidden + constant(&rows, [batch, WIDTH, 1], &device).reshape([batch, WIDTH]);
        }
        for (i, w) in self.blocks.iter().enumerate() {
            let mut out = pass.at(&Self::site(i), Features::hidden(hidden), |_, mut input| {
                let hidden: Tensor<2> = input.take("hidden")?;
                Ok(Features::hidden(hidden.clone() + times(hidden, w, WIDTH).tanh()))
            })?;
            hidden = out.take("hidden")?;
        }
        if self.attends {
            let tokens = hidden.clone().reshape([batch, 1, 3, WIDTH / 3]);
            let site = Site::new("tiny", "attention", SiteKind::Attention, 0);
            let qkv = [tokens.clone() * 1.5, tokens.clone(), tokens];
            let seen = tweedie::model::attention::attend(pass, &site, qkv, None)?;
            hidden = hidden + seen.reshape([batch, WIDTH]);
        }
        let output = times(hidden.tanh(), &self.out, DIM);
        let output = x.map(|_| output.clone());
        self.prediction.x0(&output, x, at)
    }
}

pub(super) fn start(batch: usize) -> State {
    let mut data = vec![0.0; batch * DIM];
    Key::new(4, 0, 0).generator().fill_normal(&mut data);
    State::from_f64(data, &[batch, DIM], &Device::flex()).unwrap()
}
