//! The matrix product: `c = a b` (or `c += a b`) of row-major `c`.
//!
//! Columns are packed into panels of [`panel_width`] numbers per step of `k`, from wherever a
//! [`Columns`] finds them: a matrix, its transpose or the windows of an image. Each output element
//! is the sum over blocks of [`DEPTH`] steps of `k`, in order, of a chain of multiply-adds from
//! zero; so its bits depend on `k` alone, not on the tile that it lies in, and products may be
//! split or joined along rows and columns at will.

#[cfg(target_arch = "x86_64")]
use crate::amx::blocks;
use crate::memory::{Ptr, Scratch, parallel};
#[cfg(target_arch = "x86_64")]
use crate::simd::InstructionSet;
use crate::simd::{LANES, Simd, dispatch};

/// Steps of `k` in a block: a panel of them stays in the first-level cache.
pub(crate) const DEPTH: usize = 192;

/// Rows of a packed block of transposed `a`, so that it stays in the second-level cache.
const ROW_BLOCK: usize = 384;

/// Columns of the widest panel of any instruction set.
const MAX_PANEL: usize = 48;

/// Columns of the widest strip.
pub(crate) const MAX_STRIP: usize = 128;

/// Where the columns of `b` come from.
///
/// # Safety
/// `panel` gives `depth` rows, `width` numbers apart, of which the first `columns` are
/// `b[k0 + i, column + j]`, and whole vectors are readable.
pub(crate) unsafe trait Columns: Sync {
    /// The panel of `columns` columns from `column` on and of `depth` steps from `k0` on; `scratch`
    /// has room for `depth` rows of `width`, a multiple of [`LANES`].
    unsafe fn panel<S: Simd>(
        &self,
        column: usize,
        columns: usize,
        k0: usize,
        depth: usize,
        width: usize,
        scratch: *mut f32,
    ) -> *const f32;

    /// The block of tiles that [`prepack`] has made of these columns and steps.
    #[cfg(target_arch = "x86_64")]
    fn tiles(&self, _column: usize, _k0: usize, _depth: usize) -> Option<*const f32> {
        None
    }
}

/// A row-major `b[k, n]` with rows `stride` apart.
pub(crate) struct RowMajor {
    pub(crate) b: *const f32,
    pub(crate) stride: usize,
}

// SAFETY: only read.
unsafe impl Sync for RowMajor {}

// SAFETY: copies `columns` numbers of each row and fills the rest of the vector with zeros.
unsafe impl Columns for RowMajor {
    #[inline(always)]
    unsafe fn panel<S: Simd>(
        &self,
        column: usize,
        columns: usize,
        k0: usize,
        depth: usize,
        width: usize,
        scratch: *mut f32,
    ) -> *const f32 {
        let whole = columns / LANES;
        let rest = columns % LANES;
        for i in 0..depth {
            // SAFETY: inside `b`, and inside the scratch of depth * width numbers.
            unsafe {
                let from = self.b.add((k0 + i) * self.stride + column);
                let to = scratch.add(i * width);
                for j in 0..whole {
                    S::load(from.add(j * LANES)).store(to.add(j * LANES));
                }
                if rest > 0 {
                    S::splat(0.0).store(to.add(whole * LANES));
                    for j in whole * LANES..columns {
                        *to.add(j) = *from.add(j);
                    }
                }
            }
        }
        scratch
    }
}

/// The transpose of a row-major `[n, k]` with rows `stride` apart.
pub(crate) struct Transposed {
    pub(crate) b: *const f32,
    pub(crate) stride: usize,
}

// SAFETY: only read.
unsafe impl Sync for Transposed {}

