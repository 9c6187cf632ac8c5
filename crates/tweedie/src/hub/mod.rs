//! Model folders and files; the only place that knows their vocabulary.
//!
//! A *folder* is a tree of files as diffusers writes it, on disk or inside the binary; a
//! *component* is one of its parts (`unet`, `vae`, `scheduler` …); a *tensor set* is the weights of
//! a component, in one safetensors file or in several. Everything that is read here comes from
//! strangers: each length, offset, name and number is checked before it is used, no allocation
//! follows a number that a file merely claims, and what is wrong is said in one line that names
//! the file and the key.

pub mod atomic;
pub mod builtin;
mod bytes;
mod cache;
pub mod config;
pub mod convert;
mod decode;
pub mod embedding;
pub mod folder;
#[doc(hidden)]
pub mod fuzz;
mod header;
pub mod inspect;
pub mod json;
mod layout;
pub mod lora;
mod names;
mod narrow;
pub mod parts;
mod pickle;
pub mod save;
pub mod schedule;
pub mod scheduler;
mod single;
pub mod tensor_set;
pub mod tensors;
pub mod tokenizer;
mod torch;
pub mod vocabulary;
pub mod write;

pub use convert::{Target, convert};
pub use embedding::Embedding;
pub use folder::{Component, Folder, ModelIndex};
pub use inspect::{Report, inspect, inspect_folder, inspect_parts};
pub use lora::Lora;
pub use parts::{Missing, Opened, Parts};
pub use save::{Output, Values, encode_safetensors, write_safetensors};
pub use scheduler::{SchedulerClass, SchedulerConfig};
pub use tensor_set::{Edit, TensorSet, Wanted, load};
pub use tensors::{Dtype, TensorFile, TensorInfo};
pub use tokenizer::{ClipTokenizer, Tokens};
pub use vocabulary::ClipVocabulary;
pub use write::{ModelFolder, outputs};
