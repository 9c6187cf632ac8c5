//! Files of weights that tweedie did not write, against what diffusers makes of them.

mod convert;
mod layouts;
mod listing;
mod torch;
mod tree;
