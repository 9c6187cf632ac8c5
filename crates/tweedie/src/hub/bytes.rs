//! The bytes of a file, wherever they live.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tweedie_kernels::mmap::MappedFile;

use crate::{Error, Result};

/// The bytes of a file: mapped, on the heap, or part of the binary. Cloning shares them.
#[derive(Clone)]
pub(crate) enum Bytes {
    /// Bytes of a file that is mapped: the system reads a page when it is touched.
    Mapped(Arc<MappedFile>),
    /// Bytes on the heap.
    Shared(Arc<[u8]>),
    /// Bytes that are part of the program.
    Static(&'static [u8]),
}

impl Bytes {
    /// The bytes of the file at `path`, mapped.
    ///
    /// # Errors
    /// The system refuses the file, or it is not a plain file (a directory, a device, a pipe).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let about = std::fs::metadata(path).map_err(Error::io(path))?;
        if !about.is_file() {
            return Err(Error::format(path, "", "this is not a plain file"));
        }
        Ok(Self::Mapped(Arc::new(MappedFile::open(path).map_err(Error::io(path))?)))
    }

    /// Some of the bytes as those of a tensor, without a copy, where the file is mapped and they begin at
    /// a multiple of `align`.
    pub(crate) fn share(&self, range: Range<usize>, align: usize) -> Option<burn::tensor::Bytes> {
        match self {
            Self::Mapped(file) => file.share(range, align),
            Self::Shared(_) | Self::Static(_) => None,
        }
    }

    /// Gives the pages of a mapped file back to the system; they are read again when touched.
    pub(crate) fn release(&self) {
        if let Self::Mapped(file) = self {
            file.release();
        }
    }

    /// All bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file.bytes(),
            Self::Shared(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Shared(bytes.into())
    }
}
