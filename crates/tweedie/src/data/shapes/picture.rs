//! A small RGB picture and its form as a network sees it.

use super::draws::{Draws, Purpose};
use crate::error::{Error, Result};

/// An 8-bit sRGB picture, row by row from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Picture {
    /// A picture of one colour.
    pub fn plain(width: usize, height: usize, rgb: [u8; 3]) -> Self {
        Self { width, height, data: rgb.repeat(width * height) }
    }

    /// A picture from its bytes, `[height, width, 3]`. Fails where their number is another.
    pub fn from_rgb(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        if data.len() == width * height * 3 {
            return Ok(Self { width, height, data });
        }
        let found = vec![data.len()];
        Err(Error::Shape { what: "picture".into(), wanted: vec![height, width, 3], found })
    }

    /// A picture from values in [-1, 1], `[3, height, width]`; what lies outside is clipped, and what
    /// is not a number is black. Fails where the number of values is another.
    pub fn from_f32_chw(width: usize, height: usize, values: &[f32]) -> Result<Self> {
        let area = width * height;
        if values.len() != 3 * area {
            let found = vec![values.len()];
            let wanted = vec![3, height, width];
            return Err(Error::Shape { what: "picture".into(), wanted, found });
        }
        let byte = |v: f32| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
        let data = (0..3 * area).map(|i| byte(values[(i % 3) * area + i / 3])).collect();
        Ok(Self { width, height, data })
    }

    /// The values in [-1, 1] that a network sees, `[3, height, width]`: 0 becomes -1 and 255 becomes 1.
    pub fn to_f32_chw(&self) -> Vec<f32> {
        let area = self.width * self.height;
        (0..3 * area)
            .map(|i| f32::from(self.data[(i % area) * 3 + i / area]) / 127.5 - 1.0)
            .collect()
    }

    /// The width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes, given away.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The colour at column `x` and row `y`, or nothing outside the picture.
    pub fn get(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        let at = (y * self.width + x) * 3;
        match self.data.get(at..at + 3) {
            Some(&[r, g, b]) if x < self.width => Some([r, g, b]),
            _ => None,
        }
    }

    /// The same picture as the `image` crate holds it, for writing to a file.
    pub fn to_image(&self) -> image::RgbImage {
        image::RgbImage::from_raw(self.width as u32, self.height as u32, self.data.clone())
            .unwrap_or_default()
    }

    /// The picture of an image in memory.
    pub fn from_image(image: &image::RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, data: image.as_raw().clone() }
    }

    /// The mean of two pictures of the same size, pixel by pixel.
    pub fn average(&self, other: &Self) -> Result<Self> {
        self.alike(other)?;
        let mean = |(&a, &b): (&u8, &u8)| u16::midpoint(u16::from(a), u16::from(b)) as u8;
        let data = self.data.iter().zip(&other.data).map(mean).collect();
        Ok(Self { data, ..*self })
    }

    /// The picture under a Gaussian blur of standard deviation `sigma` pixels, the border repeated
    /// outwards. A `sigma` of 0 or less changes nothing.
    #[must_use]
    pub fn blurred(&self, sigma: f64) -> Self {
        if sigma.is_nan() || sigma <= 0.0 {
            return self.clone();
        }
        let reach = (3.0 * sigma).ceil().min(64.0) as isize;
        let kernel: Vec<f64> =
            (-reach..=reach).map(|i| bell((i * i) as f64 / (2.0 * sigma * sigma))).collect();
        let total: f64 = kernel.iter().sum();
        let (w, h) = (self.width as isize, self.height as isize);
        let pass = |from: &[f64], dx: isize, dy: isize| -> Vec<f64> {
            let mut to = Vec::with_capacity(from.len());
            for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                for c in 0..3 {
                    let mut sum = 0.0;
                    for (k, i) in kernel.iter().zip(-reach..=reach) {
                        let (sx, sy) = ((x + i * dx).clamp(0, w - 1), (y + i * dy).clamp(0, h - 1));
                        sum += k * from[((sy * w + sx) * 3 + c) as usize];
                    }
                    to.push(sum / total);
                }
            }
            to
        };
        let values: Vec<f64> = self.data.iter().map(|&v| f64::from(v)).collect();
        let values = pass(&pass(&values, 1, 0), 0, 1);
        let data = values.iter().map(|v| (v + 0.5) as u8).collect();
        Self { data, ..*self }
    }

    /// The picture with the same amount added to every pixel's red, green and blue, clipped.
    #[must_use]
    pub fn shifted(&self, by: [f64; 3]) -> Self {
        let value = |(i, v): (usize, &u8)| (f64::from(*v) + by[i % 3] + 0.5) as u8;
        let data = self.data.iter().enumerate().map(value).collect();
        Self { data, ..*self }
    }

    /// The picture of a side `by` times smaller in both directions, each pixel the mean of a block.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the sides do not divide.
    pub fn reduced(&self, by: usize) -> Result<Self> {
        let (w, h) = (self.width, self.height);
        if by == 0 || !w.is_multiple_of(by) || !h.is_multiple_of(by) {
            let wanted = vec![h.next_multiple_of(by.max(1)), w.next_multiple_of(by.max(1)), 3];
            let what = format!("picture in blocks of {by} pixels");
            return Err(Error::Shape { what, wanted, found: vec![h, w, 3] });
        }
        let (width, height) = (w / by, h / by);
        let area = (by * by) as u32;
        let mut data = Vec::with_capacity(width * height * 3);
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for c in 0..3 {
                let row = |dy: usize| ((y * by + dy) * w + x * by) * 3 + c;
                let values = (0..by).flat_map(|dy| (0..by).map(move |dx| row(dy) + dx * 3));
                let sum: u32 = values.map(|i| u32::from(self.data[i])).sum();
                data.push(((sum + area / 2) / area) as u8);
            }
        }
        Ok(Self { width, height, data })
    }

    /// The picture `by` times larger in both directions, by cubic convolution (Keys 1981, a = -1/2),
    /// the border repeated outwards.
    #[must_use]
    pub fn enlarged(&self, by: usize) -> Self {
        if by <= 1 {
            return self.clone();
        }
        let along = |from: &[f64], count: usize, stride: usize, lines: &[usize]| -> Vec<Vec<f64>> {
            let line = |&start: &usize| -> Vec<f64> {
                let at = |i: isize| from[start + i.clamp(0, count as isize - 1) as usize * stride];
                let value = |k: usize| {
                    let place = (k as f64 + 0.5) / by as f64 - 0.5;
                    let first = place.floor();
                    let taps = keys(place - first);
                    (0..4).map(|j| taps[j] * at(first as isize + j as isize - 1)).sum()
                };
                (0..count * by).map(value).collect()
            };
            lines.iter().map(line).collect()
        };
        let (w, h) = (self.width, self.height);
        let values: Vec<f64> = self.data.iter().map(|&v| f64::from(v)).collect();
        let starts: Vec<usize> = (0..h).flat_map(|y| (0..3).map(move |c| y * w * 3 + c)).collect();
        // Rows of each channel, then columns of what came out.
        let wide = along(&values, w, 3, &starts);
        let flat: Vec<f64> = wide.iter().flatten().copied().collect();
        let (width, height) = (w * by, h * by);
        let starts: Vec<usize> = (0..3 * width).collect();
        let tall = along(&flat, h, 3 * width, &starts);
        let mut data = vec![0; width * height * 3];
        for (i, column) in tall.iter().enumerate() {
            let (c, x) = (i / width, i % width);
            for (y, v) in column.iter().enumerate() {
                data[(y * width + x) * 3 + c] = (v + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
        Self { width, height, data }
    }

    /// The mean squared difference of two pictures of the same size, in steps of 1 of 255.
    pub fn squared_error(&self, other: &Self) -> Result<f64> {
        self.alike(other)?;
        let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
        let sum: f64 = self.data.iter().zip(&other.data).map(square).sum();
        Ok(sum / self.data.len().max(1) as f64)
    }

    fn alike(&self, other: &Self) -> Result<()> {
        if (self.width, self.height) == (other.width, other.height) {
            return Ok(());
        }
        let wanted = vec![self.height, self.width, 3];
        let found = vec![other.height, other.width, 3];
        Err(Error::Shape { what: "second picture".into(), wanted, found })
    }

    /// The picture with noise of standard deviation `sigma` (of 255) on every value, clipped; the
    /// noise is a function of (seed, index).
    #[must_use]
    pub fn noisy(&self, sigma: f64, seed: u64, index: u64) -> Self {
        let mut draws = Draws::new(seed, index, Purpose::Noise);
        let mut value = |v: &u8| (f64::from(*v) + sigma * draws.normal() + 0.5) as u8;
        let data = self.data.iter().map(&mut value).collect();
        Self { data, ..*self }
    }
}

/// The weights of the four pixels around a place `t` behind the second of them.
fn keys(t: f64) -> [f64; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        0.5 * (-t3 + 2.0 * t2 - t),
        0.5 * (3.0 * t3 - 5.0 * t2 + 2.0),
        0.5 * (-3.0 * t3 + 4.0 * t2 + t),
        0.5 * (t3 - t2),
    ]
}

/// e^-x for x of at least 0, from multiplications and additions alone.
fn bell(x: f64) -> f64 {
    // e^-x = (e^(-x / 1024))^1024, the inner power from five terms of its series.
    let y = -x / 1024.0;
    let mut value = 1.0 + y * (1.0 + y / 2.0 * (1.0 + y / 3.0 * (1.0 + y / 4.0)));
    for _ in 0..10 {
        value *= value;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_survive_the_network_form() {
        let data: Vec<u8> = (0..5 * 7 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let picture = Picture::from_rgb(5, 7, data).unwrap();
        let values = picture.to_f32_chw();
        assert_eq!(values.len(), 105);
        assert_eq!(values[35 + 5 + 2], f32::from(picture.get(2, 1).unwrap()[1]) / 127.5 - 1.0);
        assert_eq!(Picture::from_f32_chw(5, 7, &values).unwrap(), picture);
        assert_eq!(Picture::from_image(&picture.to_image()), picture);
        assert!(Picture::from_rgb(5, 7, vec![0; 104]).is_err());
        assert!(Picture::from_f32_chw(5, 7, &values[1..]).is_err());
        let odd = Picture::from_f32_chw(1, 1, &[f32::NAN, 7.0, -7.0]).unwrap();
        assert_eq!(odd.data(), [0, 255, 0]);
        assert_eq!(picture.get(5, 0), None);
    }

    #[test]
    fn pictures_are_reduced_and_enlarged() {
        let data: Vec<u8> = (0..6 * 4 * 3).map(|i| (i / 3 % 6 * 20 + i % 3) as u8).collect();
        let ramp = Picture::from_rgb(6, 4, data).unwrap();
        let small = ramp.reduced(2).unwrap();
        assert_eq!((small.width(), small.height()), (3, 2));
        assert_eq!(small.get(1, 0), Some([50, 51, 52]));
        let large = small.enlarged(2);
        assert_eq!((large.width(), large.height()), (6, 4));
        // Cubic convolution keeps a ramp away from the border.
        let line: Vec<u8> = (0..12 * 3).map(|i| i / 3 * 20).collect();
        let large = Picture::from_rgb(12, 1, line).unwrap().enlarged(2);
        let values: Vec<u8> = (6..12).filter_map(|x| large.get(x, 0)).map(|p| p[0]).collect();
        assert_eq!(values, [55, 65, 75, 85, 95, 105]);
        assert!(ramp.reduced(5).is_err() && ramp.reduced(0).is_err());
        let plain = Picture::plain(3, 5, [9, 0, 255]);
        assert_eq!(plain.enlarged(3), Picture::plain(9, 15, [9, 0, 255]));
    }

    #[test]
    fn blur_keeps_the_mean_and_lowers_contrast() {
        let mut data = vec![0; 21 * 21 * 3];
        data[(10 * 21 + 10) * 3 + 1] = 255;
        let picture = Picture::from_rgb(21, 21, data).unwrap().blurred(1.0);
        let sum: u32 = picture.data().iter().map(|&v| u32::from(v)).sum();
        assert!((230..280).contains(&sum), "{sum}");
        // 255 / (2 pi) at the middle.
        assert_eq!(picture.get(10, 10), Some([0, 41, 0]));
        assert_eq!(picture.blurred(0.0), picture);
        for x in [0.0, 0.3, 2.0, 4.5] {
            assert!((bell(x) - (-x).exp()).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn noise_is_repeatable_and_as_strong_as_asked() {
        let gray = Picture::plain(64, 64, [128, 128, 128]);
        let noisy = gray.noisy(10.0, 3, 4);
        assert_eq!(noisy, gray.noisy(10.0, 3, 4));
        assert_ne!(noisy, gray.noisy(10.0, 3, 5));
        let variance = noisy.data().iter().map(|&v| (f64::from(v) - 128.0).powi(2)).sum::<f64>()
            / noisy.data().len() as f64;
        assert!((variance - 100.0).abs() < 5.0, "{variance}");
        assert_eq!(
            gray.average(&Picture::plain(64, 64, [0, 255, 129])).unwrap().data()[..3],
            [64, 191, 128]
        );
        let brown = gray.shifted([0.0, -30.0, -200.0]);
        assert_eq!(brown.data()[..3], [128, 98, 0]);
        assert_eq!(gray.squared_error(&brown).unwrap(), (900.0 + 16384.0) / 3.0);
        assert!(gray.average(&Picture::plain(64, 63, [0, 0, 0])).is_err());
    }
}