// SAFETY: as for `RowMajor`; reads `columns` rows of `depth` numbers.
unsafe impl Columns for Transposed {
    #[inline(always)]
    unsafe fn panel<S: Simd>(
        &self,
        column: usize,
        columns: usize,
        k0: usize,
        depth: usize,
        width: usize,
        scratch: *mut f32,
    ) -> *const f32 {
        for j in (0..columns).step_by(LANES) {
            // SAFETY: rows beyond the last are replaced by the last, whose products are thrown away;
            // numbers beyond `depth` are read one by one only up to it.
            unsafe {
                let row =
                    |r: usize| self.b.add((column + (j + r).min(columns - 1)) * self.stride + k0);
                let mut i = 0;
                while i + LANES <= depth {
                    let mut rows = [S::splat(0.0); 16];
                    for (r, v) in rows.iter_mut().enumerate() {
                        *v = S::load(row(r).add(i));
                    }
                    for (l, v) in S::transpose(&rows).iter().enumerate() {
                        v.store(scratch.add((i + l) * width + j));
                    }
                    i += LANES;
                }
                while i < depth {
                    for r in 0..LANES {
                        *scratch.add(i * width + j + r) = *row(r).add(i);
                    }
                    i += 1;
                }
            }
        }
        scratch
    }
}

/// Panels made once by [`prepack`], for a `b` that many products share.
pub(crate) struct Packed {
    pub(crate) panels: *const f32,
    pub(crate) n: usize,
}

// SAFETY: only read.
unsafe impl Sync for Packed {}

// SAFETY: the layout that `prepack` writes, with the same blocks of `k`.
unsafe impl Columns for Packed {
    #[inline(always)]
    unsafe fn panel<S: Simd>(
        &self,
        column: usize,
        _columns: usize,
        k0: usize,
        depth: usize,
        width: usize,
        _scratch: *mut f32,
    ) -> *const f32 {
        // SAFETY: inside the panels.
        unsafe { self.panels.add(k0 * self.n.next_multiple_of(width) + column * depth) }
    }

    #[cfg(target_arch = "x86_64")]
    fn tiles(&self, column: usize, k0: usize, depth: usize) -> Option<*const f32> {
        let block = column / blocks::SIDE * blocks::block_len(depth);
        Some(self.panels.wrapping_add(blocks::block_start(k0, self.n) + block))
    }
}

/// Numbers that [`prepack`] writes for a `b[k, n]`, on every instruction set.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    let panels = k * n.next_multiple_of(MAX_PANEL);
    #[cfg(target_arch = "x86_64")]
    let panels = panels.max(blocks::packed_len(k, n));
    panels
}

/// Whether products of `k` steps go through the tiles of AMX.
#[cfg(target_arch = "x86_64")]
pub(crate) fn tiled(k: usize) -> bool {
    InstructionSet::current() == InstructionSet::Amx && blocks::takes(k)
}

/// There are no such tiles.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn tiled(_k: usize) -> bool {
    false
}

/// Columns that are best computed together, so that `a` is not read too often.
pub(crate) fn strip_width(k: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if tiled(k) {
        return MAX_STRIP;
    }
    let _ = k;
    // SAFETY: no condition.
    unsafe { panel_width() }
}

/// Steps of `k` in a block of the path that products of `k` steps take.
pub(crate) fn block_depth(k: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if tiled(k) {
        return blocks::DEPTH;
    }
    let _ = k;
    DEPTH
}

#[inline(always)]
fn panel_width_body<S: Simd>() -> usize {
    S::WIDTH * LANES
}

dispatch! {
    /// Columns of a panel on the instruction set in use.
    ///
    /// # Safety
    /// None of the caller.
    pub(crate) fn panel_width() -> usize = panel_width_body
}

#[inline(always)]
unsafe fn prepack_body<S: Simd, C: Columns>(
    k: usize,
    n: usize,
    part: (usize, usize),
    b: &C,
    panels: *mut f32,
) {
    let width = S::WIDTH * LANES;
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        for column in (part.0..part.1).step_by(width) {
            // SAFETY: the caller's `packed_len` numbers; panels of one block follow each other.
            unsafe {
                let to = panels.add(k0 * n.next_multiple_of(width) + column * depth);
                b.panel::<S>(column, width.min(n - column), k0, depth, width, to);
            }
        }
    }
}

dispatch! {
    /// See [`prepack`].
    ///
    /// # Safety
    /// As there.
    fn prepack_panels<C: Columns>(
        k: usize, n: usize, part: (usize, usize), b: &C, panels: *mut f32,
    ) = prepack_body
}

