//! PNG files with texts in them.

use std::io::Cursor;

use crate::data::Images;
use crate::error::{Error, Result};

/// Texts longer than this together are not read; a picture's own record has a few kilobytes.
const MOST_TEXT: usize = 1 << 20;

/// One picture of a set as a PNG file with texts: `tEXt` where a text is Latin-1, `iTXt` otherwise.
///
/// # Errors
///
/// [`Error::Setting`] for a picture that does not exist, or of neither 1 nor 3 channels.
pub fn encode_png(images: &Images, index: usize, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let pixels = pixels(images, index)?;
    let colour = if images.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb };
    let mut bytes = Vec::new();
    encode(images, colour, &pixels, texts, &mut bytes)
        .map_err(|e| Error::setting("picture", e.to_string()))?;
    Ok(bytes)
}

fn encode(
    images: &Images,
    colour: png::ColorType,
    pixels: &[u8],
    texts: &[(&str, &str)],
    out: &mut Vec<u8>,
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(out, images.width as u32, images.height as u32);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        let (keyword, text) = ((*keyword).to_owned(), (*text).to_owned());
        if text.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk(keyword, text)?;
        } else {
            encoder.add_itxt_chunk(keyword, text)?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()
}

/// The pixels of one picture as files have them, a pixel after the other.
pub(super) fn pixels(images: &Images, index: usize) -> Result<Vec<u8>> {
    let Some(planes) = images.get(index) else {
        let why = format!("picture {index} of {} was asked for", images.n);
        return Err(Error::setting("picture", why));
    };
    let channels = images.channels;
    if channels != 1 && channels != 3 {
        return Err(Error::setting("picture", format!("{channels} channels where 1 or 3 fit")));
    }
    let size = planes.len() / channels;
    Ok((0..size).flat_map(|i| (0..channels).map(move |c| planes[c * size + i])).collect())
}

/// The texts of a PNG file, in the order in which they stand.
///
/// # Errors
///
/// [`Error::Format`] with `name` as the file where the bytes are no PNG or the texts are absurdly
/// long.
pub(super) fn decode_texts(name: &str, bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let wrong = |why: String| Error::format(name, "", why);
    let mut decoder =
        png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 64 << 20 });
    decoder.set_ignore_text_chunk(false);
    let mut reader = decoder.read_info().map_err(|e| wrong(format!("no PNG file: {e}")))?;
    // Texts may stand behind the pixels too; a picture that is cut short has said what it says.
    let _ = reader.finish();
    let info = reader.info();
    let mut texts = Vec::new();
    let mut length = 0;
    for chunk in &info.uncompressed_latin1_text {
        length += chunk.text.len();
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.utf8_text {
        let text = chunk.get_text().map_err(|e| wrong(format!("a text does not unpack: {e}")))?;
        length += text.len();
        texts.push((chunk.keyword.clone(), text));
    }
    if length > MOST_TEXT {
        return Err(wrong(format!("{length} bytes of text where at most {MOST_TEXT} are read")));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(channels: usize) -> Images {
        let data = (0..channels * 6).map(|i| (i * 7) as u8).collect();
        Images::new([1, channels, 2, 3], data).unwrap()
    }

    #[test]
    fn texts_come_back_whatever_the_script() {
        let texts =
            [("parameters", "a red circle\nSteps: 20"), ("tweedie", "{\"prompt\":\"猫 – кот\"}")];
        for channels in [1, 3] {
            let bytes = encode_png(&picture(channels), 0, &texts).unwrap();
            let read = decode_texts("a.png", &bytes).unwrap();
            for (keyword, text) in texts {
                assert!(read.contains(&(keyword.to_owned(), text.to_owned())));
            }
            let decoded = image::load_from_memory(&bytes).unwrap();
            assert_eq!((decoded.width(), decoded.height()), (3, 2));
            if channels == 3 {
                assert_eq!(decoded.to_rgb8().get_pixel(1, 0).0, [7, 49, 91]);
            }
        }
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(encode_png(&picture(3), 1, &[]).is_err());
        assert!(decode_texts("a.png", b"not a picture").is_err());
        let whole = encode_png(&picture(3), 0, &[("parameters", "x")]).unwrap();
        for cut in 0..whole.len() {
            let _ = decode_texts("a.png", &whole[..cut]);
        }
    }
}
