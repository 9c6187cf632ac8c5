//! What awkward data ask: rank 5, integers with a length a row, tokens with kernels of their own;
//! and operators with singular values.

use burn::tensor::{Device, Int, Tensor, TensorData};
use tweedie::discrete::{Kernel, Unmask};
use tweedie::noise::{Noise, Seeded};
use tweedie::operator::{Operator, Spectral};
use tweedie::run::Run;
use tweedie::state::{State, Values};
use tweedie::{Error, Result};

use super::world::{Cosine, Gauss, Plain, distance, finish, parts, refused, state, uniform_lambda};

#[test]
fn a_field_of_rank_five() {
    let shape = [2, 3, 2, 2, 2];
    let count: usize = shape.iter().product();
    let x = State::from_f64((0..count).map(|i| i as f64 * 0.1).collect(), &shape, &Device::flex())
        .unwrap();
    assert_eq!(x.view::<5>().unwrap().dims(), shape);
    assert!(matches!(x.view::<4>(), Err(Error::Rank { wanted: 4, got: 5, .. })));
    // A sampler walks it as it walks anything, and the numbers are those of the flat state.
    let world = Gauss { mean: 0.7, std: 0.4 };
    let levels = uniform_lambda(&Cosine, 0.9, 0.1, 5);
    let run = |x: State| {
        let noise = Plain { eta: 0.5 };
        finish(Run::new(parts(&world, &Cosine, levels.clone(), noise, 2), x).unwrap())
    };
    let flat = state(&x.to_rows());
    assert_eq!(run(x), run(flat));
}

fn tokens(rows: &[Vec<i64>]) -> State {
    let data = TensorData::new(rows.concat(), [rows.len(), rows[0].len()]);
    State::tokens(Tensor::<2, Int>::from_data(data, &Device::flex()))
}

fn ids(x: &State) -> Vec<Vec<i64>> {
    let tensor = x.view_int::<2>().unwrap();
    let width = tensor.dims()[1];
    let flat: Vec<i64> = tensor.into_data().convert::<i64>().iter::<i64>().collect();
    flat.chunks(width).map(<[i64]>::to_vec).collect()
}

#[test]
fn an_integer_field_with_lengths_per_row() {
    let text = tokens(&[vec![4, 5, 6], vec![7, 8, 0]]).with_lengths(&[3, 2]).unwrap();
    assert_eq!(text.segments()[0].lengths(), Some(&[3, 2][..]));
    assert_eq!(text.select(&[1, 1]).segments()[0].lengths(), Some(&[2, 2][..]));
    let stacked = State::cat(&[text.clone(), text.select(&[1])]).unwrap();
    assert_eq!(stacked.segments()[0].lengths(), Some(&[3, 2, 2][..]));
    assert_eq!(ids(&stacked)[2], [7, 8, 0]);
    assert!(text.clone().with_lengths(&[4, 1]).is_err());
    // Beside a real field it takes no part in arithmetic and keeps its numbers.
    let image = state(&[vec![1.0, 2.0], vec![3.0, 4.0]]).named("image");
    let both = State::joined([image, text.clone().named("text")]).unwrap();
    let scaled = both.clone() * 2.0 + both.clone();
    assert_eq!(scaled.to_rows(), [[3.0, 6.0], [9.0, 12.0]]);
    assert_eq!(ids(&scaled.field("text").unwrap()), ids(&text));
    let noise = Seeded::new(0, 2).draw(&both).unwrap();
    assert!(matches!(noise.segments()[1].values(), Values::Int(_)));
}

/// Absorbing tokens: each is masked with probability `t` and never returns by itself.
#[derive(Debug)]
struct Absorbing {
    vocabulary: usize,
}

impl Kernel for Absorbing {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn mask(&self) -> Option<i64> {
        Some(self.vocabulary as i64 - 1)
    }

    fn corrupt(&self, x0: &[i64], t: f64, uniform: &[f64]) -> Vec<i64> {
        let mask = self.vocabulary as i64 - 1;
        x0.iter().zip(uniform).map(|(&x, &u)| if u < t { mask } else { x }).collect()
    }

    fn reverse(
        &self,
        x: &[i64],
        clean: &[Vec<f64>],
        from: f64,
        to: f64,
        uniform: &[f64],
    ) -> Result<Vec<i64>> {
        if clean.len() != x.len() {
            return Err(refused("one distribution a position"));
        }
        let mask = self.vocabulary as i64 - 1;
        let stay = to / from;
        Ok(x.iter()
            .zip(clean)
            .zip(uniform)
            .map(|((&x, p), &u)| {
                if x != mask || u < stay {
                    return x;
                }
                let mut left = (u - stay) / (1.0 - stay);
                let found = p.iter().position(|p| {
                    left -= p;
                    left < 0.0
                });
                found.unwrap_or(p.len() - 1) as i64
            })
            .collect())
    }
}

/// Commits the most certain positions first.
#[derive(Debug)]
struct MostCertain;

