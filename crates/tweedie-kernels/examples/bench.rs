//! Times of the kernels beside burn's own operations: forward, and forward with backward.
//!
//! `cargo run --release -p tweedie-kernels --example bench [FILTER] [THREADS] [ours]`; `ours` leaves burn's own out

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::time::{Duration, Instant};

use burn::tensor::activation as burn_activation;
use burn::tensor::module as burn_module;
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{Device, Tensor, TensorData};
use tweedie_kernels as kernels;

type Operation = Box<dyn Fn(&[Tensor<4>]) -> Tensor<4>>;

struct Case {
    name: &'static str,
    /// Floating-point operations of the forward pass; the backward pass has twice as many.
    flops: f64,
    shapes: Vec<[usize; 4]>,
    ours: Operation,
    burns: Operation,
}

fn conv(name: &'static str, [b, c, h, o]: [usize; 4], k: usize, stride: usize) -> Case {
    let pad = (k - 1) / 2;
    let oh = (h + 2 * pad - k) / stride + 1;
    Case {
        name,
        flops: 2.0 * (b * o * oh * oh * c * k * k) as f64,
        shapes: vec![[b, c, h, h], [o, c, k, k], [1, 1, 1, o]],
        ours: Box::new(move |t| {
            let bias = Some(t[2].clone().reshape([o]));
            kernels::conv2d(t[0].clone(), t[1].clone(), bias, [stride; 2], [pad; 4])
        }),
        burns: Box::new(move |t| {
            let bias = Some(t[2].clone().reshape([o]));
            let options = ConvOptions::new([stride; 2], [pad; 2], [1; 2], 1);
            burn_module::conv2d(t[0].clone(), t[1].clone(), bias, options)
        }),
    }
}

fn linear(name: &'static str, [b, t, k, o]: [usize; 4]) -> Case {
    Case {
        name,
        flops: 2.0 * (b * t * k * o) as f64,
        shapes: vec![[1, b, t, k], [1, 1, o, k], [1, 1, 1, o]],
        ours: Box::new(move |x| {
            let (w, bias) = (x[1].clone().reshape([o, k]), x[2].clone().reshape([o]));
            kernels::linear(x[0].clone().reshape([b, t, k]), w, Some(bias)).unsqueeze()
        }),
        burns: Box::new(move |x| {
            let (w, bias) = (x[1].clone().reshape([o, k]), x[2].clone().reshape([o]));
            let x = x[0].clone().reshape([b, t, k]);
            burn_module::linear(x, w.transpose(), Some(bias)).unsqueeze()
        }),
    }
}

fn attention(name: &'static str, [b, h, t, d]: [usize; 4], s: usize) -> Case {
    let scale = 1.0 / (d as f64).sqrt();
    Case {
        name,
        flops: 4.0 * (b * h * t * s * d) as f64,
        shapes: vec![[b, h, t, d], [b, h, s, d], [b, h, s, d]],
        ours: Box::new(move |x| {
            kernels::attention(x[0].clone(), x[1].clone(), x[2].clone(), None, scale)
        }),
        burns: Box::new(move |x| {
            burn_module::attention(
                x[0].clone(),
                x[1].clone(),
                x[2].clone(),
                None,
                None,
                AttentionModuleOptions { scale: Some(scale), softcap: None, is_causal: false },
            )
        }),
    }
}

fn group_norm(name: &'static str, [b, c, n]: [usize; 3]) -> Case {
    let ones = move |x: &Tensor<4>| x.clone().reshape([c]);
    Case {
        name,
        flops: 10.0 * (b * c * n) as f64,
        shapes: vec![[1, b, c, n], [1, 1, 1, c], [1, 1, 1, c]],
        ours: Box::new(move |x| {
            let y = x[0].clone().reshape([b, c, n]);
            kernels::group_norm(y, 16, ones(&x[1]), ones(&x[2]), 1e-5, true).unsqueeze()
        }),
        burns: Box::new(move |x| {
            let y = x[0].clone().reshape([b, 16, c / 16 * n]);
            let (var, mean) = y.clone().var_mean_bias(2);
            let y = ((y - mean) / (var + 1e-5).sqrt()).reshape([b, c, n]);
            let weight = x[1].clone().reshape([1, c, 1]);
            let bias = x[2].clone().reshape([1, c, 1]);
            burn_activation::silu(y * weight + bias).unsqueeze()
        }),
    }
}