/// Columns that one unit of [`prepack_shared`] packs: whole panels of every width.
const PART: usize = 96;

/// The columns `part` of [`prepack`], which begin at a multiple of [`PART`].
unsafe fn prepack_part<C: Columns>(
    k: usize,
    n: usize,
    part: (usize, usize),
    b: &C,
    panels: *mut f32,
) {
    // SAFETY: the caller's; the tiles are there where they are in use.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if tiled(k) {
            return blocks::prepack(k, n, part, b, panels);
        }
        prepack_panels(k, n, part, b, panels);
    }
}

/// Packs all panels of `b[k, n]` to `panels`.
///
/// # Safety
/// `b` has `k` rows and `n` columns, `panels` room for [`packed_len`] numbers.
pub(crate) unsafe fn prepack<C: Columns>(k: usize, n: usize, b: &C, panels: *mut f32) {
    // SAFETY: the caller's.
    unsafe { prepack_part(k, n, (0, n), b, panels) };
}

/// [`prepack`] on all threads of the pool, with the same result. Not for units of a parallel loop.
///
/// # Safety
/// As there.
pub(crate) unsafe fn prepack_shared<C: Columns>(k: usize, n: usize, b: &C, panels: Ptr) {
    parallel(n.div_ceil(PART), PART * k, |i| {
        let part = (i * PART, n.min((i + 1) * PART));
        // SAFETY: the caller's; each unit writes its own panels.
        unsafe { prepack_part(k, n, part, b, panels.at(0)) };
    });
}

/// The rows of `a`: element `(i, k)` is at `i * row + k * step`.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) a: *const f32,
    pub(crate) row: usize,
    pub(crate) step: usize,
    /// Packed by [`Rows::prepack`]: `a` points to the blocks, and `row` is the number of rows.
    pub(crate) packed: bool,
    /// They come from memory, not from a cache: the first panel asks for them ahead of their use.
    pub(crate) far: bool,
}

impl Rows {
    /// Element `(i, k)` at `i * row + k * step`.
    pub(crate) fn new(a: *const f32, row: usize, step: usize) -> Self {
        Self { a, row, step, packed: false, far: false }
    }

    /// The same rows, said to come from memory.
    pub(crate) fn far(self) -> Self {
        Self { far: true, ..self }
    }

    /// The same `m` rows of `k` steps in the form that products want, in `scratch` where that is
    /// another one: for rows that many products share.
    ///
    /// # Safety
    /// The rows are there.
    pub(crate) unsafe fn prepack(self, m: usize, k: usize, scratch: &mut Option<Scratch>) -> Self {
        #[cfg(target_arch = "x86_64")]
        if tiled(k) {
            let to = scratch.insert(Scratch::new(blocks::packed_len(k, m))).ptr();
            // SAFETY: the caller's rows, and room for their blocks.
            unsafe { blocks::prepack_rows(m, k, self, to) };
            return Self { a: to, row: m, step: 1, packed: true, far: false };
        }
        let _ = (m, k, scratch);
        self
    }
}

/// Steps of a row in a line of the cache.
const LINE: usize = 16;

/// Asks for a line of the cache to be read, wherever `p` points.
#[inline(always)]
fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing; every machine of this kind has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// `steps` steps of a tile, from `at` on in its rows.
#[inline(always)]
unsafe fn run<S: Simd, const R: usize, const W: usize>(
    steps: usize,
    a: &[*const f32; R],
    mut at: usize,
    step: usize,
    mut b: *const f32,
    b_step: usize,
    mut sums: [[S; W]; R],
) -> [[S; W]; R] {
    // SAFETY: the caller's pointers.
    unsafe {
        for _ in 0..steps {
            let mut columns = [S::splat(0.0); W];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = S::load(b.add(j * LANES));
            }
            for (row, p) in sums.iter_mut().zip(a) {
                let x = S::splat(*p.add(at));
                for (sum, column) in row.iter_mut().zip(&columns) {
                    *sum = x.fma(*column, *sum);
                }
            }
            at += step;
            b = b.add(b_step);
        }
    }
    sums
}

