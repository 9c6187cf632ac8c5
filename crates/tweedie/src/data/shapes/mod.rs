//! The shapes world: procedural scenes of one to three flat objects with captions and exact truth.
//!
//! A [`Scene`] is drawn from a seed, rendered to a [`Picture`] of 64x64 pixels and told by a
//! [`Caption`]. All of it is a function of numbers: nothing is stored, and the bits are the same on
//! every platform. `docs/shapes.md` describes the world, its distribution and its held-out sets.
//!
//! ```
//! use tweedie::data::shapes::{Asked, Caption, Scene, Split};
//!
//! let scene = Scene::sample(1, 0, Split::Train);
//! let picture = scene.render();
//! let caption = Caption::sample(&scene, 1, 0);
//! assert_eq!(picture.to_f32_chw().len(), 3 * 64 * 64);
//! assert_eq!(Asked::parse(&caption.text)?, caption.asked);
//! # Ok::<(), tweedie::Error>(())
//! ```

mod asked;
mod attribute;
mod caption;
mod change;
mod draws;
mod outline;
mod parse;
mod picture;
pub mod quality;
mod reader;
mod render;
mod scene;
mod score;
mod split;

pub use asked::{Asked, AskedObject};
pub use attribute::{Background, Colour, Place, Relation, Shape, Size};
pub use caption::Caption;
pub use change::{Change, ChangeKind};
pub use parse::vocabulary;
pub use picture::Picture;
pub use reader::{LEAST_SIMILARITY, Reading, Why, read};
pub use render::{Bounds, Truth};
pub use scene::{LEAST_VISIBLE, Object, SIDE, Scene};
pub use score::{ObjectScore, Score, score, score_reading};
pub use split::{ARRANGEMENTS, HeldOut, PAIRS, Split, held_out, is_held_out};
