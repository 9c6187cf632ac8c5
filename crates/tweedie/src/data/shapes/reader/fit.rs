//! Which shape, and where: candidates are drawn and compared with a piece.

use super::pieces::{Ground, Piece, Rgb, is_inner};
use crate::data::shapes::attribute::{Shape, Size};
use crate::data::shapes::outline::{REACH, distance, extent};
use crate::data::shapes::render::Bounds;
use crate::data::shapes::scene::{Object, SIDE};

/// The least and the greatest radius that is tried.
const RADII: (f64, f64) = (5.0, 13.5);
/// The least distance of two colours that can be told apart.
const LEAST_CONTRAST: f64 = 40.0;
/// Pixels around a piece that must be explained, too.
const MARGIN: usize = 4;
/// The widths of the edge that the search goes through, in pixels: wide ones see farther.
const COARSE: [f64; 3] = [4.0, 3.0, 2.0];
/// The widths for the candidates that are left.
const FINE: [f64; 4] = [2.0, 1.0, 1.0, 1.0];
/// The widths of the edge under which candidates are compared: pictures may be softer than drawings.
const SOFT: [f64; 3] = [1.0, 2.0, 3.5];
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
    /// The target of piece `i` where nothing is known of the others: wherever one of them may reach,
    /// nothing is asked. `pixels` is the picture as it is, not smoothed.
    pub(super) fn alone(pixels: &[Rgb], ground: &Ground, pieces: &[Piece], i: usize) -> Self {
        let mut others = vec![false; SIDE * SIDE];
        for (_, other) in pieces.iter().enumerate().filter(|(j, _)| *j != i) {
            for p in (0..SIDE * SIDE).filter(|&p| is_inner(&other.mask, p)) {
                spread(&mut others, p, 2);
            }
        }
        let piece = &pieces[i];
        let mut target = Self::over(pixels, |_| ground.rgb, piece);
        for (counts, p) in target.counts.iter_mut().zip(target.bounds.pixels()) {
            *counts = !others[p] || is_inner(&piece.mask, p);
            target.crowded |= others[p];
        }
        target
    }

    /// The target of a piece that lies behind objects which cover the pixels of `hidden`.
    pub(super) fn behind(pixels: &[Rgb], ground: &Ground, hidden: &[bool], piece: &Piece) -> Self {
        let mut target = Self::over(pixels, |_| ground.rgb, piece);
        for (counts, p) in target.counts.iter_mut().zip(target.bounds.pixels()) {
            *counts = !hidden[p] || piece.mask[p];
        }
        Self { crowded: true, ..target }
    }

    /// The target of a piece that lies before everything else, which is drawn on `canvas`.
    pub(super) fn before(pixels: &[Rgb], canvas: &[Rgb], piece: &Piece) -> Self {
        Self { crowded: true, ..Self::over(pixels, |p| canvas[p], piece) }
    }

    /// How much of each pixel is of the piece's colour, where the rest is of the `base` colour.
    fn over(pixels: &[Rgb], base: impl Fn(usize) -> Rgb, piece: &Piece) -> Self {
        let b = piece.bounds;
        let bounds = Bounds {
            left: b.left.saturating_sub(MARGIN),
            top: b.top.saturating_sub(MARGIN),
            right: (b.right + MARGIN).min(SIDE),
            bottom: (b.bottom + MARGIN).min(SIDE),
        };
        let (mut share, mut counts) = (Vec::new(), Vec::new());
        for p in bounds.pixels() {
            // The share is the place on the line from the base's colour to the piece's.
            let (pixel, base) = (pixels[p], base(p));
            let line = [0, 1, 2].map(|c| piece.rgb[c] - base[c]);
            let length2 = line.iter().map(|v| v * v).sum::<f64>();
            let along: f64 = (0..3).map(|c| (pixel[c] - base[c]) * line[c]).sum();
            share.push((along / length2.max(1.0)).clamp(0.0, 1.0));
            counts.push(length2 > LEAST_CONTRAST * LEAST_CONTRAST);
        }
        Self { bounds, share, counts, crowded: false }
    }

    /// Whether another piece is near, so that a part may be hidden.
    pub(super) fn crowded(&self) -> bool {
        self.crowded
    }

    /// The objects of different shapes or places that leave least of the target unexplained, the best
    /// first.
    pub(super) fn candidates(&self, piece: &Piece) -> Vec<Object> {
        let starts = Shape::ALL.iter().flat_map(|&shape| self.starts(shape, piece));
        let coarse = starts.map(|start| self.refine(start, &COARSE));
        let mut left = self.ranked(coarse, &SOFT[1..2]);
        left.truncate(LEFT);
        let fine = left.into_iter().map(|(_, object)| self.refine(object, &FINE));
        self.ranked(fine, &SOFT).into_iter().map(|(_, object)| object).collect()
    }

    /// Objects with their errors, the best first.
    fn ranked(&self, objects: impl Iterator<Item = Object>, widths: &[f64]) -> Vec<(f64, Object)> {
        let mut ranked: Vec<_> = objects.map(|o| (self.error(&o, widths), o)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        ranked
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
            let mut more = Vec::with_capacity(8);
            for &size in Size::ALL {
                let radius = 0.5 * (size.radii().0 + size.radii().1);
                for x in [left + side * radius, right - side * radius] {
                    for y in [top + up * radius, bottom - down * radius] {
                        more.push(object(x, y, radius));
                    }
                }
            }
            let more = self.ranked(more.into_iter(), &SOFT[1..2]);
            starts.extend(more.into_iter().take(2).map(|(_, object)| object));
        }
        starts
    }

    /// The squared difference between target and object as a part of the target's own square, for the
    /// kindest of some widths of the edge, in pixels.
    fn error(&self, object: &Object, widths: &[f64]) -> f64 {
        let (mut errors, mut whole) = ([0.0; SOFT.len()], 1.0);
        let inverse = 1.0 / object.radius;
        self.each(|x, y, share| {
            whole += share * share;
            let (u, v) = ((x - object.x) * inverse, (y - object.y) * inverse);
            let d = if outside(u, v) { 9.0 } else { distance(object.shape, u, v) };
            for (error, width) in errors.iter_mut().zip(widths) {
                let cover = (0.5 - d * object.radius / width).clamp(0.0, 1.0);
                *error += (share - cover) * (share - cover);
            }
        });
        errors[..widths.len().min(SOFT.len())].iter().fold(f64::INFINITY, |a, b| a.min(*b)) / whole
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

    /// Gauss-Newton steps in centre and radius, one for each width of the edge.
    fn refine(&self, mut o: Object, widths: &[f64]) -> Object {
        for &width in widths {
            let Some([dx, dy, dr]) = self.step(&o, width) else { break };
            o.x = (o.x + dx.clamp(-3.0, 3.0)).clamp(0.0, SIDE as f64);
            o.y = (o.y + dy.clamp(-3.0, 3.0)).clamp(0.0, SIDE as f64);
            o.radius = (o.radius + dr.clamp(-2.0, 2.0)).clamp(RADII.0, RADII.1);
        }
        o
    }

    /// One step, or nothing where no pixel is at the edge.
    fn step(&self, o: &Object, width: f64) -> Option<[f64; 3]> {
        let inverse = 1.0 / o.radius;
        let (mut normal, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
        self.each(|x, y, share| {
            let (u, v) = ((x - o.x) * inverse, (y - o.y) * inverse);
            if outside(u, v) {
                return;
            }
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

/// Whether a point is so far from a shape of radius 1 that its widest edge does not reach it.
fn outside(u: f64, v: f64) -> bool {
    const FAR: f64 = REACH + 0.6;
    u * u + v * v > FAR * FAR
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