/// One tile: `R` rows by `W` vectors, over `depth` steps. Meanwhile the next tile's rows, which lie
/// `ahead` further on, are asked for: weights come from memory, in pieces too short for the machine
/// to see them coming.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn tile<S: Simd, const R: usize, const W: usize>(
    depth: usize,
    a: &[*const f32; R],
    step: usize,
    ahead: usize,
    b: *const f32,
    b_step: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's pointers: `depth` steps of `a` and `b`, `R` rows of `W` vectors of `c`.
    unsafe {
        let mut sums = [[S::splat(0.0); W]; R];
        if ahead == 0 {
            sums = run(depth, a, 0, step, b, b_step, sums);
        } else {
            let mut done = 0;
            while done < depth {
                for p in a {
                    prefetch(p.wrapping_add(ahead + done * step));
                }
                let (steps, b) = (LINE.min(depth - done), b.add(done * b_step));
                sums = run(steps, a, done * step, step, b, b_step, sums);
                done += LINE;
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, sum) in row.iter().enumerate() {
                let to = c.add(i * c_row + j * LANES);
                if add {
                    S::load(to).add(*sum).store(to);
                } else {
                    sum.store(to);
                }
            }
        }
    }
}

/// A tile of at most `R` rows and `columns` columns; where it is smaller than the registers' tile,
/// the whole is computed aside and the part that exists is taken.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn edge_tile<S: Simd, const R: usize, const W: usize>(
    depth: usize,
    a: Rows,
    rows: usize,
    ahead: usize,
    b: *const f32,
    columns: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's; rows beyond the last read the last.
    unsafe {
        let mut pointers = [a.a; R];
        for (i, p) in pointers.iter_mut().enumerate() {
            *p = a.a.add(i.min(rows - 1) * a.row);
        }
        let b_step = S::WIDTH * LANES;
        if rows == R && columns == W * LANES {
            return tile::<S, R, W>(depth, &pointers, a.step, ahead, b, b_step, c, c_row, add);
        }
        let mut aside = [0.0_f32; 8 * MAX_PANEL];
        let to = aside.as_mut_ptr();
        tile::<S, R, W>(depth, &pointers, a.step, ahead, b, b_step, to, W * LANES, false);
        for i in 0..rows {
            for j in 0..columns {
                let (from, to) = (*to.add(i * W * LANES + j), c.add(i * c_row + j));
                *to = if add { *to + from } else { from };
            }
        }
    }
}

/// All rows of one panel.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn panel_rows<S: Simd, const R: usize, const W: usize>(
    m: usize,
    depth: usize,
    a: Rows,
    blocks: bool,
    b: *const f32,
    columns: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    for i in (0..m).step_by(R) {
        // SAFETY: the caller's. Packed blocks of `a` follow each other at R * depth numbers.
        unsafe {
            let rows = R.min(m - i);
            let at = if blocks { i * depth } else { i * a.row };
            let ahead = if a.far && i + R < m { R * a.row } else { 0 };
            let a = Rows { a: a.a.add(at), ..a };
            edge_tile::<S, R, W>(depth, a, rows, ahead, b, columns, c.add(i * c_row), c_row, add);
        }
    }
}

