//! Pictures side by side, as a PNG.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use crate::data::Images;
use crate::error::{Error, Result};

/// All pictures in rows of a square-ish sheet, one pixel apart, as the bytes of a PNG.
///
/// # Errors
///
/// [`Error::Setting`] where there is no picture or it is neither grey nor RGB.
pub fn png(images: &Images) -> Result<Vec<u8>> {
    if images.n == 0 || ![1, 3].contains(&images.channels) {
        let why = format!("{} pictures of {} channels cannot be shown", images.n, images.channels);
        return Err(Error::setting("samples", why));
    }
    let columns = (images.n as f64).sqrt().ceil() as usize;
    let rows = images.n.div_ceil(columns);
    let (width, height) = (columns * (images.width + 1) - 1, rows * (images.height + 1) - 1);
    let channels = images.channels;
    let mut data = vec![255_u8; width * height * channels];
    let area = images.height * images.width;
    for (i, picture) in images.data.chunks(channels * area).enumerate() {
        let (left, top) = (i % columns * (images.width + 1), i / columns * (images.height + 1));
        for (j, value) in picture.iter().enumerate() {
            let (channel, y, x) = (j / area, j % area / images.width, j % images.width);
            data[((top + y) * width + left + x) * channels + channel] = *value;
        }
    }
    let (w, h) = (width as u32, height as u32);
    let picture = match channels {
        1 => GrayImage::from_raw(w, h, data).map(DynamicImage::ImageLuma8),
        _ => RgbImage::from_raw(w, h, data).map(DynamicImage::ImageRgb8),
    };
    let failed = || Error::setting("samples", "the sheet is too large for a PNG");
    let picture = picture.ok_or_else(failed)?;
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, ImageFormat::Png).map_err(|_| failed())?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_where_they_belong() {
        let images = Images::new([3, 3, 2, 2], (0..36).collect()).unwrap();
        let sheet = image::load_from_memory(&png(&images).unwrap()).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (5, 5));
        assert_eq!(sheet.get_pixel(0, 0).0, [0, 4, 8]);
        assert_eq!(sheet.get_pixel(4, 1).0, [15, 19, 23], "the second picture's last pixel");
        assert_eq!(sheet.get_pixel(0, 3).0, [24, 28, 32], "the third begins the second row");
        assert_eq!(sheet.get_pixel(2, 0).0, [255; 3]);
        assert!(png(&Images::default()).is_err());
    }
}
