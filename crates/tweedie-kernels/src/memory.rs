//! Working memory: aligned scratch that threads keep, outputs that are written once, and the
//! parallel loop over independent units.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A cache line of sixteen numbers, so that vectors of it are aligned.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Asks the system for large pages where the lines are many: each page costs a fault when it is first
/// written, and a place among the addresses that the processor remembers.
fn prefer_large_pages<T>(lines: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let range = lines.as_mut_ptr_range();
        let (first, end) =
            (range.start.addr().next_multiple_of(PAGE), range.end.addr() / PAGE * PAGE);
        if end.saturating_sub(first) >= 4 << 20 {
            let at = range.start.with_addr(first);
            // SAFETY: whole pages of the lines; a hint, which changes no number.
            unsafe { libc::madvise(at.cast(), end - first, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = lines;
}

/// How many pieces of scratch a thread keeps: more than any kernel holds at once.
const KEPT: usize = 12;

/// Lines of the largest piece that a thread keeps, a MiB. Larger ones hang on the batch: kept on every
/// thread that ever had one, the memory of a server would grow for as long as its batches do.
const LARGEST_KEPT: usize = 1 << 14;

type Lines = Vec<MaybeUninit<Line>>;

thread_local! {
    static POOL: RefCell<Vec<Lines>> = const { RefCell::new(Vec::new()) };
}

/// Scratch of at least `len` numbers on a cache line's boundary. Nothing may hang on a number that was
/// not written. A small piece goes back to its thread's pool when dropped, so that memory is not mapped
/// anew each call.
pub(crate) struct Scratch(Lines);

impl Scratch {
    pub(crate) fn new(len: usize) -> Self {
        let wanted = len.div_ceil(16);
        // The smallest that is large enough; growing one would copy what nobody reads.
        let kept = POOL.with_borrow_mut(|pool| {
            let fits = (0..pool.len()).filter(|&i| pool[i].capacity() >= wanted);
            let best = fits.min_by_key(|&i| pool[i].capacity())?;
            Some(pool.swap_remove(best))
        });
        Self(kept.unwrap_or_else(|| {
            let mut lines = Vec::with_capacity(wanted);
            prefer_large_pages(lines.spare_capacity_mut());
            lines
        }))
    }

    pub(crate) fn ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.0);
        if lines.capacity() > LARGEST_KEPT {
            return;
        }
        // During the end of a thread the pool may be gone: then the memory is freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.push(lines);
            if pool.len() > KEPT {
                let smallest = (0..pool.len()).min_by_key(|&i| pool[i].capacity());
                smallest.map(|i| pool.swap_remove(i));
            }
        });
    }
}

/// Numbers that are kept, in whole lines of the cache.
#[derive(Debug, Default)]
pub(crate) struct Aligned(Vec<Line>);

impl Aligned {
    /// `len` numbers that `write` writes.
    ///
    /// # Safety
    /// It writes all of them, up to a whole line.
    pub(crate) unsafe fn written(len: usize, write: impl FnOnce(*mut f32)) -> Self {
        let mut lines = Vec::<Line>::with_capacity(len.div_ceil(16));
        prefer_large_pages(lines.spare_capacity_mut());
        write(lines.as_mut_ptr().cast());
        // SAFETY: the capacity is as large, and the caller's function has written them.
        unsafe { lines.set_len(len.div_ceil(16)) };
        Self(lines)
    }

    /// The address of number `i`.
    pub(crate) fn at(&self, i: usize) -> *const f32 {
        self.0.as_ptr().cast::<f32>().wrapping_add(i)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.len() * size_of::<Line>()
    }
}

/// A vector of `len` numbers whose every number the caller writes before [`Output::finish`].
pub(crate) struct Output {
    numbers: Vec<f32>,
    len: usize,
}

impl Output {
    pub(crate) fn new(len: usize) -> Self {
        let mut numbers = Vec::with_capacity(len);
        prefer_large_pages(numbers.spare_capacity_mut());
        Self { numbers, len }
    }

    pub(crate) fn ptr(&mut self) -> Ptr {
        Ptr(self.numbers.as_mut_ptr())
    }

    /// # Safety
    /// All `len` numbers have been written.
    pub(crate) unsafe fn finish(mut self) -> Vec<f32> {
        // SAFETY: the capacity is at least `len`, and the caller has written them.
        unsafe { self.numbers.set_len(self.len) };
        self.numbers
    }
}

/// A pointer that units of a parallel loop share; each writes its own part.
#[derive(Clone, Copy)]
pub(crate) struct Ptr(*mut f32);

// SAFETY: a bare address; whoever reads or writes through it says why that is sound.
unsafe impl Send for Ptr {}
// SAFETY: as above.
unsafe impl Sync for Ptr {}

impl Ptr {
    pub(crate) fn new(p: *mut f32) -> Self {
        Self(p)
    }

    pub(crate) fn of(slice: &[f32]) -> Self {
        Self(slice.as_ptr().cast_mut())
    }

    /// The address `offset` numbers further on. (A method, so that closures capture the whole.)
    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Work, in multiplications or loads, below which handing a part to another thread costs more than
/// it brings.
const GRAIN: usize = 1 << 17;

/// Runs `unit(0)` to `unit(units - 1)`, each of about `work` operations, in the current pool.
/// Units must not depend on each other: their order is not defined.
pub(crate) fn parallel(units: usize, work: usize, unit: impl Fn(usize) + Sync + Send) {
    let least = (GRAIN / work.max(1)).max(1);
    if units <= least || rayon::current_num_threads() == 1 {
        (0..units).for_each(unit);
    } else {
        (0..units).into_par_iter().with_min_len(least).for_each(unit);
    }
}

/// Sums groups of `len` numbers in order.
pub(crate) fn sum_groups(partial: &[f32], len: usize) -> Vec<f32> {
    let mut groups = partial.chunks_exact(len.max(1));
    let mut total = groups.next().map_or_else(|| vec![0.0; len], <[f32]>::to_vec);
    for group in groups {
        for (t, g) in total.iter_mut().zip(group) {
            *t += g;
        }
    }
    total
}
