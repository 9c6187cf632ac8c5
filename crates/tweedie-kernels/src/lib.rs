//! Fused CPU kernels for diffusion networks as a backend extension of burn; the one crate of the
//! workspace that may say `unsafe`.
