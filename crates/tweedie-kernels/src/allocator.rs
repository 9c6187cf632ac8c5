//! What the system's allocator does with memory that is freed.

/// Asks the system's allocator to keep large blocks that are freed for the next ones, in the whole
/// process: up to a gigabyte of them. The tensors of a step are as large as those of the step before,
/// and memory that is mapped anew costs a page fault every 4 KiB. All threads share one pool: those of
/// other threads are cut into pieces of 64 MiB, each of which goes when it is empty.
///
/// For programs; a library leaves its host's allocator alone. Gives whether the allocator took it: one
/// that is not glibc's has no such setting.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: each call sets one number of the allocator, under its own lock.
    unsafe {
        // No block is mapped by itself, which is given back with all of its pages.
        let mapped = libc::mallopt(libc::M_MMAP_MAX, 0);
        let trimmed = libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
        let pools = libc::mallopt(libc::M_ARENA_MAX, 1);
        mapped == 1 && trimmed == 1 && pools == 1
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Gives the pages that nothing lives in at this moment back to the system, those between what lives
/// too; takes some milliseconds. A server that does so now and then holds what its jobs need, not what
/// all that ever ran together needed.
///
/// For programs, as [`keep_freed_memory`]. Gives whether there was anything to give.
pub fn return_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the allocator does it under its own locks.
    unsafe {
        libc::malloc_trim(0) == 1
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(test)]
mod tests {
    /// A threshold that glibc refuses would leave everything as it was, unnoticed.
    #[test]
    fn the_allocator_takes_it() {
        let glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
        assert_eq!(super::keep_freed_memory(), glibc);
        let numbers: Vec<f32> = (0..9 << 20).map(|i| i as f32).collect();
        assert_eq!(numbers.clone()[5], 5.0);
        drop(numbers);
        assert_eq!(super::return_freed_memory(), glibc);
    }
}
