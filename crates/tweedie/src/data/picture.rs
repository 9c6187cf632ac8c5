//! One PNG, JPEG or WebP picture, decoded within limits.

use std::io::Cursor;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

use super::Images;
use crate::{Error, Result};

/// What a picture may cost. A small file can unpack to a very large picture, so the limits are
/// checked before anything is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most rows or columns; 16,384.
    pub max_side: u32,
    /// The most bytes that it may take in memory while it is decoded; 512 MiB.
    pub max_decoded: u64,
    /// The most bytes that its file may have; 256 MiB.
    pub max_file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_side: 16_384, max_decoded: 512 << 20, max_file: 256 << 20 }
    }
}

/// What a picture is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Height and width: the middle of the picture is cut out at that proportion and resized with
    /// a Lanczos filter. `None` (the default) leaves the size alone.
    pub size: Option<(usize, usize)>,
    /// 3 (the default): RGB. 1: grey, by the luma weights of BT.709. Alpha is dropped.
    pub channels: usize,
}

impl Default for Target {
    fn default() -> Self {
        Self { size: None, channels: 3 }
    }
}

impl Target {
    /// Checks that the numbers make sense.
    pub(super) fn check(&self, limits: &Limits) -> Result<()> {
        if self.channels != 1 && self.channels != 3 {
            let why = format!("{} where 1 or 3 was wanted", self.channels);
            return Err(Error::setting("channels", why));
        }
        let max = limits.max_side as usize;
        match self.size {
            Some((h, w)) if h.min(w) == 0 || h.max(w) > max => {
                let why = format!("{w}x{h} where sides of 1 to {max} were wanted");
                Err(Error::setting("size", why))
            }
            _ => Ok(()),
        }
    }
}

/// Reads one picture as a set of one, turned as its EXIF orientation says.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is no PNG, JPEG or WebP, is
/// damaged or beyond the limits; [`Error::Setting`] if the target makes no sense.
pub fn read(file: &Path, target: &Target, limits: &Limits) -> Result<Images> {
    target.check(limits)?;
    from_bytes(file, &packed(file, limits)?, target, limits)
}

/// As [`read`], from the bytes of a file that is called `name` in errors.
///
/// # Errors
///
/// As [`read`], without those of the system.
pub fn from_bytes(name: &Path, bytes: &[u8], target: &Target, limits: &Limits) -> Result<Images> {
    target.check(limits)?;
    fits(name, bytes.len() as u64, limits)?;
    let (height, width) = match target.size {
        Some(size) => size,
        None => dimensions_of(name, bytes, limits)?,
    };
    let shape = [1, target.channels, height, width];
    let mut data = vec![0; shape.iter().product()];
    decode_bytes(name, bytes, (height, width), target, limits, &mut data)?;
    Images::new(shape, data)
}

fn fits(name: &Path, size: u64, limits: &Limits) -> Result<()> {
    if size <= limits.max_file {
        return Ok(());
    }
    let why = format!("is of {size} bytes, the limit is {}", limits.max_file);
    Err(Error::format(name, "", why))
}

/// The bytes of a file that is not beyond the limits.
fn packed(file: &Path, limits: &Limits) -> Result<Vec<u8>> {
    fits(file, std::fs::metadata(file).map_err(Error::io(file))?.len(), limits)?;
    std::fs::read(file).map_err(Error::io(file))
}

/// A decoder that obeys the limits.
fn decoder<'a>(file: &Path, packed: &'a [u8], limits: &Limits) -> Result<impl ImageDecoder + 'a> {
    let mut reader = ImageReader::new(Cursor::new(packed));
    let mut inner = image::Limits::default();
    inner.max_image_width = Some(limits.max_side);
    inner.max_image_height = Some(limits.max_side);
    inner.max_alloc = Some(limits.max_decoded);
    reader.limits(inner);
    let reader = reader.with_guessed_format().map_err(Error::io(file))?;
    let decoder = reader.into_decoder().map_err(|e| damaged(file, &e))?;
    if decoder.total_bytes() > limits.max_decoded {
        let (found, limit) = (decoder.total_bytes(), limits.max_decoded);
        let why = format!("unpacks to {found} bytes, the limit is {limit}");
        return Err(Error::format(file, "", why));
    }
    Ok(decoder)
}

