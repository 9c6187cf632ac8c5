//! What the system's allocator does with memory that is freed.

/// Asks the system's allocator to keep large blocks that are freed for the next ones, in the whole
/// process: up to a gigabyte of them. The tensors of a step are as large as those of the step before,
/// and memory that is mapped anew costs a page fault every 4 KiB.
///
/// For programs; a library leaves its host's allocator alone. Does nothing where the C library is not
/// glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: each call sets one number of the allocator, under its own lock.
    unsafe {
        // The largest threshold that is taken.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

#[cfg(test)]
mod tests {
    /// Blocks that are freed are there for the next ones, which no number shows; what can go wrong is
    /// that memory does.
    #[test]
    fn memory_is_still_memory() {
        super::keep_freed_memory();
        for len in [1_usize, 4097, 1 << 20, 5_000_001, 9 << 20] {
            let numbers: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let again = numbers.clone();
            drop(numbers);
            assert_eq!((again[0], again[len - 1]), (0.0, (len - 1) as f32));
        }
    }
}
