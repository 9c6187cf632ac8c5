//! Read-only memory maps with typed views that are checked for bounds and alignment.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{AllocationProperty, Bytes};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

mod sealed {
    pub trait Sealed {}
}

/// A plain little-endian number that any pattern of bits is a value of.
///
/// # Safety
/// Sealed: implemented here for integers and floats only, which have no padding and no invalid
/// pattern of bits.
pub unsafe trait Plain: Copy + sealed::Sealed + 'static {}

macro_rules! plain {
    ($($t:ty),*) => { $(
        impl sealed::Sealed for $t {}
        // SAFETY: a number without padding, and every pattern of bits is a value.
        unsafe impl Plain for $t {}
    )* };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// A file mapped for reading. The pages are read by the operating system when they are touched.
///
/// The bytes are those of the file: someone who truncates the file while it is mapped makes the
/// process fail on access, as with every memory map.
#[derive(Debug)]
pub struct MappedFile {
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The operating system's, when the file is missing, unreadable or no regular file.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if meta.len() == 0 {
            // An empty range cannot be mapped everywhere.
            return Ok(Self { map: None });
        }
        // SAFETY: the map is read-only and private to this value; that nobody truncates the file
        // meanwhile is the documented condition of every mapping.
        let map = unsafe { Mmap::map(&file)? };
        let range = map.as_ptr_range();
        maps().push(range.start.addr()..range.end.addr());
        Ok(Self { map: Some(map) })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// Gives the pages back to the system: they count as this process's no longer and are read anew
    /// from the file (from the system's cache, mostly) when they are touched again. The bytes stay
    /// the same. A hint: where the system has no such call, nothing happens.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: the map is read-only and backed by the file, so that a page that was given
            // back is read from there again; no number lives in memory alone.
            let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.map.is_none()
    }

    /// The bytes in `range` as those of a tensor, without a copy: the tensor keeps the map alive, and
    /// whoever changes it changes a copy. `None` where the range does not lie inside the file or does
    /// not begin at a multiple of `align`.
    pub fn share(self: &Arc<Self>, range: Range<usize>, align: usize) -> Option<Bytes> {
        let bytes = self.bytes().get(range.clone())?;
        if bytes.as_ptr().align_offset(align) != 0 {
            return None;
        }
        let part = Part { file: Arc::clone(self), range };
        Some(Bytes::from_shared(bytes::Bytes::from_owner(part), AllocationProperty::File))
    }

    /// `count` numbers of type `T`, little-endian, from the byte `offset` on: borrowed from the
    /// map where it is aligned for `T` (and the machine little-endian), copied otherwise.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range does not lie inside the file, also where its
    /// length overflows.
    pub fn view<T: Plain>(&self, offset: usize, count: usize) -> io::Result<Cow<'_, [T]>> {
        let size = size_of::<T>();
        let bytes = count
            .checked_mul(size)
            .and_then(|len| offset.checked_add(len))
            .and_then(|end| self.bytes().get(offset..end))
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!(
                        "{count} numbers of {size} bytes at byte {offset} do not fit a file of {} bytes",
                        self.len()
                    ),
                )
            })?;
        Ok(typed(bytes, count))
    }
}

/// Where files are mapped: first address and end.
static MAPS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

fn maps() -> std::sync::MutexGuard<'static, Vec<Range<usize>>> {
    MAPS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        let range = self.bytes().as_ptr_range();
        if !self.is_empty() {
            maps().retain(|map| map.start != range.start.addr());
        }
    }
}

/// As [`release_bytes`].
pub(crate) fn release_numbers(numbers: &[f32]) {
    // SAFETY: the bytes of borrowed numbers.
    release_bytes(unsafe {
        std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers))
    });
}

fn within(maps: &[Range<usize>], bytes: &[u8]) -> bool {
    let range = bytes.as_ptr_range();
    maps.iter().any(|map| map.start <= range.start.addr() && range.end.addr() <= map.end)
}

/// Whether these bytes lie in a [`MappedFile`] that is open.
pub fn is_mapped(bytes: &[u8]) -> bool {
    within(&maps(), bytes)
}

/// As [`MappedFile::release`] for the pages that `bytes` fill, where they lie in a mapped file;
/// otherwise nothing happens.
pub(crate) fn release_bytes(bytes: &[u8]) {
    #[cfg(unix)]
    {
        let range = bytes.as_ptr_range();
        let (start, end) = (range.start.addr(), range.end.addr());
        let maps = maps();
        if !within(&maps, bytes) {
            return;
        }
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
        if !page.is_power_of_two() {
            return;
        }
        let (first, end) = (start.next_multiple_of(page), end / page * page);
        if first < end {
            let at = range.start.wrapping_byte_add(first - start).cast_mut();
            // SAFETY: whole pages inside a map that is read-only and backed by its file, and which
            // the borrow keeps; a page that was given back is read from the file again.
            unsafe { libc::madvise(at.cast(), end - first, libc::MADV_DONTNEED) };
        }
    }
    #[cfg(not(unix))]
    let _ = bytes;
}

/// Some bytes of a map that others hold too.
struct Part {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.file.bytes().get(self.range.clone()).unwrap_or_default()
    }
}

