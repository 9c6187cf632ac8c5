//! Pictures in requests and answers.

use std::io::Cursor;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};

use image::{DynamicImage, GrayImage, ImageFormat, ImageReader, Luma};
use tweedie::data::picture::{Limits, Target, from_bytes};
use tweedie::media::{self, Format};

use super::Result;
use crate::refusal::Refusal;

/// Takes base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes as base64.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A file from base64, as it is or as a `data:` URL. Addresses of other machines are not fetched.
pub(crate) fn of_base64(param: &str, text: &str) -> Result<Arc<[u8]>> {
    let text = match text.strip_prefix("data:") {
        Some(url) => url.split_once("base64,").map_or("", |(_, data)| data),
        None => text,
    };
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match LENIENT.decode(plain.as_bytes()) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes.into()),
        _ => {
            let why = format!("{param}: wanted a picture in base64, as it is or as a data: URL");
            Err(Refusal::field(param, why))
        }
    }
}

/// The mask that a picture's transparency is, as a PNG whose white parts are to be repainted: in
/// OpenAI's interface what is transparent is painted. `None` for a picture without transparency.
pub(crate) fn transparent(param: &str, bytes: &[u8], limits: &Limits) -> Result<Option<Arc<[u8]>>> {
    let wrong = |e: image::ImageError| Refusal::field(param, format!("{param}: {e}"));
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| wrong(image::ImageError::IoError(e)))?;
    let mut inner = image::Limits::default();
    inner.max_image_width = Some(limits.max_side);
    inner.max_image_height = Some(limits.max_side);
    inner.max_alloc = Some(limits.max_decoded);
    reader.limits(inner);
    let picture = reader.decode().map_err(wrong)?;
    if !picture.color().has_alpha() {
        return Ok(None);
    }
    let picture = picture.into_rgba8();
    let mask = GrayImage::from_fn(picture.width(), picture.height(), |x, y| {
        Luma([if picture.get_pixel(x, y).0[3] < 128 { 255 } else { 0 }])
    });
    if mask.pixels().all(|p| p.0[0] == 0) {
        return Ok(None);
    }
    let mut png = Cursor::new(Vec::new());
    DynamicImage::from(mask).write_to(&mut png, ImageFormat::Png).map_err(wrong)?;
    Ok(Some(png.into_inner().into()))
}

/// A picture of ours in another format, with the record of how it was made.
pub(crate) fn recoded(png: &[u8], format: Format) -> Result<Vec<u8>> {
    if format == Format::Png {
        return Ok(png.to_vec());
    }
    let texts = media::decode_texts("the picture", png)?;
    let images = from_bytes("the picture".as_ref(), png, &Target::default(), &Limits::default())?;
    let texts: Vec<(&str, &str)> = texts.iter().map(|(k, t)| (k.as_str(), t.as_str())).collect();
    Ok(media::encode(&images, 0, format, &texts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_transparent_is_repainted() {
        let encode = |picture: DynamicImage| {
            let mut png = Cursor::new(Vec::new());
            picture.write_to(&mut png, ImageFormat::Png).unwrap();
            png.into_inner()
        };
        let half = image::RgbaImage::from_fn(4, 2, |x, _| {
            image::Rgba([9, 9, 9, if x < 2 { 0 } else { 255 }])
        });
        let limits = Limits::default();
        let mask = transparent("mask", &encode(half.into()), &limits).unwrap().unwrap();
        let mask = image::load_from_memory(&mask).unwrap().into_luma8();
        assert_eq!(mask.into_raw(), [255, 255, 0, 0, 255, 255, 0, 0]);
        let opaque = encode(image::RgbImage::new(4, 2).into());
        assert_eq!(transparent("mask", &opaque, &limits).unwrap(), None);
        assert_eq!(transparent("mask", b"nothing", &limits).unwrap_err().status(), 400);
    }

    #[test]
    fn base64_comes_in_several_dresses() {
        let bytes: &[u8] = &[1, 2, 3, 250];
        let text = to_base64(bytes);
        for dress in [
            text.clone(),
            text.trim_end_matches('=').to_owned(),
            format!("data:image/png;base64,{text}"),
            format!("{}\n{}", &text[..3], &text[3..]),
        ] {
            assert_eq!(&*of_base64("init", &dress).unwrap(), bytes, "{dress}");
        }
        for bad in ["", "http://example.org/a.png", "data:image/png,abc", "a b c !"] {
            assert_eq!(of_base64("init", bad).unwrap_err().param.as_deref(), Some("init"), "{bad}");
        }
    }
}