fn cases() -> Vec<Case> {
    vec![
        conv("conv 3x3 64->64 32x32 b32", [32, 64, 32, 64], 3, 1),
        conv("conv 3x3 128->128 16x16 b32", [32, 128, 16, 128], 3, 1),
        conv("conv 3x3 128->128 8x8 b32", [32, 128, 8, 128], 3, 1),
        conv("conv 3x3 3->64 32x32 b32", [32, 3, 32, 64], 3, 1),
        conv("conv 3x3 s2 64->64 32x32 b32", [32, 64, 32, 64], 3, 2),
        conv("conv 1x1 128->64 32x32 b32", [32, 128, 32, 64], 1, 1),
        linear("linear [32,256,128]->512", [32, 256, 128, 512]),
        linear("linear [32,256,512]->128", [32, 256, 512, 128]),
        attention("attention b32 h4 t256 d32", [32, 4, 256, 32], 256),
        attention("attention b32 h4 t256 s16 d32", [32, 4, 256, 32], 16),
        group_norm("group_norm+silu [32,64,1024]", [32, 64, 1024]),
        Case {
            name: "silu [32,64,1024]",
            flops: 4.0 * 2_097_152.0,
            shapes: vec![[1, 32, 64, 1024]],
            ours: Box::new(|x| kernels::silu(x[0].clone())),
            burns: Box::new(|x| burn_activation::silu(x[0].clone())),
        },
        Case {
            name: "layer_norm [32,256,128]",
            flops: 8.0 * 1_048_576.0,
            shapes: vec![[1, 32, 256, 128], [1, 1, 1, 128], [1, 1, 1, 128]],
            ours: Box::new(|x| {
                let (w, b) = (x[1].clone().reshape([128]), x[2].clone().reshape([128]));
                let x = x[0].clone().reshape([32, 256, 128]);
                kernels::layer_norm(x, Some(w), Some(b), 1e-5).unsqueeze()
            }),
            burns: Box::new(|x| {
                let (w, b) = (x[1].clone().reshape([128]), x[2].clone().reshape([128]));
                burn_module::layer_norm(x[0].clone(), w, Some(b), 1e-5)
            }),
        },
        Case {
            name: "upsample x2 [32,64,16,16]",
            flops: 2_097_152.0,
            shapes: vec![[32, 64, 16, 16]],
            ours: Box::new(|x| kernels::upsample_nearest(x[0].clone(), 2)),
            burns: Box::new(|x| {
                let x = x[0].clone().reshape([32, 64, 16, 1, 16, 1]);
                x.expand([32, 64, 16, 2, 16, 2]).reshape([32, 64, 32, 32])
            }),
        },
    ]
}

fn numbers(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Time that this thread has spent on a core, where the system tells: a busy machine does not
/// disturb it, but it holds for one thread only.
fn core_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Time of one run: the shortest of several within about half a second; with one thread, the mean
/// of the time on the core.
fn best(mut f: impl FnMut()) -> Duration {
    f();
    let begin = Instant::now();
    let core = core_time().filter(|_| rayon::current_num_threads() == 1);
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || (begin.elapsed() < Duration::from_millis(500) && runs < 50) {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed());
        runs += 1;
    }
    match (core, core_time()) {
        (Some(before), Some(after)) => after.saturating_sub(before) / runs,
        _ => best,
    }
}

fn time(case: &Case, f: &Operation, tracked: bool) -> Duration {
    let device = if tracked { Device::flex().autodiff() } else { Device::flex() };
    let operands: Vec<Tensor<4>> = case
        .shapes
        .iter()
        .map(|shape| {
            let data = TensorData::new(numbers(shape.iter().product()), *shape);
            let x = Tensor::from_data(data, &device);
            if tracked { x.require_grad() } else { x }
        })
        .collect();
    best(|| {
        let y = f(&operands);
        if tracked {
            let grads = y.sum().backward();
            for x in &operands {
                std::hint::black_box(x.grad(&grads));
            }
        } else {
            std::hint::black_box(y);
        }
    })
}

/// Rate of a large product of the `gemm` crate, on all threads.
fn peak(threads: usize) -> f64 {
    let n = 1024;
    let (a, b) = (numbers(n * n), numbers(n * n));
    let mut c = vec![0.0_f32; n * n];
    let s = n as isize;
    let time = best(|| {
        // SAFETY: three square matrices of n rows.
        unsafe {
            gemm::gemm(
                n,
                n,
                n,
                c.as_mut_ptr(),
                1,
                s,
                false,
                a.as_ptr(),
                1,
                s,
                b.as_ptr(),
                1,
                s,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(threads),
            );
        }
    });
    2.0 * (n * n * n) as f64 / time.as_secs_f64() / 1e9
}

fn bench(filter: &str, threads: usize, only_ours: bool) {
    let peak = peak(threads);
    let set = kernels::InstructionSet::current().name();
    println!("{set}, {threads} threads; gemm 1024^3: {peak:.0} GFLOP/s");
    println!(
        "{:32} {:>9} {:>8} {:>6} {:>7}   {:>9} {:>8} {:>6} {:>7}",
        "forward | forward + backward",
        "ms",
        "GFLOP/s",
        "%",
        "x burn",
        "ms",
        "GFLOP/s",
        "%",
        "x burn"
    );
    for case in cases().iter().filter(|c| c.name.contains(filter)) {
        print!("{:32}", case.name);
        for tracked in [false, true] {
            let ours = time(case, &case.ours, tracked).as_secs_f64();
            let burns =
                if only_ours { f64::NAN } else { time(case, &case.burns, tracked).as_secs_f64() };
            let flops = case.flops * if tracked { 3.0 } else { 1.0 };
            let rate = flops / ours / 1e9;
            print!(
                " {:>9.3} {rate:>8.1} {:>6.1} {:>7.2}  ",
                ours * 1e3,
                100.0 * rate / peak,
                burns / ours
            );
        }
        println!();
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let filter = arguments.next().unwrap_or_default();
    let threads = arguments.next().and_then(|t| t.parse().ok()).unwrap_or(2);
    let only_ours = arguments.next().is_some_and(|a| a == "ours");
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(|| bench(&filter, threads, only_ours)),
        Err(error) => println!("{error}"),
    }
}
