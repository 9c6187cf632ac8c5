//! Pictures brought to another size.

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma};

use crate::data::Images;
use crate::error::{Error, Result};

/// The pictures at another size, each side by its own factor, with a Lanczos filter of three lobes;
/// what diffusers does to a picture of another size.
///
/// # Errors
///
/// [`Error::Setting`] for a side of zero or of more than 16,384 pixels.
pub fn resized(images: &Images, height: usize, width: usize) -> Result<Images> {
    if (images.height, images.width) == (height, width) {
        return Ok(images.clone());
    }
    if height.min(width) == 0 || height.max(width) > 16_384 {
        let why = format!("{width}x{height} where sides of 1 to 16384 were wanted");
        return Err(Error::setting("size", why));
    }
    let plane = images.height * images.width;
    let mut data = Vec::with_capacity(images.n * images.channels * height * width);
    for values in images.data.chunks_exact(plane.max(1)) {
        let (w, h) = (images.width as u32, images.height as u32);
        let Some(buffer) = ImageBuffer::<Luma<u8>, _>::from_raw(w, h, values) else {
            return Err(Error::setting("size", "a picture without pixels"));
        };
        let made = imageops::resize(&buffer, width as u32, height as u32, FilterType::Lanczos3);
        data.extend(made.into_raw());
    }
    Images::new([images.n, images.channels, height, width], data)
}

/// The pictures with this many channels: grey by the luma of BT.601, as Pillow has it, or three
/// equal ones.
///
/// # Errors
///
/// [`Error::Setting`] for other counts than 1 and 3.
pub fn with_channels(images: &Images, channels: usize) -> Result<Images> {
    let plane = images.height * images.width;
    let data = match (images.channels, channels) {
        (a, b) if a == b => return Ok(images.clone()),
        (1, 3) => images.data.chunks_exact(plane.max(1)).flat_map(|p| p.repeat(3)).collect(),
        (3, 1) => {
            let grey = |p: &[u8]| -> Vec<u8> {
                let (r, g, b) = (&p[..plane], &p[plane..2 * plane], &p[2 * plane..]);
                let luma = |i: usize| {
                    let sum = 19_595 * u32::from(r[i])
                        + 38_470 * u32::from(g[i])
                        + 7_471 * u32::from(b[i]);
                    ((sum + 0x8000) >> 16) as u8
                };
                (0..plane).map(luma).collect()
            };
            images.data.chunks_exact((3 * plane).max(1)).flat_map(grey).collect()
        }
        (found, wanted) => {
            let why = format!("{found} cannot become {wanted}; 1 and 3 can");
            return Err(Error::setting("channels", why));
        }
    };
    Images::new([images.n, channels, images.height, images.width], data)
}

/// The pictures on a larger canvas, their border repeated outwards.
///
/// # Errors
///
/// As [`Images::new`].
pub fn extended(images: &Images, [left, top, right, bottom]: [usize; 4]) -> Result<Images> {
    let (height, width) = (images.height + top + bottom, images.width + left + right);
    let plane = images.height * images.width;
    let mut data = Vec::with_capacity(images.n * images.channels * height * width);
    for values in images.data.chunks_exact(plane.max(1)) {
        for y in 0..height {
            let row = y.saturating_sub(top).min(images.height - 1);
            let at = |x: usize| x.saturating_sub(left).min(images.width - 1);
            data.extend((0..width).map(|x| values[row * images.width + at(x)]));
        }
    }
    Images::new([images.n, images.channels, height, width], data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_picture_stays_flat_and_a_ramp_stays_a_ramp() {
        let flat = Images::new([1, 3, 5, 7], vec![93; 105]).unwrap();
        assert_eq!(resized(&flat, 9, 3).unwrap().data, vec![93; 81]);
        let ramp = Images::new([1, 1, 1, 64], (0..64).map(|x| 3 * x).collect()).unwrap();
        let half = resized(&ramp, 1, 32).unwrap();
        for (i, v) in half.data[2..30].iter().enumerate() {
            let wanted = 3.0 * (2.0 * (i + 2) as f64 + 0.5);
            assert!((f64::from(*v) - wanted).abs() <= 1.0, "{i}: {v} {wanted}");
        }
        assert!(resized(&flat, 0, 3).is_err());
    }

    #[test]
    fn channels_are_those_of_pillow() {
        // Image.new("RGB", (1, 1), (10, 200, 30)).convert("L").getpixel((0, 0)) is 124.
        let colour = Images::new([1, 3, 1, 1], vec![10, 200, 30]).unwrap();
        let grey = with_channels(&colour, 1).unwrap();
        assert_eq!(grey.data, [124]);
        assert_eq!(with_channels(&grey, 3).unwrap().data, [124; 3]);
        assert!(with_channels(&grey, 2).is_err());
    }

    #[test]
    fn a_canvas_grows_on_the_side_that_is_asked() {
        let two = Images::new([1, 1, 2, 2], vec![1, 2, 3, 4]).unwrap();
        let grown = extended(&two, [1, 0, 2, 1]).unwrap();
        assert_eq!(grown.shape(), [1, 3, 5]);
        assert_eq!(grown.data, [1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 3, 3, 4, 4, 4]);
    }
}
