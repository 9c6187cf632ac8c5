//! Pictures as people see them: PNG files that say how they were made, and contact sheets.
//!
//! Nothing here touches a file: bytes in, bytes out.

mod infotext;
mod png;
mod sheet;

pub use infotext::Infotext;
pub use png::{decode_texts, encode_png};
pub use sheet::{Panel, Sheet};
