//! The planes of an image: a copy with its zeros around it, one plane for each channel and each residue of
//! the coordinates by the stride.

use super::Shape;
use crate::simd::LANES;

/// How an image's planes lie.
pub(crate) struct Planes {
    /// Residues of the rows and of the columns that the kernel touches.
    pub(crate) residues: [usize; 2],
    /// From row to row of a plane.
    pub(crate) row: usize,
    /// Rows of a plane.
    pub(crate) rows: usize,
    /// The image is its own planes.
    pub(super) direct: bool,
}

impl Planes {
    pub(crate) fn new(s: &Shape) -> Self {
        let residues = [s.stride[0].min(s.kh), s.stride[1].min(s.kw)];
        let rows = s.oh + (s.kh - 1) / s.stride[0];
        let wide = s.ow + (s.kw - 1) / s.stride[1];
        let direct =
            s.up == 1 && s.stride == [1, 1] && s.before == [0, 0] && (rows, wide) == (s.h, s.w);
        // With stride 1, zeros on the right of a row are the zeros on the left of the next.
        let row = if s.stride == [1, 1] && s.before[1] >= 0 {
            let left = s.before[1] as usize;
            let right = wide.saturating_sub(s.w + left);
            if left + s.w >= wide { wide } else { s.w + left.max(right) }
        } else {
            wide
        };
        Self { residues, row, rows, direct }
    }

    pub(crate) fn plane(&self) -> usize {
        self.row * self.rows
    }

    /// Numbers of one sample. Behind it, a row's tail and a whole vector may be read.
    pub(crate) fn sample(&self, s: &Shape) -> usize {
        s.c * self.residues[0] * self.residues[1] * self.plane()
    }

    /// Numbers that may be read behind the last sample.
    pub(super) fn slack(&self) -> usize {
        self.row + 2 * LANES
    }

    /// Offset of each (channel, kernel row, kernel column).
    pub(crate) fn offsets(&self, s: &Shape) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(s.k());
        for c in 0..s.c {
            for i in 0..s.kh {
                for j in 0..s.kw {
                    let residue = i % s.stride[0] * self.residues[1] + j % s.stride[1];
                    let plane = c * self.residues[0] * self.residues[1] + residue;
                    offsets
                        .push(plane * self.plane() + i / s.stride[0] * self.row + j / s.stride[1]);
                }
            }
        }
        offsets
    }

    /// Copies channel `c` of one image into its planes.
    ///
    /// # Safety
    /// `x` is a channel of the image, `to` its planes.
    pub(super) unsafe fn fill(&self, s: &Shape, x: *const f32, to: *mut f32) {
        for a in 0..self.residues[0] {
            for b in 0..self.residues[1] {
                for r in 0..self.rows {
                    // Row and first column of the image at this row of the plane.
                    let y = (r * s.stride[0] + a) as isize - s.before[0];
                    let x0 = b as isize - s.before[1];
                    let plane = (a * self.residues[1] + b) * self.plane();
                    // SAFETY: inside the planes; the image is read only where it is.
                    unsafe {
                        let to = to.add(plane + r * self.row);
                        if y < 0 || y >= s.h as isize {
                            to.write_bytes(0, self.row);
                            continue;
                        }
                        let from = x.add(s.stored_row(y as usize));
                        let step = s.stride[1] as isize;
                        // Columns of the plane before the image and up to its end.
                        let first = if x0 < 0 { (-x0 + step - 1) / step } else { 0 };
                        let end = if x0 >= s.w as isize {
                            0
                        } else {
                            (s.w as isize - x0 + step - 1) / step
                        };
                        let first = (first as usize).min(self.row);
                        let end = (end as usize).clamp(first, self.row);
                        to.write_bytes(0, first);
                        let at = x0 + first as isize * step;
                        if step == 1 && s.up == 1 {
                            if end > first {
                                std::ptr::copy_nonoverlapping(
                                    from.offset(at),
                                    to.add(first),
                                    end - first,
                                );
                            }
                        } else {
                            for j in first..end {
                                let column = at + (j - first) as isize * step;
                                *to.add(j) = *from.add(column as usize / s.up);
                            }
                        }
                        to.add(end).write_bytes(0, self.row - end);
                    }
                }
            }
        }
    }
}
