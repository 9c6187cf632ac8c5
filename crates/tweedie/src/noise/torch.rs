//! The noise that torch draws for a seed, so that a picture of diffusers, or of a web interface that
//! stands on it, repeats from its seed alone.
//!
//! A row has a generator of its own, seeded with the row's seed: a list of generators in diffusers'
//! pipelines, and what the web interfaces do with a batch.
//!
//! On a CPU (`torch-cpu`) torch draws a tensor of at least 16 numbers as a whole, and smaller ones
//! number by number:
//!
//! ```text
//! at least 16: all uniforms first, then blocks of 16: u = 1 - a[j], v = a[j + 8],
//!              sqrt(-2 ln u) cos(2 pi v) at j and with the sine at j + 8; where the count is no
//!              multiple of 16, the last 16 numbers are drawn again
//! fewer:       in 64 bits, with v first: sqrt(-2 ln(1 - u)) cos(2 pi v), then with the sine
//! ```
//!
//! Numbers of 16 bits are those of 32 bits rounded, but for a count that is no multiple of 16, where
//! the last 16 follow on the whole blocks in the stream. Torch's vector code has its own logarithm
//! and sine; the numbers differ from it in the last bits (below 1e-6).
//!
//! On a GPU (`torch-cuda`) number `i` of the draw `k` is the first normal number of Philox at counter
//! `(k, 0, i, 0)` under the seed: what torch's kernel does for as many numbers as the GPU has
//! resident threads (some hundred thousand, more than a latent picture has), and what A1111's own
//! generator does for any count. Larger tensors have in torch an order that depends on the GPU; it is
//! not imitated.

use burn::tensor::DType;
use half::{bf16, f16};

use super::{Noise, from_rows};
use crate::error::{Error, Result};
use crate::random::Key;
use crate::random::mersenne::Mersenne;
use crate::random::philox::{box_muller, philox};
use crate::state::State;

/// The type that the other program draws in; it rounds the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrawnAs {
    /// 32 bits, or 64 where the state has 64.
    #[default]
    Full,
    /// IEEE's 16 bits.
    F16,
    /// The upper half of 32 bits.
    Bf16,
}

impl DrawnAs {
    fn round(self, values: &mut [f64]) {
        for v in values {
            *v = match self {
                Self::Full => *v,
                Self::F16 => f16::from_f64(*v).to_f64(),
                Self::Bf16 => bf16::from_f64(*v).to_f64(),
            };
        }
    }
}

/// A row's generator.
#[derive(Clone, Debug)]
enum Generator {
    /// The twister, and the second number of a pair that waits.
    Cpu { twister: Mersenne, waiting: Option<f64> },
    /// The seed and the count of draws.
    Cuda { seed: u64, draws: u32 },
}

/// Torch's noise from one seed a row.
#[derive(Clone, Debug)]
pub struct Torch {
    rows: Vec<(u64, Generator)>,
    drawn_as: DrawnAs,
    draws: u64,
}

impl Torch {
    /// That of torch's CPU generator.
    pub fn cpu(seeds: impl IntoIterator<Item = u64>) -> Self {
        Self::of(seeds, |seed| Generator::Cpu { twister: Mersenne::new(seed), waiting: None })
    }

    /// That of torch on a GPU.
    pub fn cuda(seeds: impl IntoIterator<Item = u64>) -> Self {
        Self::of(seeds, |seed| Generator::Cuda { seed, draws: 0 })
    }

    fn of(seeds: impl IntoIterator<Item = u64>, make: impl Fn(u64) -> Generator) -> Self {
        let rows = seeds.into_iter().map(|seed| (seed, make(seed))).collect();
        Self { rows, drawn_as: DrawnAs::Full, draws: 0 }
    }

    /// The same, drawn in another type.
    #[must_use]
    pub fn drawn_as(mut self, drawn_as: DrawnAs) -> Self {
        self.drawn_as = drawn_as;
        self
    }

    fn check(&self, batch: usize) -> Result<()> {
        if batch == self.rows.len() {
            return Ok(());
        }
        Err(Error::Shape {
            what: "rows of noise, one seed each".into(),
            wanted: vec![batch],
            found: vec![self.rows.len()],
        })
    }

    /// Generators of an independent future.
    fn derived(&mut self, branch: u64) {
        let draws = self.draws;
        for (seed, generator) in &mut self.rows {
            *seed = Key::new(*seed, 0, draws).derive(branch);
            *generator = generator.anew(*seed);
        }
    }
}

