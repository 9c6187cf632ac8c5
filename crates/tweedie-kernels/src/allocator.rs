//! What the system's allocator does with memory that is freed.

/// Asks the system's allocator to keep large blocks that are freed for the next ones, in the whole
/// process: up to a gigabyte of them. The tensors of a step are as large as those of the step before,
/// and memory that is mapped anew costs a page fault every 4 KiB.
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
        mapped == 1 && trimmed == 1
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Asks the system's allocator to give blocks that are freed back at once, in the whole process, and to
/// share its pools between threads: a server's memory then is what its jobs need now, not what the
/// largest of them needed together.
///
/// For programs, as [`keep_freed_memory`], and gives what that gives.
pub fn return_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as above.
    unsafe {
        let pools = libc::mallopt(libc::M_ARENA_MAX, 2) & libc::mallopt(libc::M_MMAP_MAX, 65_536);
        let mapped = libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        let trimmed = libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
        pools == 1 && mapped == 1 && trimmed == 1
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
        assert_eq!(super::return_freed_memory(), glibc);
        assert_eq!(super::keep_freed_memory(), glibc);
        let numbers: Vec<f32> = (0..9 << 20).map(|i| i as f32).collect();
        assert_eq!(numbers.clone()[5], 5.0);
    }
}
