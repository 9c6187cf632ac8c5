//! A random sweep: 2,000 shapes of convolutions, products, attention, norms and activations at odd
//! sizes and magnitudes from denormals to 1e30, on every instruction set, against f64.
//!
//! An output may be off by 1e-4 of the larger of its own size and the sum of the sizes of its
//! products, and by the last bits of the smallest numbers. Where an input is not finite, an output is
//! not finite wherever the definition's is not.

use crate::activation::{self, Activation};
use crate::attention::{self, Bias};
use crate::conv;
use crate::linear;
use crate::memory::Ptr;
use crate::norm::{self, Groups};
use crate::testing::with_each_set;

const CASES: usize = 2000;

/// The last bits of the smallest numbers: a sum of some of them is off by a few.
const SMALLEST: f64 = 1e-42;

/// A source of shapes and numbers.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// From `low` to `high`.
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.next() as usize % (high - low + 1)
    }

    fn number(&mut self) -> f32 {
        self.next() as u32 as f32 / (1_u64 << 31) as f32 - 1.0
    }

    /// `len` numbers of the size `of`; sometimes one of them is not finite.
    fn numbers(&mut self, len: usize, of: f32, finite: bool) -> Vec<f32> {
        let mut numbers: Vec<f32> = (0..len).map(|_| self.number() * of).collect();
        if !finite && len > 0 && self.between(0, 3) == 0 {
            let bad = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][self.between(0, 2)];
            let at = self.between(0, len - 1);
            numbers[at] = bad;
        }
        numbers
    }

    /// Sizes of two factors whose products can be held.
    fn sizes(&mut self) -> (f32, f32) {
        [
            (1.0, 1.0),
            (1e30, 1.0),
            (1.0, 1e30),
            (1e-40, 1.0),
            (1.0, 1e-40),
            (1e-20, 1e-15),
            (1e30, 1e-30),
        ][self.between(0, 11).saturating_sub(5)]
    }
}

/// An output by the definition, and the size of what it is a sum of.
type Exact = (f64, f64);

/// What a case computes, and what it should.
struct Case {
    what: String,
    exact: Vec<Exact>,
    run: Box<dyn Fn() -> Vec<f32>>,
}

impl Case {
    fn check(&self, set: crate::InstructionSet) {
        let found = (self.run)();
        assert_eq!(found.len(), self.exact.len(), "{set:?} {}", self.what);
        for (i, (found, (wanted, size))) in found.iter().zip(&self.exact).enumerate() {
            let found = f64::from(*found);
            if !wanted.is_finite() || wanted.abs() > f64::from(f32::MAX) {
                // A Winograd tile may spread them, not lose them.
                assert!(!found.is_finite(), "{set:?} {} at {i}: {found}, {wanted}", self.what);
                continue;
            }
            if !size.is_finite() {
                continue;
            }
            let spread = !found.is_finite() && self.what.contains("not finite");
            let error = (found - wanted).abs();
            let bound = 1e-4 * wanted.abs().max(*size) + SMALLEST;
            let what = &self.what;
            assert!(spread || error <= bound, "{set:?} {what} at {i}: {found}, not {wanted}");
        }
    }
}

fn sums(products: impl Iterator<Item = (f64, f64)>) -> Exact {
    products.fold((0.0, 0.0), |(sum, size), (a, b)| (sum + a * b, size + (a * b).abs()))
}

fn mark(numbers: &[&[f32]]) -> &'static str {
    let all = numbers.iter().all(|n| n.iter().all(|x| x.is_finite()));
    if all { "" } else { ", not finite" }
}

