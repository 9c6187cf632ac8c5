//! Prompts as people write them for Stable Diffusion, before any token: weights in brackets,
//! `BREAK`, prompts longer than a text encoder's window, and tags that ask for a LoRA.
//!
//! The conventions are those of AUTOMATIC1111's web interface, which most published prompts follow:
//!
//! ```
//! use tweedie::prompt::{Piece, parse};
//!
//! let pieces = parse("an (important) word")?;
//! assert_eq!(pieces[1], Piece::Text { text: "important".into(), weight: 1.1 });
//! # Ok::<(), tweedie::Error>(())
//! ```
//!
//! [`parse`] cuts a prompt into pieces of one weight, [`chunks`] lays their tokens out in windows,
//! [`Emphasis`] says how weights change what the encoder makes of a window, and [`tags`] takes
//! `<lora:name:0.8>` out, [`words`] finds the names of learned embeddings. All of it is text and numbers; no network and no file is known here.

mod chunk;
mod emphasis;
mod parse;
mod tags;
mod words;

pub use chunk::{Chunk, Chunking, Item, Slot, chunks};
pub use emphasis::Emphasis;
pub use parse::{Piece, parse};
pub use tags::{Tag, tags};
pub use words::{Part, words};
