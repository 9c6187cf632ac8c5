//! Data sets: readers and the procedural shapes world.
//!
//! [`Images`] is what a reader of pictures returns; [`idx`], [`folder`] and [`csv`] are the
//! readers, with [`picture`] for a single one. [`sets`] knows public sets by name, [`fetch`] brings
//! and checks them, and [`root`] says where they lie on this machine.
//! [`shapes`] makes its pictures itself.

mod bytes;
pub mod csv;
pub mod fetch;
pub mod folder;
pub mod idx;
mod images;
pub mod picture;
pub mod root;
pub mod sets;
pub mod shapes;

pub use images::Images;
