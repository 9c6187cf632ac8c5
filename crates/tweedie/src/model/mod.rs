//! Networks with sites, in the configuration and naming of the published classes.
//!
//! Read [`config`] first, then [`unet`] (the recursive body), [`site`] (how blocks announce
//! themselves) and one network.

pub mod attention;
pub mod config;
pub mod edge;
pub mod embed;
pub mod layers;
pub mod ops;
pub mod resnet;
pub mod site;
pub mod transformer;
pub mod unet;
mod unet2d;
mod unet2d_condition;

pub use unet2d::UNet2D;
pub use unet2d_condition::UNet2DCondition;
