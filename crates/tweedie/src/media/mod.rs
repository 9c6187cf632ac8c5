//! Pictures as people see them: files that say how they were made, and contact sheets.
//!
//! Nothing here touches a file: bytes in, bytes out.

mod exif;
mod format;
mod infotext;
mod png;
mod resize;
mod sheet;

pub use format::{Format, PARAMETERS, RECORD, decode_texts, encode};
pub use infotext::Infotext;
pub use png::encode_png;
pub use resize::{extended, resized, with_channels};
pub use sheet::{Panel, Sheet};