/// Height and width of a picture as it is seen, after its EXIF orientation.
pub(super) fn dimensions(file: &Path, limits: &Limits) -> Result<(usize, usize)> {
    dimensions_of(file, &packed(file, limits)?, limits)
}

fn dimensions_of(file: &Path, packed: &[u8], limits: &Limits) -> Result<(usize, usize)> {
    let mut decoder = decoder(file, packed, limits)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation().map_err(|e| damaged(file, &e))?,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (height, width) = (height as usize, width as usize);
    Ok(if turned { (width, height) } else { (height, width) })
}

/// Decodes a picture into planar bytes, `[channels, height, width]`. Without a size in the target
/// it must have this one already.
pub(super) fn decode(
    file: &Path,
    (height, width): (usize, usize),
    target: &Target,
    limits: &Limits,
    out: &mut [u8],
) -> Result<()> {
    decode_bytes(file, &packed(file, limits)?, (height, width), target, limits, out)
}

fn decode_bytes(
    file: &Path,
    packed: &[u8],
    (height, width): (usize, usize),
    target: &Target,
    limits: &Limits,
    out: &mut [u8],
) -> Result<()> {
    let mut decoder = decoder(file, packed, limits)?;
    let orientation = decoder.orientation().map_err(|e| damaged(file, &e))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| damaged(file, &e))?;
    picture.apply_orientation(orientation);
    let found = (picture.height() as usize, picture.width() as usize);
    if found != (height, width) && target.size.is_none() {
        let why = format!("is {}x{}, the first picture is {width}x{height}", found.1, found.0);
        return Err(Error::format(file, "", why + "; give a size to bring all to"));
    }
    // The channels are brought to their number first, so that only those are resized.
    let pixels = if target.channels == 1 {
        fit(picture.into_luma8(), (height, width)).into_raw()
    } else {
        fit(picture.into_rgb8(), (height, width)).into_raw()
    };
    for (c, out) in out.chunks_exact_mut(height * width).enumerate() {
        let from = pixels.iter().skip(c).step_by(target.channels);
        out.iter_mut().zip(from).for_each(|(o, p)| *o = *p);
    }
    Ok(())
}

type Buffer<P> = image::ImageBuffer<P, Vec<u8>>;

/// Cuts out the middle at the wanted proportion and resizes it.
fn fit<P>(picture: Buffer<P>, (height, width): (usize, usize)) -> Buffer<P>
where
    P: image::Pixel<Subpixel = u8> + 'static,
{
    let (have_h, have_w) = (picture.height() as usize, picture.width() as usize);
    if (have_h, have_w) == (height, width) {
        return picture;
    }
    // The largest window of the wanted proportion: all rows or all columns, whichever fits.
    let (cut_h, cut_w) = if have_h * width > have_w * height {
        ((have_w * height / width).max(1), have_w)
    } else {
        (have_h, (have_h * width / height).max(1))
    };
    let (top, left) = ((have_h - cut_h) / 2, (have_w - cut_w) / 2);
    let cut = imageops::crop_imm(&picture, left as u32, top as u32, cut_w as u32, cut_h as u32);
    imageops::resize(&*cut, width as u32, height as u32, FilterType::Lanczos3)
}