impl Generator {
    fn anew(&self, seed: u64) -> Self {
        match self {
            // The twister reads the low half of its seed, which a derived one fills.
            Self::Cpu { .. } => Self::Cpu { twister: Mersenne::new(seed), waiting: None },
            Self::Cuda { .. } => Self::Cuda { seed, draws: 0 },
        }
    }

    fn fill(&mut self, out: &mut [f64], wide: bool, drawn_as: DrawnAs) {
        match self {
            Self::Cpu { twister, waiting } if out.len() < BLOCK => {
                for v in out {
                    *v = waiting.take().unwrap_or_else(|| {
                        let (turn, u) = (twister.uniform_double(), twister.uniform_double());
                        let radius = (-2.0 * (-u).ln_1p()).sqrt();
                        let (sin, cos) = (std::f64::consts::TAU * turn).sin_cos();
                        *waiting = Some(radius * sin);
                        radius * cos
                    });
                    if !wide {
                        *v = f64::from(*v as f32);
                    }
                }
            }
            Self::Cpu { twister, .. } => fill(twister, out, wide, drawn_as),
            Self::Cuda { seed, draws } => {
                let key = [*seed as u32, (*seed >> 32) as u32];
                for (i, v) in out.iter_mut().enumerate() {
                    let [x, y, ..] = philox([*draws, 0, i as u32, 0], key);
                    *v = f64::from(box_muller(x, y));
                }
                *draws = draws.wrapping_add(1);
            }
        }
    }
}

/// Numbers that are made together.
const BLOCK: usize = 16;

/// At least 16 numbers of the CPU generator.
fn fill(twister: &mut Mersenne, out: &mut [f64], wide: bool, drawn_as: DrawnAs) {
    let count = out.len();
    let whole = count - count % BLOCK;
    let mut draw = |out: &mut [f64]| {
        for v in out {
            *v = if wide { twister.uniform_double() } else { twister.uniform_single().into() };
        }
    };
    // The uniforms of the rest are drawn and thrown away, except in 16 bits.
    if drawn_as == DrawnAs::Full {
        draw(out);
    } else {
        draw(&mut out[..whole]);
    }
    for block in out[..whole].chunks_mut(BLOCK) {
        transform(block, wide);
    }
    if whole < count {
        let last = &mut out[count - BLOCK..];
        draw(last);
        transform(last, wide);
    }
}

/// Sixteen uniform numbers become sixteen normal ones.
fn transform(block: &mut [f64], wide: bool) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let (radius, turn) = ((-2.0 * (1.0 - *a).ln()).sqrt(), std::f64::consts::TAU * *b);
        (*a, *b) = (radius * turn.cos(), radius * turn.sin());
        if !wide {
            (*a, *b) = (f64::from(*a as f32), f64::from(*b as f32));
        }
    }
}

impl Noise for Torch {
    fn draw(&mut self, like: &State) -> Result<State> {
        self.check(like.batch())?;
        let width = like.real_features();
        // With 16 bits the other program's state is of 16 bits too.
        let wide = like.dtype() == DType::F64 && self.drawn_as == DrawnAs::Full;
        let mut rows = vec![0.0; width * self.rows.len()];
        for (row, (_, generator)) in rows.chunks_mut(width.max(1)).zip(&mut self.rows) {
            generator.fill(row, wide, self.drawn_as);
        }
        self.drawn_as.round(&mut rows);
        self.draws += 1;
        from_rows(like, &rows, width)
    }

    fn uniform(&mut self, batch: usize, width: usize) -> Result<Vec<Vec<f64>>> {
        self.check(batch)?;
        self.draws += 1;
        // Methods ask for these that torch does not have; the numbers are in the open interval.
        let open = |v: f64| v + 2.0_f64.powi(-55);
        let row = |(_, generator): &mut (u64, Generator)| match generator {
            Generator::Cpu { twister, .. } => {
                (0..width).map(|_| open(twister.uniform_double())).collect()
            }
            Generator::Cuda { seed, draws } => {
                let key = [*seed as u32, (*seed >> 32) as u32];
                let at = *draws;
                *draws = draws.wrapping_add(1);
                let one = |i: usize| {
                    let [x, y, ..] = philox([at, 0, i as u32, 0], key);
                    let bits = (u64::from(x) << 32 | u64::from(y)) >> 11;
                    open(bits as f64 * 2.0_f64.powi(-53))
                };
                (0..width).map(one).collect()
            }
        };
        Ok(self.rows.iter_mut().map(row).collect())
    }

    fn fork(&self, branch: u64) -> Box<dyn Noise> {
        let mut fork = self.clone();
        fork.derived(branch);
        Box::new(fork)
    }