fn convolution(dice: &mut Dice) -> Case {
    let wide = dice.between(0, 2) == 0;
    let most = if wide { 40 } else { 9 };
    let (c, o) = (dice.between(1, most), dice.between(1, most));
    let side = dice.between(0, 3);
    let [kh, kw] = if side > 0 { [3, 3] } else { [dice.between(1, 5), dice.between(1, 4)] };
    let stride =
        if dice.between(0, 2) > 0 { [1, 1] } else { [dice.between(1, 3), dice.between(1, 2)] };
    let before = [dice.between(0, 2) as isize, dice.between(0, 2) as isize];
    let [h, w] = [dice.between(kh, 14), dice.between(kw, 14)];
    let after = [dice.between(0, 2), dice.between(0, 2)];
    let s = conv::Shape {
        batch: dice.between(1, 2),
        c,
        h,
        w,
        up: 1,
        o,
        kh,
        kw,
        stride,
        before,
        oh: (h + before[0] as usize + after[0] - kh) / stride[0] + 1,
        ow: (w + before[1] as usize + after[1] - kw) / stride[1] + 1,
    };
    let (of_x, of_w) = dice.sizes();
    let x = dice.numbers(s.batch * c * h * w, of_x, false);
    let k = dice.numbers(o * c * kh * kw, of_w, true);
    let bias = (dice.between(0, 1) == 0).then(|| dice.numbers(o, of_x * of_w, true));
    let exact = (0..s.batch * o * s.oh * s.ow).map(|i| {
        let (ox, oy) = (i % s.ow, i / s.ow % s.oh);
        let (f, b) = (i / s.ow / s.oh % o, i / s.ow / s.oh / o);
        let window = (0..c * kh * kw).filter_map(|t| {
            let y = (oy * stride[0] + t / kw % kh) as isize - before[0];
            let column = (ox * stride[1] + t % kw) as isize - before[1];
            let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&column);
            inside.then(|| {
                let at = ((b * c + t / kw / kh) * h + y as usize) * w + column as usize;
                (f64::from(x[at]), f64::from(k[f * c * kh * kw + t]))
            })
        });
        let bias = bias.as_ref().map_or(0.0, |b| f64::from(b[f]));
        let (sum, size) = sums(window);
        (sum + bias, size + bias.abs())
    });
    Case {
        what: format!("{s:?}, {of_x:e} by {of_w:e}{}", mark(&[&x])),
        exact: exact.collect(),
        run: Box::new(move || {
            #[cfg(target_arch = "x86_64")]
            if crate::InstructionSet::current() == crate::InstructionSet::Amx {
                use crate::amx::layer::{Layer, image};
                let layer = Layer::new([o, c, kh * kw], &k).unwrap();
                if let Some(y) = image(&layer, &s, &x, bias.as_deref()) {
                    return y;
                }
            }
            conv::forward(&s, &x, &k, bias.as_deref())
        }),
    }
}

fn product(dice: &mut Dice) -> Case {
    let few = dice.between(0, 1) == 0;
    let (rows, k, n) =
        (dice.between(1, if few { 5 } else { 70 }), dice.between(1, 90), dice.between(1, 70));
    let (of_x, of_w) = dice.sizes();
    let x = dice.numbers(rows * k, of_x, false);
    let w = dice.numbers(n * k, of_w, false);
    let bias = (dice.between(0, 1) == 0).then(|| dice.numbers(n, of_x * of_w, true));
    let packed = dice.between(0, 1) == 0;
    let exact = (0..rows * n).map(|i| {
        let (r, o) = (i / n, i % n);
        let bias = bias.as_ref().map_or(0.0, |b| f64::from(b[o]));
        let (sum, size) = sums((0..k).map(|l| (f64::from(x[r * k + l]), f64::from(w[o * k + l]))));
        (sum + bias, size + bias.abs())
    });
    Case {
        what: format!("{rows} rows of {k} to {n}, {of_x:e} by {of_w:e}{}", mark(&[&x, &w])),
        exact: exact.collect(),
        run: Box::new(move || {
            #[cfg(target_arch = "x86_64")]
            if packed && crate::InstructionSet::current() == crate::InstructionSet::Amx {
                use crate::amx::layer::{self, Layer};
                let layer = Layer::new([n, k, 1], &w).unwrap();
                return layer::rows(&layer, rows, &x, bias.as_deref(), crate::Epilogue::Plain);
            }
            let _ = packed;
            linear::forward(rows, k, n, &x, &w, bias.as_deref())
        }),
    }
}