fn damaged(file: &Path, error: &ImageError) -> Error {
    let why = match error {
        ImageError::Limits(_) => format!("is beyond the limits for pictures: {error}"),
        ImageError::Unsupported(_) => format!("is no PNG, JPEG or WebP that can be read: {error}"),
        _ => format!("cannot be decoded: {error}"),
    };
    Error::format(file, "", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};
    use std::path::PathBuf;

    /// A picture in a folder of its own.
    fn picture(
        name: &str,
        w: u32,
        h: u32,
        f: impl Fn(u32, u32) -> u8,
    ) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        RgbImage::from_fn(w, h, |x, y| Rgb([f(x, y); 3])).save(&path).unwrap();
        (dir, path)
    }

    fn brought_to(path: &Path, size: Option<(usize, usize)>) -> Result<Images> {
        read(path, &Target { size, channels: 3 }, &Limits::default())
    }

    #[test]
    fn the_middle_is_kept_and_a_flat_picture_stays_flat() {
        // A bright square in the middle of a wide dark picture: cropping leaves only the square.
        let (_dir, path) = picture("a.png", 90, 30, |x, _| 200 * u8::from((30..60).contains(&x)));
        let set = brought_to(&path, Some((8, 8))).unwrap();
        assert!(set.data.iter().all(|b| *b == 200), "{:?}", &set.data[..8]);
        // And a tall one at another proportion.
        let (_dir, path) = picture("a.png", 30, 90, |_, y| 200 * u8::from((30..60).contains(&y)));
        let set = brought_to(&path, Some((8, 8))).unwrap();
        assert!(set.data.iter().all(|b| *b == 200));
        assert_eq!(brought_to(&path, Some((5, 7))).unwrap().shape(), [3, 5, 7]);
        // Enlarging one pixel.
        let (_dir, path) = picture("a.png", 1, 1, |_, _| 9);
        assert_eq!(brought_to(&path, Some((2, 3))).unwrap().data, [9; 18]);
    }

    #[test]
    fn damage_and_excess_are_named() {
        let (dir, path) = picture("a.png", 64, 64, |x, y| (x * y) as u8);
        let whole = std::fs::read(&path).unwrap();
        let base = Limits::default();
        for limits in [
            Limits { max_side: 63, ..base },
            Limits { max_decoded: 64 * 64, ..base },
            Limits { max_file: 10, ..base },
        ] {
            let said = read(&path, &Target::default(), &limits).unwrap_err().to_string();
            assert!(said.contains("limit"), "{said}");
        }
        for cut in [0, 1, 7, 20, 40, whole.len() / 2, whole.len() - 13] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let said = brought_to(&path, None).unwrap_err().to_string();
            assert!(said.contains("a.png: "), "{said}");
        }
        std::fs::write(&path, "plainly not a picture").unwrap();
        let said = brought_to(&path, None).unwrap_err().to_string();
        assert!(said.contains("is no PNG, JPEG or WebP"), "{said}");
        assert!(matches!(brought_to(&dir.path().join("none"), None), Err(Error::Io { .. })));
        assert!(brought_to(&path, Some((0, 4))).unwrap_err().to_string().contains("`size`: 4x0"));
        let four = Target { size: None, channels: 4 };
        assert!(read(&path, &four, &base).unwrap_err().to_string().contains("`channels`: 4"));
    }

    #[test]
    fn a_jpeg_is_turned_as_its_exif_says() {
        let (_dir, path) = picture("a.jpg", 16, 8, |x, _| if x < 8 { 250 } else { 5 });
        // Orientation 6 (turn right by 90 degrees), as a minimal EXIF block after the SOI marker.
        let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let plain = std::fs::read(&path).unwrap();
        let mut turned = plain[..2].to_vec();
        turned.extend([0xff, 0xe1]);
        turned.extend(((exif.len() + 2) as u16).to_be_bytes());
        turned.extend(exif);
        turned.extend(&plain[2..]);
        assert_eq!(brought_to(&path, None).unwrap().shape(), [3, 8, 16]);
        std::fs::write(&path, turned).unwrap();
        let set = brought_to(&path, None).unwrap();
        assert_eq!(set.shape(), [3, 16, 8]);
        assert!(set.data[0] > 200 && set.data[15 * 8] < 50, "left has become top");
    }
}
