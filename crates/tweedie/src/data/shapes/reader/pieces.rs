//! Pieces of one colour: where objects may be.

use crate::data::shapes::attribute::{Background, Colour};
use crate::data::shapes::render::Bounds;
use crate::data::shapes::scene::SIDE;

/// A colour as the reader computes with it.
pub(super) type Rgb = [f64; 3];

/// How far a background may be from its palette colour.
const GROUND_SHIFT: f64 = 34.0;
/// The smallest part of the pixels that must be background.
const LEAST_GROUND: f64 = 0.5;
/// How far a pixel may be from its nearest colour to count as of that colour.
const LIKE: f64 = 75.0;
/// How far a pixel may be from the line between two colours to count as a mixture of them.
const BETWEEN: f64 = 25.0;
/// The fewest inner pixels of a piece.
const LEAST_CORE: usize = 5;

/// The label of background pixels and of pixels like nothing known; colours have their index.
const GROUND: u8 = 254;
const NOTHING: u8 = 255;

/// The background and the colour that it has in this picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    pub(super) background: Background,
    pub(super) rgb: Rgb,
}

/// A connected piece of one colour.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) colour: Colour,
    /// Its mean colour, taken inside.
    pub(super) rgb: Rgb,
    /// Its pixels, `SIDE` x `SIDE`.
    pub(super) mask: Vec<bool>,
    pub(super) bounds: Bounds,
    /// The number of pixels whose neighbours are all of the piece.
    pub(super) core: usize,
}

/// The squared distance of two colours.
pub(super) fn apart2(a: Rgb, b: Rgb) -> f64 {
    (0..3).map(|i| (a[i] - b[i]) * (a[i] - b[i])).sum()
}

/// The picture under a window of 1, 2, 1 both ways, the border repeated.
pub(super) fn smooth(pixels: &[Rgb]) -> Vec<Rgb> {
    let pass = |from: &[Rgb], across: bool| -> Vec<Rgb> {
        let at = |p: usize| {
            let (x, y) = (p % SIDE, p / SIDE);
            let step = if across { 1 } else { SIDE };
            let place = if across { x } else { y };
            let before = if place > 0 { p - step } else { p };
            let after = if place + 1 < SIDE { p + step } else { p };
            let mean = |i: usize| 0.25 * (from[before][i] + 2.0 * from[p][i] + from[after][i]);
            [mean(0), mean(1), mean(2)]
        };
        (0..from.len()).map(at).collect()
    };
    pass(&pass(pixels, true), false)
}

/// Finds the background of a smoothed picture: the background colour that most pixels are near to.
pub(super) fn ground(pixels: &[Rgb]) -> Option<Ground> {
    let near = |b: &Background| -> (usize, Ground) {
        let palette = b.rgb().map(f64::from);
        let (mut count, mut sum) = (0, [0.0; 3]);
        for pixel in pixels.iter().filter(|p| apart2(**p, palette) < GROUND_SHIFT * GROUND_SHIFT) {
            count += 1;
            (0..3).for_each(|i| sum[i] += pixel[i]);
        }
        let rgb = sum.map(|v| v / count.max(1) as f64);
        (count, Ground { background: *b, rgb })
    };
    let (count, ground) = Background::ALL.iter().map(near).max_by_key(|(count, _)| *count)?;
    (count as f64 >= LEAST_GROUND * pixels.len() as f64).then_some(ground)
}

