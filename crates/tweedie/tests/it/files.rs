//! Files of weights that tweedie did not write, against what diffusers makes of them.

mod layouts;
mod listing;
