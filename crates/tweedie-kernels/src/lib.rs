//! Fused CPU kernels for diffusion networks as a backend extension of burn; the one crate of the
//! workspace that may say `unsafe`.
//!
//! Every operation takes and gives `burn` tensors and is differentiable. In f32 on the Flex
//! backend (tracked or not) it runs a kernel of this crate, forward and backward; everywhere else
//! it is composed of burn's own operations.
//!
//! AVX-512 and AVX2 give the same bits. `TWEEDIE_INSTRUCTION_SET=avx2` (or `baseline`) asks for a
//! narrower set than the machine's, to repeat what another one does; `amx` asks for the tiles of
//! machines that have them, through which matrix products go with each factor split into two of
//! bf16: up to five times as fast, with an error below `2^-15` of the sum of the products' sizes. A
//! program may ask for them for large layers alone ([`InstructionSet::prefer_tiles`]).
//!
//! The order of sums of an output element depends on the shapes of one sample only, never on the
//! size of the batch or the number of threads; gradients of weights, which sum over the batch,
//! depend on the batch but not on the number of threads.

#![allow(
    clippy::inline_always,
    reason = "kernel bodies must be inlined into the function that enables the instruction set"
)]

pub mod mmap;

mod activation;
#[cfg(test)]
mod agreement;
mod allocator;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod composed;
mod contiguous;
mod conv;
mod dot;
mod epilogue;
mod extension;
mod gated;
mod gemm;
mod instruction_set;
mod int8;

mod linear;
mod math;
mod memory;
mod modulate;
mod narrow;
#[cfg(not(target_arch = "x86_64"))]
mod no_layer;
mod norm;
mod ops;
mod optimiser;
mod packed;
mod peak;
pub mod profile;
mod resample;
mod simd;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod testing;
mod winograd;
mod write;

pub use activation::Activation;
pub use allocator::{keep_freed_memory, return_freed_memory};
pub use contiguous::{add, contiguous};
pub use epilogue::Epilogue;
pub use instruction_set::InstructionSet;
pub use mmap::is_mapped;
pub use modulate::{add_gated, layer_norm_modulated};
pub use narrow::Half;
pub use packed::{PackedWeight, conv2d_packed, linear_packed};
pub use peak::peak;

pub use ops::{
    AdamwStep, adamw, attention, conv2d, conv2d_enlarged, gelu, gelu_tanh, group_norm, layer_norm,
    linear, quick_gelu, silu, upsample_nearest,
};
