//! A set of pictures in memory, as bytes.

use std::ops::Range;

use crate::{Error, Result};

/// A set of pictures of one size, with what is known of each.
///
/// Pixels are bytes in planar order: picture, channel, row, column (NCHW). Bytes keep a set four
/// times smaller than `f32`; [`Images::to_f32`] converts the part that a batch needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Images {
    /// How many pictures there are.
    pub n: usize,
    /// Channels of each: 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Rows of each.
    pub height: usize,
    /// Columns of each.
    pub width: usize,
    /// The pixels, `[n, channels, height, width]`.
    pub data: Vec<u8>,
    /// The class of each picture, `[n]`.
    pub labels: Option<Vec<u32>>,
    /// What each class is called, in the order of the labels; empty where the set has no names.
    pub classes: Vec<String>,
    /// The caption of each picture, `[n]`.
    pub captions: Option<Vec<String>>,
}

impl Images {
    /// A set without labels from `[n, channels, height, width]` bytes.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of bytes is not the product of the shape.
    pub fn new(shape: [usize; 4], data: Vec<u8>) -> Result<Self> {
        let [n, channels, height, width] = shape;
        let wanted = shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
        if wanted != Some(data.len()) {
            return Err(Error::Shape {
                what: "bytes of a picture set".into(),
                wanted: shape.to_vec(),
                found: vec![data.len()],
            });
        }
        Ok(Self { n, channels, height, width, data, ..Self::default() })
    }

    /// The same set with a class for each picture.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one label a picture; [`Error::Setting`] if `classes` is
    /// not empty and a label lies beyond it.
    pub fn with_labels(mut self, labels: Vec<u32>, classes: Vec<String>) -> Result<Self> {
        self.one_each("labels", labels.len())?;
        if !classes.is_empty()
            && let Some(label) = labels.iter().find(|l| **l as usize >= classes.len())
        {
            let why = format!("label {label} where only {} classes are known", classes.len());
            return Err(Error::setting("labels", why));
        }
        self.labels = Some(labels);
        self.classes = classes;
        Ok(self)
    }

    /// The same set with a caption for each picture.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one caption a picture.
    pub fn with_captions(mut self, captions: Vec<String>) -> Result<Self> {
        self.one_each("captions", captions.len())?;
        self.captions = Some(captions);
        Ok(self)
    }

    fn one_each(&self, what: &str, found: usize) -> Result<()> {
        if found == self.n {
            return Ok(());
        }
        Err(Error::Shape { what: what.into(), wanted: vec![self.n], found: vec![found] })
    }

