//! Which shape, and where: candidates are drawn and compared with a piece.

use super::pieces::{Ground, Piece, Rgb, is_inner};
use crate::data::shapes::attribute::{Shape, Size};
use crate::data::shapes::outline::{REACH, distance, extent};
use crate::data::shapes::render::Bounds;
use crate::data::shapes::scene::{Object, SIDE};

/// The least and the greatest radius that is tried.
const RADII: (f64, f64) = (5.0, 13.5);
/// Pixels around a piece that must be explained, too.
const MARGIN: usize = 4;
/// The widths of the edge that the search goes through, in pixels: wide ones see farther.
const COARSE: [f64; 3] = [4.0, 3.0, 2.0];
/// The widths for the candidates that are left.
const FINE: [f64; 4] = [2.0, 1.0, 1.0, 1.0];
/// How many candidates are left after the coarse search.
const LEFT: usize = 4;

/// What a candidate must explain: how much of each pixel is of the piece's colour.
pub(super) struct Target {
    bounds: Bounds,
    /// How much of each pixel in `bounds` is of the colour, 0 to 1.
    share: Vec<f64>,
    /// Whether the pixel counts; those of other pieces do not, since they may hide this one.
    counts: Vec<bool>,
    /// Whether another piece is near, so that a part may be hidden.
    crowded: bool,
}

impl Target {
    /// The target of piece `i`: `pixels` is the picture as it is, not smoothed.
    pub(super) fn new(pixels: &[Rgb], ground: &Ground, pieces: &[Piece], i: usize) -> Self {
        let piece = &pieces[i];
        let b = piece.bounds;
        let bounds = Bounds {
            left: b.left.saturating_sub(MARGIN),
            top: b.top.saturating_sub(MARGIN),
            right: (b.right + MARGIN).min(SIDE),
            bottom: (b.bottom + MARGIN).min(SIDE),
        };
        // The colour's share is the place on the line from the ground's colour to the piece's.
        let line: Vec<f64> = (0..3).map(|c| piece.rgb[c] - ground.rgb[c]).collect();
        let length2 = line.iter().map(|v| v * v).sum::<f64>().max(1.0);
        let mut others = vec![false; SIDE * SIDE];
        for (_, other) in pieces.iter().enumerate().filter(|(j, _)| *j != i) {
            for p in (0..SIDE * SIDE).filter(|&p| is_inner(&other.mask, p)) {
                spread(&mut others, p, 2);
            }
        }
        let (mut share, mut counts, mut crowded) = (Vec::new(), Vec::new(), false);
        for y in bounds.top..bounds.bottom {
            for p in y * SIDE + bounds.left..y * SIDE + bounds.right {
                let along: f64 = (0..3).map(|c| (pixels[p][c] - ground.rgb[c]) * line[c]).sum();
                share.push((along / length2).clamp(0.0, 1.0));
                counts.push(!others[p] || is_inner(&piece.mask, p));
                crowded |= others[p];
            }
        }
        Self { bounds, share, counts, crowded }
    }