impl Unmask for MostCertain {
    fn choose(&mut self, clean: &[Vec<f64>], masked: &[usize], budget: usize) -> Vec<usize> {
        let certainty = |&i: &usize| clean[i].iter().copied().fold(0.0, f64::max);
        let mut order = masked.to_vec();
        order.sort_by(|a, b| certainty(b).total_cmp(&certainty(a)).then(a.cmp(b)));
        order.truncate(budget.max(1));
        order
    }
}

#[test]
fn tokens_have_kernels_and_commits() {
    // Two tokens that are equal with probability 0.9: the exact conditionals are known.
    let kernel = Absorbing { vocabulary: 3 };
    let joint = |a: usize, b: usize| if a == b { 0.45 } else { 0.05 };
    let clean = |x: &[i64]| -> Vec<Vec<f64>> {
        (0..2)
            .map(|i| {
                let other = x[1 - i];
                let weight = |a: usize| match other {
                    2 => 0.5,
                    o => joint(a, o as usize),
                };
                let total = weight(0) + weight(1);
                vec![weight(0) / total, weight(1) / total]
            })
            .collect()
    };
    let (rows, steps) = (4000, 50);
    let mut noise = Seeded::new(1, rows);
    let mut x = vec![vec![2_i64, 2]; rows];
    for step in 0..steps {
        let (from, to) = (1.0 - step as f64 / steps as f64, 1.0 - (step + 1) as f64 / steps as f64);
        let uniform = noise.uniform(rows, 2).unwrap();
        for (row, u) in x.iter_mut().zip(&uniform) {
            let before = row.clone();
            *row = kernel.reverse(&before, &clean(&before), from, to, u).unwrap();
            for (a, b) in before.iter().zip(row.iter()) {
                assert!(*a == 2 || a == b, "a token that is out of the mask stays");
            }
        }
    }
    assert!(x.iter().flatten().all(|&v| v != 2), "no mask is left");
    let equal = x.iter().filter(|r| r[0] == r[1]).count() as f64 / rows as f64;
    assert!((equal - 0.9).abs() < 0.02, "pairs equal: {equal}");
    let masked = kernel.corrupt(&[0, 1, 0, 1], 0.5, &[0.1, 0.9, 0.4, 0.6]);
    assert_eq!(masked, [2, 1, 2, 1]);
    let p = [vec![0.5, 0.5], vec![0.9, 0.1], vec![0.3, 0.7]];
    assert_eq!(MostCertain.choose(&p, &[0, 1, 2], 2), [1, 2]);
}

/// Keeps the first `kept` coordinates, scaled: `A = [diag(s) 0]`.
#[derive(Debug)]
struct Keep {
    scales: Vec<f64>,
    width: usize,
}

impl Operator for Keep {
    fn apply(&self, x: &State) -> Result<State> {
        let kept = x.rows_tensor()?.narrow(1, 0, self.scales.len());
        let rows = State::new(kept).to_rows();
        let scale = |r: &Vec<f64>| r.iter().zip(&self.scales).map(|(v, s)| v * s).collect();
        Ok(state(&rows.iter().map(scale).collect::<Vec<_>>()))
    }

    fn spectral(&self) -> Option<&dyn Spectral> {
        Some(self)
    }
}

impl Spectral for Keep {
    fn singular_values(&self) -> &[f64] {
        &self.scales
    }

    fn coordinates(&self, x: &State) -> Result<State> {
        Ok(x.clone())
    }

    fn state(&self, c: &State) -> Result<State> {
        if c.real_features() == self.width { Ok(c.clone()) } else { Err(refused("whole rows")) }
    }

    fn measured(&self, y: &State) -> Result<State> {
        Ok(y.clone())
    }
}

/// Something that cannot be decomposed.
#[derive(Debug)]
struct Square;

impl Operator for Square {
    fn apply(&self, x: &State) -> Result<State> {
        Ok(x.map(|x| x.powi_scalar(2)))
    }
}

/// The pseudo-inverse through the singular values: what a solver in spectral space asks for.
fn pseudo_inverse(operator: &dyn Operator, y: &State, width: usize) -> Result<State> {
    let Some(spectral) = operator.spectral() else {
        return Err(Error::unsupported("pseudo-inverse", "an operator with known singular values"));
    };
    let values = spectral.singular_values();
    let rows = spectral.measured(y)?.to_rows();
    let divide = |r: &Vec<f64>| {
        let mut c: Vec<f64> = r.iter().zip(values).map(|(v, s)| v / s).collect();
        c.resize(width, 0.0);
        c
    };
    spectral.state(&state(&rows.iter().map(divide).collect::<Vec<_>>()))
}

#[test]
fn singular_values_or_a_typed_refusal() {
    let keep = Keep { scales: vec![3.0, 0.5], width: 3 };
    let x = state(&[vec![1.0, -2.0, 7.0]]);
    let y = keep.apply(&x).unwrap();
    let back = pseudo_inverse(&keep, &y, 3).unwrap();
    assert!(distance(&back.to_rows(), &[vec![1.0, -2.0, 0.0]]) < 1e-12);
    let again = keep.apply(&back).unwrap();
    assert!(distance(&again.to_rows(), &y.to_rows()) < 1e-12, "A A+ A = A");
    let y = Square.apply(&x).unwrap();
    assert!(matches!(pseudo_inverse(&Square, &y, 3), Err(Error::Unsupported { .. })));
}
