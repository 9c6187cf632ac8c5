//! Pictures in the formats that people exchange, with texts in each.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use super::exif::{self, Texts};
use super::png::{self, encode_png, pixels};
use crate::data::Images;
use crate::error::{Error, Result};

/// The keyword of A1111's text; what a JPEG or WebP file has as its user comment.
pub const PARAMETERS: &str = "parameters";

/// The keyword of this program's own record.
pub const RECORD: &str = "tweedie";

/// A picture format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lossless, with texts of any length.
    #[default]
    Png,
    /// Small, with loss: quality 95 of 100.
    Jpeg,
    /// Lossless, somewhat smaller than PNG.
    Webp,
}

/// What JPEG files are written with; most programs' choice for pictures to keep.
const QUALITY: u8 = 95;

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::Webp];

    /// How its files end.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// The format that a file of this extension has.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::Webp),
            _ => None,
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::of_extension(name)
            .ok_or_else(|| Error::unknown("picture format", name, ["png", "jpeg", "webp"]))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        })
    }
}

/// One picture of a set as a file with texts, each under its keyword.
///
/// PNG holds any texts. JPEG and WebP hold [`PARAMETERS`] as EXIF's `UserComment`, as A1111 has it,
/// and [`RECORD`] as its `MakerNote`; they have no place for others.
///
/// # Errors
///
/// [`Error::Setting`] for a picture that does not exist, of neither 1 nor 3 channels, larger than
/// the format holds, or with texts that do not fit it.
pub fn encode(
    images: &Images,
    index: usize,
    format: Format,
    texts: &[(&str, &str)],
) -> Result<Vec<u8>> {
    if format == Format::Png {
        return encode_png(images, index, texts);
    }
    let kept = |keyword: &str| {
        texts.iter().find(|(k, _)| *k == keyword).map(|(_, text)| (*text).to_owned())
    };
    if let Some((other, _)) = texts.iter().find(|(k, _)| *k != PARAMETERS && *k != RECORD) {
        return Err(Error::setting("texts", format!("{format} has no place for `{other}`")));
    }
    let exif = exif::encode(&Texts { comment: kept(PARAMETERS), record: kept(RECORD) });
    let (bytes, colour) = match images.channels {
        1 => (pixels(images, index)?, ExtendedColorType::L8),
        _ => (pixels(images, index)?, ExtendedColorType::Rgb8),
    };
    let (width, height) = (images.width as u32, images.height as u32);
    let mut out = Vec::new();
    let wrong = |e: &dyn fmt::Display| Error::setting("picture", format!("as {format}: {e}"));
    if format == Format::Jpeg {
        // A segment has a length of two bytes.
        if exif.len() > 65_000 {
            let why = format!("{} bytes of text, JPEG holds 65,000", exif.len());
            return Err(Error::setting("texts", why));
        }
        let mut encoder = JpegEncoder::new_with_quality(&mut out, QUALITY);
        encoder.set_exif_metadata(exif).map_err(|e| wrong(&e))?;
        encoder.write_image(&bytes, width, height, colour).map_err(|e| wrong(&e))?;
    } else {
        let mut encoder = WebPEncoder::new_lossless(&mut out);
        encoder.set_exif_metadata(exif).map_err(|e| wrong(&e))?;
        encoder.write_image(&bytes, width, height, colour).map_err(|e| wrong(&e))?;
    }
    Ok(out)
}

/// The texts of a PNG, JPEG or WebP file, with the keywords of [`encode`].
///
/// # Errors
///
/// [`Error::Format`] with `name` as the file where the bytes are none of these or are damaged.
pub fn decode_texts(name: &str, bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let block = match image::guess_format(bytes) {
        Ok(image::ImageFormat::Jpeg | image::ImageFormat::WebP) => {
            let wrong = |e: image::ImageError| Error::format(name, "", e.to_string());
            let mut reader = image::ImageReader::new(Cursor::new(bytes))
                .with_guessed_format()
                .map_err(|e| Error::format(name, "", e.to_string()))?;
            let mut limits = image::Limits::default();
            limits.max_alloc = Some(64 << 20);
            reader.limits(limits);
            let mut decoder = reader.into_decoder().map_err(wrong)?;
            image::ImageDecoder::exif_metadata(&mut decoder).map_err(wrong)?.unwrap_or_default()
        }
        Ok(image::ImageFormat::Png) => return png::decode_texts(name, bytes),
        _ => return Err(Error::format(name, "", "no PNG, JPEG or WebP file")),
    };
    let texts = exif::decode(&block);
    let named = [(PARAMETERS, texts.comment), (RECORD, texts.record)];
    Ok(named.into_iter().filter_map(|(k, text)| Some((k.to_owned(), text?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(channels: usize) -> Images {
        let data = (0..channels * 16 * 24).map(|i| (i / 9) as u8).collect();
        Images::new([1, channels, 16, 24], data).unwrap()
    }

    #[test]
    fn every_format_keeps_the_texts_and_the_lossless_ones_the_pixels() {
        let texts = [(PARAMETERS, "a 猫\nSteps: 20"), (RECORD, "{\"prompt\":\"猫\"}")];
        for format in Format::ALL {
            for channels in [1, 3] {
                let images = picture(channels);
                let bytes = encode(&images, 0, format, &texts).unwrap();
                let read = decode_texts("a", &bytes).unwrap();
                for (keyword, text) in texts {
                    let pair = (keyword.to_owned(), text.to_owned());
                    assert!(read.contains(&pair), "{format}: {read:?}");
                }
                let decoded = image::load_from_memory(&bytes).unwrap().to_rgb8();
                let pixel = decoded.get_pixel(23, 15).0[0];
                let wanted = images.data[16 * 24 - 1];
                let loss = if format == Format::Jpeg { 12 } else { 0 };
                assert!(pixel.abs_diff(wanted) <= loss, "{format}: {pixel} for {wanted}");
            }
        }
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(decode_texts("a", b"BM not a picture").is_err());
        for format in Format::ALL {
            assert!(encode(&picture(3), 1, format, &[]).is_err());
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
            let whole = encode(&picture(3), 0, format, &[(PARAMETERS, "x")]).unwrap();
            for cut in (0..whole.len()).step_by(7) {
                let _ = decode_texts("a", &whole[..cut]);
            }
        }
        assert!(encode(&picture(3), 0, Format::Jpeg, &[("other", "x")]).is_err());
        assert!("gif".parse::<Format>().is_err());
    }
}