/// Cuts a smoothed picture into pieces of one colour each, the largest first.
pub(super) fn pieces(pixels: &[Rgb], ground: &Ground) -> Vec<Piece> {
    let palette: Vec<Rgb> = Colour::ALL.iter().map(|c| c.rgb().map(f64::from)).collect();
    let label = |pixel: &Rgb| {
        let mut best = (apart2(*pixel, ground.rgb), GROUND);
        for (i, colour) in palette.iter().enumerate() {
            let distance = apart2(*pixel, *colour);
            if distance < best.0 {
                best = (distance, i as u8);
            }
        }
        if best.0 < LIKE * LIKE { best.1 } else { NOTHING }
    };
    let raw: Vec<u8> = pixels.iter().map(label).collect();
    let labels: Vec<u8> = (0..raw.len()).map(|p| settle(pixels, &raw, p)).collect();
    let mut done = vec![false; labels.len()];
    let mut found = Vec::new();
    for start in 0..labels.len() {
        if done[start] || labels[start] >= GROUND {
            continue;
        }
        let mask = flood(&labels, start, &mut done);
        let mut inner: Vec<usize> = (0..mask.len()).filter(|&p| is_inner(&mask, p)).collect();
        let core = inner.len();
        if core < LEAST_CORE {
            continue;
        }
        // In soft pictures thin parts are pale: the half that is farthest from the ground counts.
        inner.sort_by(|&p, &q| {
            apart2(pixels[q], ground.rgb).total_cmp(&apart2(pixels[p], ground.rgb)).then(p.cmp(&q))
        });
        inner.truncate(core.div_ceil(2));
        let mean = |i: usize| inner.iter().map(|&p| pixels[p][i]).sum::<f64>() / inner.len() as f64;
        let rgb = [mean(0), mean(1), mean(2)];
        if let Some(bounds) = Bounds::of_mask(&mask) {
            let colour = Colour::ALL[usize::from(labels[start])];
            found.push(Piece { colour, rgb, mask, bounds, core });
        }
    }
    found.sort_by_key(|p: &Piece| std::cmp::Reverse(p.core));
    found
}

/// The label of a pixel, or that of its nearer side where it only lies between two others.
///
/// Halfway from red to white there is a line of pink, and from red to yellow one of orange.
fn settle(pixels: &[Rgb], labels: &[u8], p: usize) -> u8 {
    const APART: usize = 2;
    let (x, y) = (p % SIDE, p / SIDE);
    let inner = APART..SIDE - APART;
    if labels[p] == GROUND || !inner.contains(&x) || !inner.contains(&y) {
        return labels[p];
    }
    for step in [1, SIDE, SIDE + 1, SIDE - 1] {
        let (a, b) = (p - APART * step, p + APART * step);
        if labels[a] == labels[b] || [labels[a], labels[b]].contains(&labels[p]) {
            continue;
        }
        let line = [0, 1, 2].map(|c| pixels[b][c] - pixels[a][c]);
        let length2: f64 = line.iter().map(|v| v * v).sum();
        let along: f64 = (0..3).map(|c| (pixels[p][c] - pixels[a][c]) * line[c]).sum();
        let share = along / length2.max(1.0);
        let on_line = [0, 1, 2].map(|c| pixels[a][c] + share * line[c]);
        if (0.0..=1.0).contains(&share) && apart2(pixels[p], on_line) < BETWEEN * BETWEEN {
            return if share < 0.5 { labels[a] } else { labels[b] };
        }
    }
    labels[p]
}

/// The pixels of one label that hang together with `start`, by sides and corners.
fn flood(labels: &[u8], start: usize, done: &mut [bool]) -> Vec<bool> {
    let mut mask = vec![false; labels.len()];
    let mut open = vec![start];
    done[start] = true;
    while let Some(p) = open.pop() {
        mask[p] = true;
        let (x, y) = (p % SIDE, p / SIDE);
        for ny in y.saturating_sub(1)..(y + 2).min(SIDE) {
            for nx in x.saturating_sub(1)..(x + 2).min(SIDE) {
                let q = ny * SIDE + nx;
                if !done[q] && labels[q] == labels[start] {
                    done[q] = true;
                    open.push(q);
                }
            }
        }
    }
    mask
}

/// Whether a pixel and its four neighbours are in the mask.
pub(super) fn is_inner(mask: &[bool], p: usize) -> bool {
    let (x, y) = (p % SIDE, p / SIDE);
    mask[p]
        && x > 0
        && y > 0
        && x + 1 < SIDE
        && y + 1 < SIDE
        && mask[p - 1]
        && mask[p + 1]
        && mask[p - SIDE]
        && mask[p + SIDE]
}