fn attend(dice: &mut Dice) -> Case {
    let s = attention::Shape {
        batch: dice.between(1, 2),
        heads: dice.between(1, 2),
        t: dice.between(1, 20),
        s: dice.between(1, 40),
        d: dice.between(1, 24),
        e: dice.between(1, 20),
        scale: 0.3,
    };
    let heads = s.batch * s.heads;
    let of_v = [1.0, 1e30, 1e-30][dice.between(0, 2)];
    let q = dice.numbers(heads * s.t * s.d, 2.0, true);
    let k = dice.numbers(heads * s.s * s.d, 2.0, true);
    let v = dice.numbers(heads * s.s * s.e, of_v, false);
    let bias = (dice.between(0, 2) == 0).then(|| {
        // One key of a row stays; others may be masked.
        let mut bias = dice.numbers(s.t * s.s, 1.0, true);
        for (i, x) in bias.iter_mut().enumerate() {
            if i % s.s != 0 && dice.between(0, 3) == 0 {
                *x = f32::NEG_INFINITY;
            }
        }
        bias
    });
    let mut exact = Vec::new();
    for i in 0..heads * s.t {
        let (head, t) = (i / s.t, i % s.t);
        let scores: Vec<f64> = (0..s.s)
            .map(|j| {
                let dot = (0..s.d)
                    .map(|l| f64::from(q[i * s.d + l]) * f64::from(k[(head * s.s + j) * s.d + l]));
                let bias = bias.as_ref().map_or(0.0, |b| f64::from(b[t * s.s + j]));
                dot.sum::<f64>() * 0.3_f32 as f64 + bias
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|x| (x - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        for e in 0..s.e {
            let values = (0..s.s).map(|j| f64::from(v[(head * s.s + j) * s.e + e]));
            exact.push(sums(weights.iter().map(|w| w / total).zip(values)));
        }
    }
    Case {
        what: format!("{s:?}, values of {of_v:e}{}", mark(&[&v])),
        exact,
        run: Box::new(move || {
            let bias = bias.as_ref().map(|b| Bias { numbers: b, dims: [1, 1, s.t, s.s] });
            attention::forward(&s, &q, &k, &v, bias.as_ref(), false).0
        }),
    }
}

fn normalise(dice: &mut Dice) -> Case {
    let silu = dice.between(0, 1) == 0;
    let of = [1.0, 1e15, 1e-15][dice.between(0, 2)];
    let s = Groups {
        batch: dice.between(1, 3),
        count: dice.between(1, 4),
        channels: dice.between(1, 5),
        n: dice.between(2, 70),
        eps: 1e-5,
        silu,
    };
    let c = s.count * s.channels;
    let x = dice.numbers(s.batch * c * s.n, of, true);
    let (w, b) = (dice.numbers(c, 1.0, true), dice.numbers(c, 1.0, true));
    let len = s.channels * s.n;
    let mut exact = Vec::new();
    for (g, x) in x.chunks_exact(len).enumerate() {
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / len as f64;
        let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / len as f64;
        for (i, x) in x.iter().enumerate() {
            let channel = g % s.count * s.channels + i / s.n;
            let deviation = (variance + f64::from(s.eps)).sqrt();
            let y =
                (f64::from(*x) - mean) / deviation * f64::from(w[channel]) + f64::from(b[channel]);
            exact.push((if silu { y / (1.0 + (-y).exp()) } else { y }, 1.0));
        }
    }
    Case {
        what: format!("{s:?} of {of:e}"),
        exact,
        run: Box::new(move || {
            let mut y = vec![0.0; x.len()];
            // SAFETY: shapes as declared.
            unsafe { norm::group_forward(&s, Ptr::of(&x), &w, &b, Ptr::new(y.as_mut_ptr())) };
            y
        }),
    }
}

fn activate(dice: &mut Dice) -> Case {
    let len = dice.between(1, 100);
    let of = [1.0, 10.0, 1e30, 1e-40][dice.between(0, 3)];
    let x = dice.numbers(len, of, true);
    let quick = dice.between(0, 1) == 0;
    let (f, slope) = if quick { (Activation::QuickGelu, 1.702) } else { (Activation::Silu, 1.0) };
    let exact = x.iter().map(|&x| {
        let x = f64::from(x);
        (x / (1.0 + (-slope * x).exp()), x.abs().min(1.0) * 1e-2)
    });
    Case {
        what: format!("{len} activations of {of:e}, quick: {quick}"),
        exact: exact.collect(),
        run: Box::new(move || {
            let mut y = vec![0.0; x.len()];
            // SAFETY: both have `len` numbers.
            unsafe { activation::forward(f, x.len(), Ptr::of(&x), Ptr::new(y.as_mut_ptr())) };
            y
        }),
    }
}

#[test]
fn two_thousand_shapes_agree_with_their_definitions() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let kinds =
        [convolution, convolution, convolution, product, product, attend, normalise, activate];
    let cases: Vec<Case> = (0..CASES).map(|i| kinds[i % kinds.len()](&mut dice)).collect();
    with_each_set(|set| cases.iter().for_each(|case| case.check(set)));
}
