//! The kernels at the shapes that occur in Stable Diffusion 1.5, DiT-XL/2 and a small training
//! step, some of them beside the tensor library's own operations (`burn`).
//!
//! `cargo bench -p tweedie-kernels [-- FILTER]`. The rate is in multiplications of the definition;
//! `TWEEDIE_INSTRUCTION_SET` chooses the instructions, `RAYON_NUM_THREADS` the threads.

use std::hint::black_box;
use std::time::Duration;

use burn::tensor::module as burn_module;
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{Device, Tensor, TensorData};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use tweedie_kernels::{self as kernels, Activation, Epilogue, PackedWeight};

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn numbers(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn tensor<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product()), shape);
    Tensor::from_data(data, &Device::flex())
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    group
}

fn rate(group: &mut Group<'_>, products: usize) {
    group.throughput(Throughput::Elements(products as u64));
}

fn convolution(c: &mut Criterion) {
    let mut group = group(c, "convolution");
    for (name, [b, i, side, o], k, stride) in [
        ("3x3 320 64x64", [1, 320, 64, 320], 3, 1),
        ("3x3 640 32x32", [1, 640, 32, 640], 3, 1),
        ("3x3 1280 8x8", [1, 1280, 8, 1280], 3, 1),
        ("3x3 128 512x512", [1, 128, 512, 128], 3, 1),
        ("3x3 stride 2 320 64x64", [1, 320, 64, 320], 3, 2),
        ("1x1 320 64x64", [1, 320, 64, 320], 1, 1),
        ("3x3 128 16x16 of 64", [64, 128, 16, 128], 3, 1),
    ] {
        let (pad, x, w) = ((k - 1) / 2, tensor([b, i, side, side]), tensor([o, i, k, k]));
        let out = (side + 2 * pad - k) / stride + 1;
        rate(&mut group, b * o * out * out * i * k * k);
        group.bench_function(name, |bench| {
            bench.iter(|| kernels::conv2d(x.clone(), w.clone(), None, [stride; 2], [pad; 4]));
        });
        if let Some(packed) = PackedWeight::new(&w.clone().reshape([o * i * k * k]), &[o, i, k, k])
        {
            group.bench_function(format!("{name}, packed"), |bench| {
                bench.iter(|| {
                    let x = x.clone();
                    kernels::conv2d_packed(x, 1, &packed, [k; 2], None, [stride; 2], [pad; 4])
                });
            });
        }
    }
    let (x, w) = (tensor([1, 320, 64, 64]), tensor([320, 320, 3, 3]));
    rate(&mut group, 320 * 320 * 9 * 64 * 64);
    group.bench_function("3x3 320 64x64, burn", |bench| {
        bench.iter(|| {
            let options = ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
            burn_module::conv2d(x.clone(), w.clone(), None, options)
        });
    });
    let (x, w) = (tensor([1, 256, 256, 256]), tensor([256, 256, 3, 3]));
    rate(&mut group, 256 * 256 * 9 * 512 * 512);
    group.bench_function("3x3 256 enlarged to 512x512", |bench| {
        bench.iter(|| kernels::conv2d_enlarged(x.clone(), 2, w.clone(), None, [1; 2], [1; 4]));
    });
    group.finish();
}