    fn select(&mut self, rows: &[usize]) {
        let mut next = Vec::with_capacity(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            let (seed, generator) = self.rows[row].clone();
            let twin = rows[..i].iter().filter(|&&r| r == row).count() as u64;
            if twin == 0 {
                next.push((seed, generator));
            } else {
                let seed = Key::new(seed, 0, self.draws).derive(twin);
                next.push((seed, generator.anew(seed)));
            }
        }
        self.rows = next;
    }
}

/// Against numbers that torch drew (`tools/parity/noise.py`).
#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use serde_json::Value;

    use super::*;

    fn like(width: usize, wide: bool) -> State {
        let state = State::from_f64(vec![0.0; width], &[1, width], &Device::flex()).unwrap();
        if wide { state } else { state.map(|x| x.cast(DType::F32)) }
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    #[test]
    fn the_numbers_of_torchs_cpu_generator() {
        let cases: Value =
            serde_json::from_str(include_str!("../../tests/data/torch_noise.json")).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        assert!(cases.len() > 40);
        for case in cases {
            let seed = case["seed"].as_u64().unwrap();
            let (drawn_as, wide, close) = match case["dtype"].as_str().unwrap() {
                "float64" => (DrawnAs::Full, true, 1e-13),
                "float32" => (DrawnAs::Full, false, 2e-6),
                // A step of the type, where the last bit of 32 decides the rounding.
                "float16" => (DrawnAs::F16, false, 2e-3),
                "bfloat16" => (DrawnAs::Bf16, false, 1.6e-2),
                other => panic!("{other}"),
            };
            let mut noise = Torch::cpu([seed]).drawn_as(drawn_as);
            let mut differ = 0;
            for draw in case["draws"].as_array().unwrap() {
                let width = draw["count"].as_u64().unwrap() as usize;
                let found = noise.draw(&like(width, wide)).unwrap().to_rows().remove(0);
                let place = |v: &Value| v.as_u64().unwrap() as usize;
                for (at, wanted) in
                    draw["at"].as_array().unwrap().iter().map(place).zip(numbers(&draw["values"]))
                {
                    let off = (found[at] - wanted).abs();
                    assert!(
                        off <= close * wanted.abs().max(1.0),
                        "{case}: {at}: {} {wanted}",
                        found[at]
                    );
                    differ += usize::from(off > 0.0);
                }
            }
            if drawn_as != DrawnAs::Full {
                assert!(differ <= 2, "{differ} numbers are rounded otherwise: {case}");
            }
        }
    }

    #[test]
    fn the_first_numbers_of_torch_on_a_gpu() {
        // What `torch.manual_seed(0); torch.randn(12, device="cuda")` prints, as A1111's source quotes
        // it for its own generator.
        let wanted = [
            -0.924_662_59,
            -0.425_344_15,
            -2.643_845_7,
            0.145_183_88,
            -0.120_866_47,
            -0.579_725_64,
            -0.622_851_22,
            -0.328_387_09,
            -1.074_542_31,
            -0.363_144_07,
            -1.671_050_67,
            2.265_504_97,
        ];
        let mut noise = Torch::cuda([0]);
        let found = noise.draw(&like(12, false)).unwrap().to_rows().remove(0);
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
        let second = noise.draw(&like(12, false)).unwrap().to_rows().remove(0);
        assert_ne!(found, second);
    }

    #[test]
    fn a_row_does_not_know_its_batch_and_twins_draw_apart() {
        let blank =
            |rows: usize| State::from_f64(vec![0.0; rows * 20], &[rows, 20], &Device::flex());
        for make in [|s: Vec<u64>| Torch::cpu(s), |s: Vec<u64>| Torch::cuda(s)] {
            let (mut one, mut three) = (make(vec![8]), make(vec![6, 7, 8]));
            for _ in 0..2 {
                let alone = one.draw(&blank(1).unwrap()).unwrap().to_rows();
                assert_eq!(alone[0], three.draw(&blank(3).unwrap()).unwrap().to_rows()[2]);
            }
            three.select(&[2, 2]);
            let rows = three.draw(&blank(2).unwrap()).unwrap().to_rows();
            assert_eq!(rows[0], one.draw(&blank(1).unwrap()).unwrap().to_rows()[0]);
            assert_ne!(rows[0], rows[1]);
            let (mut a, mut b) = (three.fork(1), three.fork(2));
            let (a, b) = (a.draw(&blank(2).unwrap()).unwrap(), b.draw(&blank(2).unwrap()).unwrap());
            assert_ne!(a.to_rows(), b.to_rows());
            assert!(three.draw(&blank(3).unwrap()).is_err());
            for v in three.uniform(2, 50).unwrap().concat() {
                assert!(v > 0.0 && v < 1.0);
            }
        }
    }
}