    /// The best objects of different shapes or places, best first, with the part of the target that
    /// each leaves unexplained.
    pub(super) fn candidates(&self, piece: &Piece) -> Vec<(f64, Object)> {
        let starts = Shape::ALL.iter().flat_map(|&shape| self.starts(shape, piece));
        let mut found: Vec<(f64, Object)> =
            starts.map(|start| self.refine(start, &COARSE)).collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found.truncate(LEFT);
        for candidate in &mut found {
            *candidate = self.refine(candidate.1, &FINE);
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found
    }

    /// Where to begin for one shape.
    fn starts(&self, shape: Shape, piece: &Piece) -> Vec<Object> {
        let b = piece.bounds;
        let (side, up, down) = extent(shape);
        let (left, right) = (b.left as f64, b.right as f64);
        let (top, bottom) = (b.top as f64, b.bottom as f64);
        let object =
            |x: f64, y: f64, radius: f64| Object { shape, colour: piece.colour, x, y, radius };
        let radius = 0.5 * ((right - left) / (2.0 * side) + (bottom - top) / (up + down));
        let radius = radius.clamp(RADII.0, RADII.1);
        let middle = 0.5 * (top + bottom) + 0.5 * (up - down) * radius;
        let mut starts = vec![object(0.5 * (left + right), middle, radius)];
        if self.crowded {
            // A part may be hidden, then only some sides of the box are the object's.
            let mut more = Vec::new();
            for &size in Size::ALL {
                let radius = 0.5 * (size.radii().0 + size.radii().1);
                for x in [left + side * radius, right - side * radius] {
                    for y in [top + up * radius, bottom - down * radius] {
                        more.push(object(x, y, radius));
                    }
                }
            }
            let key = |o: &Object| self.error(o, 3.0);
            more.sort_by(|a, b| key(a).total_cmp(&key(b)));
            starts.extend(more.into_iter().take(2));
        }
        starts
    }

    /// The squared difference between target and object, its edge `width` pixels wide, as a part of
    /// the target's own square.
    fn error(&self, object: &Object, width: f64) -> f64 {
        let (mut error, mut whole) = (0.0, 1.0);
        let reach = REACH * object.radius + width;
        self.each(|x, y, share| {
            let (dx, dy) = (x - object.x, y - object.y);
            let cover = if dx * dx + dy * dy > 2.0 * reach * reach {
                0.0
            } else {
                (0.5 - object.distance(x, y) / width).clamp(0.0, 1.0)
            };
            error += (share - cover) * (share - cover);
            whole += share * share;
        });
        error / whole
    }

    fn each(&self, mut see: impl FnMut(f64, f64, f64)) {
        let b = self.bounds;
        let mut i = 0;
        for y in b.top..b.bottom {
            for x in b.left..b.right {
                if self.counts[i] {
                    see(x as f64 + 0.5, y as f64 + 0.5, self.share[i]);
                }
                i += 1;
            }
        }
    }

    /// Gauss-Newton steps in centre and radius, the edge growing sharper.
    fn refine(&self, start: Object, widths: &[f64]) -> (f64, Object) {
        let mut o = start;
        for &width in widths {
            let Some([dx, dy, dr]) = self.step(&o, width) else { break };
            o.x = (o.x + dx.clamp(-3.0, 3.0)).clamp(0.0, SIDE as f64);
            o.y = (o.y + dy.clamp(-3.0, 3.0)).clamp(0.0, SIDE as f64);
            o.radius = (o.radius + dr.clamp(-2.0, 2.0)).clamp(RADII.0, RADII.1);
        }
        // Pictures may be softer than a drawing: the kindest edge decides.
        let error = [1.0, 2.0, 3.5].map(|width| self.error(&o, width));
        (error[0].min(error[1]).min(error[2]), o)
    }

    /// One step, or nothing where no pixel is at the edge.
    fn step(&self, o: &Object, width: f64) -> Option<[f64; 3]> {
        let (mut normal, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
        self.each(|x, y, share| {
            let (u, v) = ((x - o.x) / o.radius, (y - o.y) / o.radius);
            let d = distance(o.shape, u, v);
            let cover = 0.5 - d * o.radius / width;
            if cover <= 0.0 || cover >= 1.0 {
                return;
            }
            let h = 1e-4;
            let du = (distance(o.shape, u + h, v) - d) / h;
            let dv = (distance(o.shape, u, v + h) - d) / h;
            // The slopes of the cover in x, y and radius.
            let slope = [du / width, dv / width, (u * du + v * dv - d) / width];
            for i in 0..3 {
                right[i] += slope[i] * (share - cover);
                for j in 0..3 {
                    normal[i][j] += slope[i] * slope[j];
                }
            }
        });
        (0..3).for_each(|i| normal[i][i] = normal[i][i] * 1.001 + 1e-3);
        solve(normal, right)
    }
}

/// Sets the pixels at most `reach` away in either direction.
fn spread(mask: &mut [bool], p: usize, reach: usize) {
    let (x, y) = (p % SIDE, p / SIDE);
    for ny in y.saturating_sub(reach)..(y + reach + 1).min(SIDE) {
        for nx in x.saturating_sub(reach)..(x + reach + 1).min(SIDE) {
            mask[ny * SIDE + nx] = true;
        }
    }
}

/// Solves three symmetric positive equations, by Cramer's rule.
fn solve(a: [[f64; 3]; 3], b: [f64; 3]) -> Option<[f64; 3]> {
    let determinant = |m: [[f64; 3]; 3]| {
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    };
    let whole = determinant(a);
    if whole.abs() < 1e-12 {
        return None;
    }
    let part = |column: usize| {
        let mut m = a;
        (0..3).for_each(|row| m[row][column] = b[row]);
        determinant(m) / whole
    };
    Some([part(0), part(1), part(2)])
}