    /// Bytes of one picture: channels times rows times columns.
    pub fn stride(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The natural shape of one picture, `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// The bytes of picture `i`, `[channels, height, width]`; `None` beyond the end.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let stride = self.stride();
        self.data.get(i.checked_mul(stride)?..(i + 1).checked_mul(stride)?)
    }

    /// How many classes there are: the names, or else one more than the highest label.
    pub fn class_count(&self) -> usize {
        let highest = || Some(*self.labels.as_ref()?.iter().max()? as usize + 1);
        if self.classes.is_empty() { highest().unwrap_or(0) } else { self.classes.len() }
    }

    /// All pixels as `x / 127.5 - 1`, so that 0 is -1 and 255 is 1; `[n, channels, height, width]`.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|b| unit(*b)).collect()
    }

    /// The pixels of the pictures at `indices`, in that order, as [`Images::to_f32`] has them.
    ///
    /// # Errors
    /// [`Error::Setting`] if an index lies beyond the end.
    pub fn gather_f32(&self, indices: &[usize]) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(indices.len() * self.stride());
        for &i in indices {
            out.extend(self.checked(i)?.iter().map(|b| unit(*b)));
        }
        Ok(out)
    }

    /// A set from pixels in -1..=1, `[n, channels, height, width]`: the inverse of
    /// [`Images::to_f32`], rounded to the nearest byte and cut to the range.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of values is not the product of the shape;
    /// [`Error::NotFinite`] if a value is not a number.
    pub fn from_f32(shape: [usize; 4], values: &[f32]) -> Result<Self> {
        if values.iter().any(|v| v.is_nan()) {
            return Err(Error::NotFinite { what: "a pixel".into() });
        }
        Self::new(shape, values.iter().map(|v| byte(*v)).collect())
    }

    /// The pictures at `indices`, in that order, with their labels and captions.
    ///
    /// # Errors
    /// [`Error::Setting`] if an index lies beyond the end.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let mut data = Vec::with_capacity(indices.len() * self.stride());
        for &i in indices {
            data.extend_from_slice(self.checked(i)?);
        }
        Ok(Self {
            n: indices.len(),
            data,
            labels: self.labels.as_ref().map(|l| indices.iter().map(|&i| l[i]).collect()),
            captions: self
                .captions
                .as_ref()
                .map(|c| indices.iter().map(|&i| c[i].clone()).collect()),
            classes: self.classes.clone(),
            ..*self
        })
    }

    /// The pictures of `range`, cut to the end of the set.
    ///
    /// # Errors
    /// None in practice; the type is that of [`Images::select`].
    pub fn slice(&self, range: Range<usize>) -> Result<Self> {
        let end = range.end.min(self.n);
        self.select(&(range.start.min(end)..end).collect::<Vec<_>>())
    }

    /// The pictures on a larger canvas, in its middle, the border filled with `fill`.
    ///
    /// Fashion-MNIST and MNIST are 28x28 on black; `padded(32, 32, 0)` makes them a size that
    /// halves three times. An odd rest goes below and to the right.
    ///
    /// # Errors
    /// [`Error::Setting`] if the canvas is smaller than the pictures.
    pub fn padded(&self, height: usize, width: usize, fill: u8) -> Result<Self> {
        if height < self.height || width < self.width {
            let why =
                format!("{height}x{width} is smaller than the {}x{}", self.height, self.width);
            return Err(Error::setting("padded size", why));
        }
        let (top, left) = ((height - self.height) / 2, (width - self.width) / 2);
        let mut data = vec![fill; self.n * self.channels * height * width];
        for plane in 0..self.n * self.channels {
            for row in 0..self.height {
                let from = (plane * self.height + row) * self.width;
                let to = (plane * height + top + row) * width + left;
                data[to..to + self.width].copy_from_slice(&self.data[from..from + self.width]);
            }
        }
        Ok(self.resized(height, width, data))
    }

    /// The middle of each picture: the inverse of [`Images::padded`].
    ///
    /// # Errors
    /// [`Error::Setting`] if the middle is larger than the pictures.
    pub fn cropped(&self, height: usize, width: usize) -> Result<Self> {
        if height > self.height || width > self.width {
            let why = format!("{height}x{width} is larger than the {}x{}", self.height, self.width);
            return Err(Error::setting("cropped size", why));
        }
        let (top, left) = ((self.height - height) / 2, (self.width - width) / 2);
        let mut data = Vec::with_capacity(self.n * self.channels * height * width);
        for plane in 0..self.n * self.channels {
            for row in 0..height {
                let from = (plane * self.height + top + row) * self.width + left;
                data.extend_from_slice(&self.data[from..from + width]);
            }
        }
        Ok(self.resized(height, width, data))
    }

    fn resized(&self, height: usize, width: usize, data: Vec<u8>) -> Self {
        Self {
            height,
            width,
            data,
            labels: self.labels.clone(),
            classes: self.classes.clone(),
            captions: self.captions.clone(),
            ..*self
        }
    }

    fn checked(&self, i: usize) -> Result<&[u8]> {
        self.get(i).ok_or_else(|| {
            Error::setting("index", format!("{i} where there are only {} pictures", self.n))
        })
    }
}

/// A byte as a number in -1..=1.
fn unit(b: u8) -> f32 {
    f32::from(b) / 127.5 - 1.0
}

/// The byte nearest to a number in -1..=1; `as` cuts what lies outside.
fn byte(v: f32) -> u8 {
    ((v + 1.0) * 127.5).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four() -> Images {
        Images::new([4, 2, 3, 3], (0..72).collect())
            .unwrap()
            .with_labels(vec![0, 1, 2, 1], vec!["a".into(), "b".into(), "c".into()])
            .unwrap()
            .with_captions(["w", "x", "y", "z"].map(String::from).to_vec())
            .unwrap()
    }

    #[test]
    fn every_byte_survives_the_way_to_floats_and_back() {
        let all = Images::new([1, 1, 16, 16], (0..=255).collect()).unwrap();
        let floats = all.to_f32();
        assert_eq!((floats[0], floats[255]), (-1.0, 1.0));
        assert_eq!(Images::from_f32([1, 1, 16, 16], &floats).unwrap().data, all.data);
        assert_eq!(Images::from_f32([1, 1, 1, 2], &[-7.0, 7.0]).unwrap().data, [0, 255]);
        assert!(Images::from_f32([1, 1, 1, 1], &[f32::NAN]).is_err());
    }

    #[test]
    fn selecting_keeps_pictures_labels_and_captions_together() {
        let s = four().select(&[3, 0]).unwrap();
        assert_eq!(s.n, 2);
        assert_eq!(s.get(0), four().get(3));
        assert_eq!(s.labels, Some(vec![1, 0]));
        assert_eq!(s.captions, Some(vec!["z".into(), "w".into()]));
        assert_eq!(four().slice(1..99).unwrap().n, 3);
        assert_eq!(four().gather_f32(&[3, 0]).unwrap(), s.to_f32());
        assert!(four().select(&[4]).unwrap_err().to_string().contains("only 4 pictures"));
    }

    #[test]
    fn cropping_undoes_padding() {
        let p = four().padded(6, 8, 9).unwrap();
        assert_eq!(p.shape(), [2, 6, 8]);
        let sum = |i: &Images| i.data.iter().map(|b| usize::from(*b)).sum::<usize>();
        assert_eq!(sum(&p), sum(&four()) + 9 * 4 * 2 * (48 - 9), "39 of 48 are border");
        assert_eq!(p.data[0], 9);
        assert_eq!(p.data[8 + 2], 0, "one row above, two columns to the left");
        assert_eq!(p.cropped(3, 3).unwrap(), four());
        assert!(four().padded(2, 9, 0).is_err());
        assert!(four().cropped(4, 3).is_err());
    }

    #[test]
    fn counts_that_disagree_are_refused() {
        assert!(Images::new([2, 1, 2, 2], vec![0; 7]).is_err());
        assert!(Images::new([usize::MAX, 2, 2, 2], vec![0; 8]).is_err());
        assert!(four().with_labels(vec![0; 3], vec![]).is_err());
        let beyond = four().with_labels(vec![0, 1, 2, 3], vec!["a".into()]).unwrap_err();
        assert_eq!(beyond.to_string(), "`labels`: label 1 where only 1 classes are known");
        assert_eq!(four().class_count(), 3);
        assert_eq!(four().with_labels(vec![7, 0, 0, 0], vec![]).unwrap().class_count(), 8);
    }
}