fn linear(c: &mut Criterion) {
    let mut group = group(c, "linear");
    for (name, [t, i, o]) in [
        ("4096x320 to 320", [4096, 320, 320]),
        ("256x1280 to 1280", [256, 1280, 1280]),
        ("77x768 to 1280", [77, 768, 1280]),
        ("1x1280 to 1280", [1, 1280, 1280]),
        ("256x1152 to 4608", [256, 1152, 4608]),
    ] {
        let (x, w) = (tensor([1, t, i]), tensor([o, i]));
        rate(&mut group, t * i * o);
        group.bench_function(name, |bench| {
            bench.iter(|| kernels::linear(x.clone(), w.clone(), None));
        });
        let flat = w.clone().reshape([o * i]);
        let forms = [
            ("packed", PackedWeight::new(&flat, &[o, i])),
            ("int8", PackedWeight::bytes8(&flat, &[o, i])),
        ];
        for (form, packed) in forms {
            let Some(packed) = packed else { continue };
            group.bench_function(format!("{name}, {form}"), |bench| {
                bench.iter(|| kernels::linear_packed(x.clone(), &packed, None, Epilogue::Plain));
            });
        }
    }
    let (x, w) = (tensor([1, 4096, 320]), tensor([2560, 320]));
    rate(&mut group, 4096 * 320 * 2560);
    if let Some(packed) = PackedWeight::new(&w.reshape([2560 * 320]), &[2560, 320]) {
        group.bench_function("4096x320 to 2560, GEGLU", |bench| {
            let gate = Epilogue::Gated(Activation::Gelu);
            bench.iter(|| kernels::linear_packed(x.clone(), &packed, None, gate));
        });
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let mut group = group(c, "attention");
    for (name, [b, h, t, s, d]) in [
        ("8x40 4096 to itself", [1, 8, 4096, 4096, 40]),
        ("8x80 1024 to itself", [1, 8, 1024, 1024, 80]),
        ("8x40 4096 to 77", [1, 8, 4096, 77, 40]),
        ("16x72 256 to itself", [1, 16, 256, 256, 72]),
        ("16x8 256 to itself of 16", [16, 16, 256, 256, 8]),
    ] {
        let (q, k, v) = (tensor([b, h, t, d]), tensor([b, h, s, d]), tensor([b, h, s, d]));
        let scale = 1.0 / (d as f64).sqrt();
        rate(&mut group, 2 * b * h * t * s * d);
        group.bench_function(name, |bench| {
            bench.iter(|| kernels::attention(q.clone(), k.clone(), v.clone(), None, scale));
        });
        if t * s < 1 << 21 {
            group.bench_function(format!("{name}, burn"), |bench| {
                bench.iter(|| {
                    let options =
                        AttentionModuleOptions { scale: Some(scale), ..Default::default() };
                    let (q, k, v) = (q.clone(), k.clone(), v.clone());
                    burn_module::attention(q, k, v, None, None, options)
                });
            });
        }
    }
    group.finish();
}

/// What goes over memory once or twice: the rate is in numbers.
fn passes(c: &mut Criterion) {
    let mut group = group(c, "passes");
    let image = tensor([2, 320, 4096]);
    rate(&mut group, 2 * 320 * 4096);
    group.bench_function("group norm and SiLU 320 64x64", |bench| {
        let (w, b) = (tensor([320]), tensor([320]));
        bench.iter(|| kernels::group_norm(image.clone(), 32, w.clone(), b.clone(), 1e-5, true));
    });
    let tokens = tensor([2, 256, 1152]);
    rate(&mut group, 2 * 256 * 1152);
    group.bench_function("layer norm 256x1152", |bench| {
        bench.iter(|| kernels::layer_norm(tokens.clone(), None, None, 1e-6));
    });
    group.bench_function("adaptive layer norm 256x1152", |bench| {
        let (shift, scale) = (tensor([2, 1152]), tensor([2, 1152]));
        bench.iter(|| {
            kernels::layer_norm_modulated(tokens.clone(), shift.clone(), scale.clone(), 1e-6)
        });
    });
    group.bench_function("GELU 256x1152", |bench| {
        bench.iter(|| kernels::gelu_tanh(tokens.clone()));
    });
    group.finish();
}

/// Forward and backward, as a training step takes them.
fn gradients(c: &mut Criterion) {
    let mut group = group(c, "gradients");
    let tracked = |shape: [usize; 4]| {
        let data = TensorData::new(numbers(shape.iter().product()), shape);
        Tensor::<4>::from_data(data, &Device::flex().autodiff()).require_grad()
    };
    let (x, w) = (tracked([64, 128, 16, 16]), tracked([128, 128, 3, 3]));
    rate(&mut group, 3 * 64 * 128 * 128 * 9 * 256);
    group.bench_function("3x3 128 16x16 of 64", |bench| {
        bench.iter(|| {
            let y = kernels::conv2d(x.clone(), w.clone(), None, [1; 2], [1; 4]);
            let grads = y.sum().backward();
            black_box((x.grad(&grads), w.grad(&grads)));
        });
    });
    let q = tracked([16, 16, 256, 8]);
    rate(&mut group, 7 * 16 * 16 * 256 * 256 * 8);
    group.bench_function("attention 16x8 256 of 16", |bench| {
        bench.iter(|| {
            let y = kernels::attention(q.clone(), q.clone(), q.clone(), None, 0.35);
            let grads = y.sum().backward();
            black_box(q.grad(&grads));
        });
    });
    group.finish();
}

criterion_group!(benches, convolution, linear, attention, passes, gradients);
criterion_main!(benches);
