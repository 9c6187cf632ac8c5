//! Data sets: readers and the procedural shapes world.
//!
//! [`Images`] is what a reader of pictures returns; [`idx`], [`folder`] and [`csv`] are the
//! readers. [`sets`] knows public sets by name and fetches and checks them; [`root`] says where
//! they lie on this machine.

mod bytes;
pub mod csv;
pub mod folder;
pub mod idx;
mod images;
pub mod root;
pub mod sets;

pub use images::Images;