/// `bytes` (of exactly `count` numbers) as numbers.
fn typed<T: Plain>(bytes: &[u8], count: usize) -> Cow<'_, [T]> {
    debug_assert_eq!(bytes.len(), count * size_of::<T>());
    if cfg!(target_endian = "little") && bytes.as_ptr().align_offset(align_of::<T>()) == 0 {
        // SAFETY: aligned (checked above), inside the borrowed bytes, and `T` is `Plain`.
        return Cow::Borrowed(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), count) });
    }
    let mut numbers = Vec::<T>::with_capacity(count);
    // SAFETY: the capacity is `count` numbers, all of whose bytes are written; `T` is `Plain`.
    unsafe {
        let to = numbers.as_mut_ptr().cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        if cfg!(target_endian = "big") {
            for i in 0..count {
                std::slice::from_raw_parts_mut(to.add(i * size_of::<T>()), size_of::<T>())
                    .reverse();
            }
        }
        numbers.set_len(count);
    }
    Cow::Owned(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("tweedie-mmap-{}-{name}", std::process::id()));
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }

    #[test]
    fn views_are_right_at_every_offset() {
        let bytes: Vec<u8> = (0..=255).collect();
        let path = file("views", &bytes);
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(map.bytes(), bytes);
        for offset in 0..17 {
            for count in [0, 1, 3, 13] {
                let view = map.view::<f32>(offset, count).unwrap();
                assert_eq!(matches!(view, Cow::Borrowed(_)), offset % 4 == 0);
                let wanted: Vec<f32> = bytes[offset..offset + 4 * count]
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                    .collect();
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&view), bits(&wanted));
                let view = map.view::<u16>(offset, count).unwrap();
                assert_eq!(view.len(), count);
                assert!(view.iter().enumerate().all(|(i, &v)| v
                    == u16::from_le_bytes([bytes[offset + 2 * i], bytes[offset + 2 * i + 1]])));
            }
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_range_outside_the_file_is_an_error() {
        let path = file("short", &[1, 2, 3, 4, 5]);
        let map = MappedFile::open(&path).unwrap();
        for (offset, count) in [(2, 1), (0, 2), (6, 0), (usize::MAX, 1), (1, usize::MAX)] {
            let error = map.view::<f32>(offset, count).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset} {count}");
        }
        assert!(map.view::<f32>(1, 1).is_ok() && map.view::<u8>(5, 0).is_ok());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn released_pages_come_back() {
        let bytes: Vec<u8> = (0..100_003_u32).map(|i| (i * 7 % 251) as u8).collect();
        let path = file("release", &bytes);
        let map = MappedFile::open(&path).unwrap();
        for _ in 0..2 {
            assert_eq!(map.bytes(), bytes);
            map.release();
        }
        std::fs::remove_file(path).unwrap();
        let path = file("release-empty", &[]);
        MappedFile::open(&path).unwrap().release();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn numbers_of_a_file_come_back_too() {
        let numbers: Vec<f32> = (0..50_001).map(|i| i as f32).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let path = file("numbers", &bytes);
        let map = MappedFile::open(&path).unwrap();
        let view = map.view::<f32>(0, numbers.len()).unwrap();
        assert!(matches!(view, Cow::Borrowed(_)));
        release_numbers(&view);
        assert_eq!(*view, numbers);
        // What lies in no file stays as well.
        release_numbers(&numbers);
        assert!(numbers.iter().enumerate().all(|(i, x)| *x == i as f32));
        drop(view);
        let start = map.bytes().as_ptr().addr();
        assert!(maps().iter().any(|map| map.start == start));
        drop(map);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn empty_files_and_folders() {
        let path = file("empty", &[]);
        let map = MappedFile::open(&path).unwrap();
        assert!(map.is_empty() && map.view::<f64>(0, 0).unwrap().is_empty());
        assert!(map.view::<u8>(0, 1).is_err());
        std::fs::remove_file(path).unwrap();
        assert!(MappedFile::open(std::env::temp_dir()).is_err());
        assert!(MappedFile::open("no such file").is_err());
    }

    #[test]
    fn bytes_are_shared_with_a_tensor() {
        let path = std::env::temp_dir().join(format!("tweedie-mmap-share-{}", std::process::id()));
        let numbers = [1.0_f32, -2.5, 3.0, 4.0, 5.0];
        let mut bytes = vec![0; 8];
        bytes.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        let shared = file.share(8..28, 4).unwrap();
        assert_eq!(shared.as_ptr(), file.bytes()[8..].as_ptr());
        let data = burn::tensor::TensorData::from_bytes(shared, [5], burn::tensor::DType::F32);
        let tensor = burn::tensor::Tensor::<1>::from_data(data, &burn::tensor::Device::flex());
        // The tensor outlives the file's other owner, and arithmetic leaves the file as it is.
        let kept = Arc::clone(&file);
        drop(file);
        let sum = tensor.clone() + tensor.clone();
        assert_eq!(
            sum.into_data_as::<f32>().iter::<f32>().collect::<Vec<_>>(),
            numbers.map(|n| 2.0 * n)
        );
        let changed = tensor.mul_scalar(3.0);
        assert_eq!(changed.into_data_as::<f32>().iter::<f32>().next(), Some(3.0));
        assert_eq!(kept.bytes(), bytes);
        for range in [8..29, 9..13, 40..44] {
            assert!(kept.share(range, 4).is_none());
        }
        assert!(kept.share(9..13, 1).is_some());
        std::fs::remove_file(path).ok();
    }
}