/// One panel with all rows, in the tiles of the instruction set. (A function: a closure would not
/// be inlined into the one that enables the set.)
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn strip<S: Simd>(
    m: usize,
    depth: usize,
    a: Rows,
    packed: bool,
    b: *const f32,
    columns: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's.
    unsafe {
        match (S::ROWS, columns.div_ceil(LANES)) {
            (8, 3) => panel_rows::<S, 8, 3>(m, depth, a, packed, b, columns, c, c_row, add),
            (8, 2) => panel_rows::<S, 8, 2>(m, depth, a, packed, b, columns, c, c_row, add),
            (8, _) => panel_rows::<S, 8, 1>(m, depth, a, packed, b, columns, c, c_row, add),
            _ => panel_rows::<S, 6, 1>(m, depth, a, packed, b, columns, c, c_row, add),
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn gemm_body<S: Simd, C: Columns>(
    m: usize,
    n: usize,
    k: usize,
    a: Rows,
    b: &C,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let width = S::WIDTH * LANES;
    let mut panel = Scratch::new(DEPTH * width);
    if a.step == 1 {
        // The columns of `c` in hand stay in the cache while all of `k` goes by.
        for column in (0..n).step_by(width) {
            for k0 in (0..k).step_by(DEPTH) {
                // SAFETY: inside `a` and `c`.
                unsafe {
                    let a = Rows { a: a.a.add(k0), far: a.far && column == 0, ..a };
                    let (columns, depth) = (width.min(n - column), DEPTH.min(k - k0));
                    let b = b.panel::<S>(column, columns, k0, depth, width, panel.ptr());
                    let c = c.add(column);
                    strip::<S>(m, depth, a, false, b, columns, c, c_row, add || k0 > 0);
                }
            }
        }
        return;
    }
    // Each block of transposed rows is packed once and then meets all columns.
    let block = ROW_BLOCK.min(m);
    let mut packed = Scratch::new(block.next_multiple_of(S::ROWS) * DEPTH);
    for i0 in (0..m).step_by(block.max(1)) {
        let m = block.min(m - i0);
        for k0 in (0..k).step_by(DEPTH) {
            // SAFETY: inside `a` and `c`; the scratch holds a block's rows.
            unsafe {
                let from = Rows { a: a.a.add(i0 * a.row + k0 * a.step), ..a };
                let depth = DEPTH.min(k - k0);
                pack_blocks::<S>(m, depth, from, packed.ptr());
                let a = Rows { a: packed.ptr(), step: S::ROWS, far: false, ..a };
                for column in (0..n).step_by(width) {
                    let columns = width.min(n - column);
                    let b = b.panel::<S>(column, columns, k0, depth, width, panel.ptr());
                    let c = c.add(i0 * c_row + column);
                    strip::<S>(m, depth, a, true, b, columns, c, c_row, add || k0 > 0);
                }
            }
        }
    }
}

/// Copies `m` rows of `depth` steps into blocks of `S::ROWS` rows, step by step; missing rows of
/// the last block are copies of its last row.
#[inline(always)]
unsafe fn pack_blocks<S: Simd>(m: usize, depth: usize, a: Rows, to: *mut f32) {
    for i in (0..m).step_by(S::ROWS) {
        let rows = S::ROWS.min(m - i);
        for k in 0..depth {
            for r in 0..S::ROWS {
                // SAFETY: inside `a`, and inside the scratch of whole blocks.
                unsafe {
                    *to.add(i * depth + k * S::ROWS + r) =
                        *a.a.add((i + r.min(rows - 1)) * a.row + k * a.step);
                }
            }
        }
    }
}

dispatch! {
    /// See [`gemm`].
    ///
    /// # Safety
    /// As there.
    pub(crate) fn gemm_panels<C: Columns>(
        m: usize, n: usize, k: usize, a: Rows, b: &C, c: *mut f32, c_row: usize, add: bool,
    ) = gemm_body
}

/// `c[m, n] (+)= a[m, k] b[k, n]` on the calling thread, rows of `c` being `c_row` apart. With
/// `k = 0` nothing is written.
///
/// # Safety
/// `a`, `b` and `c` have these rows and columns, and `c` overlaps neither.
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
pub(crate) unsafe fn gemm<C: Columns>(
    m: usize,
    n: usize,
    k: usize,
    a: Rows,
    b: &C,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's; the tiles are there where they are in use.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if tiled(k) {
            return blocks::gemm(m, n, k, a, b, c, c_row, add);
        }
        gemm_panels(m, n, k, a, b, c, c_row, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(target_arch = "x86_64"))]
    use crate::simd::InstructionSet;
    use crate::testing::{numbers, with_each_set};

    fn reference(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                c[i * n + j] =
                    (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
            }
        }
        c
    }

    fn transpose(rows: usize, columns: usize, x: &[f32]) -> Vec<f32> {
        (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
    }

    /// All four layouts, packed or not, at odd sizes: within 1e-5 of f64, and the same bits.
    #[test]
    fn every_layout_gives_the_same_product() {
        with_each_set(|set| {
            for (m, n, k) in [
                (1, 1, 1),
                (3, 5, 7),
                (8, 48, 256),
                (13, 49, 257),
                (7, 100, 33),
                (64, 17, 600),
                (400, 33, 40),
            ] {
                let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
                let (at, bt) = (transpose(m, k, &a), transpose(k, n, &b));
                let rows = Rows::new(a.as_ptr(), k, 1);
                let columns = Rows::new(at.as_ptr(), 1, m);
                let direct = RowMajor { b: b.as_ptr(), stride: n };
                let turned = Transposed { b: bt.as_ptr(), stride: k };
                let mut panels = Scratch::new(packed_len(k, n));
                let mut first: Option<Vec<f32>> = None;
                for case in 0..6 {
                    let mut c = numbers(m * n, 3);
                    let to = c.as_mut_ptr();
                    // SAFETY: shapes as declared.
                    unsafe {
                        match case {
                            0 => gemm(m, n, k, rows, &direct, to, n, false),
                            1 => gemm(m, n, k, rows, &turned, to, n, false),
                            2 => gemm(m, n, k, columns, &direct, to, n, false),
                            3 => gemm(m, n, k, columns, &turned, to, n, false),
                            4 => {
                                prepack(k, n, &direct, panels.ptr());
                                gemm(
                                    m,
                                    n,
                                    k,
                                    rows,
                                    &Packed { panels: panels.ptr(), n },
                                    to,
                                    n,
                                    false,
                                );
                            }
                            _ => {
                                prepack_shared(k, n, &turned, Ptr::new(panels.ptr()));
                                gemm(
                                    m,
                                    n,
                                    k,
                                    columns,
                                    &Packed { panels: panels.ptr(), n },
                                    to,
                                    n,
                                    false,
                                );
                            }
                        }
                    }
                    let wanted = reference(m, n, k, &a, &b);
                    for (got, wanted) in c.iter().zip(&wanted) {
                        assert!((f64::from(*got) - wanted).abs() < 1e-5 * (k as f64).sqrt() * 2.0);
                    }
                    match &first {
                        Some(first) => assert_eq!(first, &c, "{set:?} case {case} {m} {n} {k}"),
                        None => first = Some(c),
                    }
                }
                let mut c = numbers(m * n, 3);
                // SAFETY: shapes as declared.
                unsafe { gemm(m, n, k, rows, &direct, c.as_mut_ptr(), n, true) };
                for ((got, before), wanted) in
                    c.iter().zip(numbers(m * n, 3)).zip(reference(m, n, k, &a, &b))
                {
                    let wanted = wanted + f64::from(before);
                    assert!((f64::from(*got) - wanted).abs() < 1e-5 * (k as f64).sqrt() * 2.0);
                }
            }
        });
    }

    /// A column's or a row's bits do not depend on how many others are computed with it, and AVX2
    /// and AVX-512 agree.
    #[test]
    fn bits_depend_on_k_alone() {
        let (m, n, k) = (21, 101, 300);
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let product = |m: usize, j0: usize, n1: usize| {
            let mut c = vec![0.0; m * n1];
            let rows = Rows::new(a.as_ptr(), k, 1);
            // SAFETY: shapes as declared.
            unsafe {
                let columns = RowMajor { b: b.as_ptr().add(j0), stride: n };
                gemm(m, n1, k, rows, &columns, c.as_mut_ptr(), n1, false);
            }
            c
        };
        let mut fused: Option<Vec<f32>> = None;
        with_each_set(|set| {
            let whole = product(m, 0, n);
            for (m1, j0, n1) in [(1, 0, 1), (5, 3, 50), (21, 100, 1), (9, 47, 30)] {
                let part = product(m1, j0, n1);
                for i in 0..m1 {
                    assert_eq!(part[i * n1..][..n1], whole[i * n + j0..][..n1]);
                }
            }
            if matches!(set, InstructionSet::Avx2 | InstructionSet::Avx512) {
                assert_eq!(*fused.get_or_insert_with(|| whole.clone()), whole);
            }
        });
    }
}
