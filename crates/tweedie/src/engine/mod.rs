//! Opens a model, builds what a spec asks for, and runs it.
//!
//! This is the one place where the parts meet: the library's own entry point, and all that the
//! command line and the server call.

mod autoencode;
pub mod bench;
mod component;
mod cond;
mod device;
mod edit;
mod evaluate;
mod forward;
mod generate;
mod inputs;
mod keep;
mod lora;
mod machine;
mod memory;
mod open;
mod record;
mod reward;
mod search;
mod sizes;
mod stamp;
mod task;
mod text;
mod tune;
mod watch;

pub use component::{open_control, wanted};
pub use cond::Texts;
pub use device::{DeviceInfo, KINDS, Memory, built_with, devices, memory, peak_memory};
pub use edit::{Trace, evaluations, inversion};
pub use evaluate::{GROUPS, Group, Measured, evaluate_captions, evaluate_classes};
pub use forward::{COMPONENTS, Forwarded, LoadedComponent, forward};
pub use generate::{
    Generated, Pooled, Table, check, generate, generate_each, generate_through, preview, table,
};
pub use inputs::{Controlling, Inputs, Noises, read_picture, source};
pub use lora::Applied;
pub use machine::{Engine, instruction_set};
pub use memory::{Needs, bytes};
pub use open::{Classes, Model, Second};
pub use reward::open_classifier;
pub use text::{EncodedPrompt, Learned, Reading, Text, TextPart};
pub use tune::{apart, part_of, tune};
pub use tweedie_kernels::{InstructionSet, keep_freed_memory, return_freed_memory};
pub use watch::{Cancel, Cancellable, Stage, Unwatching, Watch};
