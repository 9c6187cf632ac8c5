//! Which objects, in which order of depth, explain a picture.

use super::Why;
use super::fit::Target;
use super::pieces::{Ground, Piece, Rgb, apart2};
use crate::data::shapes::render::{Bounds, cover_at, paint_as};
use crate::data::shapes::scene::{Object, SIDE};

/// How far an object's colour may be from its palette colour.
const COLOUR_SHIFT: f64 = 42.0;
/// The part of its contrast that an object may leave unexplained without a second look.
const CLEAR_FIT: f64 = 0.06;
/// The part of an object's contrast that drawing it must explain.
const LEAST_GAIN: f64 = 0.5;
/// The part from which on the first guess is taken without others.
const CLEAR_GAIN: f64 = 0.75;
/// By how much a second look must lessen the difference.
const BETTER: f64 = 0.99;
/// An object covers a pixel for another one's eyes from this share on.
const TOUCHED: f64 = 0.02;

/// An object with the colour that it has in this picture.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) object: Object,
    rgb: Rgb,
    /// The number of its piece.
    piece: usize,
}

/// A picture and what is known of it before objects are.
pub(super) struct Sight<'a> {
    pub(super) pixels: &'a [Rgb],
    pub(super) ground: Ground,
    pub(super) pieces: &'a [Piece],
}

impl Sight<'_> {
    /// The objects that explain the picture, in the order of depth that explains it best.
    pub(super) fn assemble(&self) -> Result<Vec<Found>, Why> {
        let mut found: Vec<Found> = Vec::new();
        for (i, piece) in self.pieces.iter().enumerate() {
            if apart2(piece.rgb, piece.colour.rgb().map(f64::from)) > COLOUR_SHIFT * COLOUR_SHIFT {
                continue;
            }
            // What later pieces may explain is not asked of this one.
            let counts: Vec<bool> = (0..SIDE * SIDE)
                .map(|p| !self.pieces[i + 1..].iter().any(|later| later.mask[p]))
                .collect();
            let before = self.difference(&found, &counts);
            let explained = |(order, left): &(Vec<Found>, f64)| {
                let area =
                    order.iter().find(|f| f.piece == i).map_or(0.0, |f| area(&f.object, &counts));
                (before - left) / (apart2(piece.rgb, self.ground.rgb) * area).max(1.0)
            };
            let target = Target::alone(self.pixels, &self.ground, self.pieces, i);
            let ranked = target.candidates(piece);
            let mut best = self.best(&found, i, ranked.get(..1).unwrap_or_default(), &counts);
            if target.crowded() && best.as_ref().is_some_and(|b| explained(b) < CLEAR_GAIN) {
                let all = [ranked, self.among(&found, i)].concat();
                best = self.best(&found, i, &all, &counts);
            }
            if let Some(best) = best
                && explained(&best) >= LEAST_GAIN
            {
                if found.len() == 3 {
                    return Err(Why::TooManyObjects);
                }
                found = best.0;
            }
        }
        if found.is_empty() {
            return Err(Why::NoObject);
        }
        // A second look may free another one from what hid it.
        for _ in 0..2 {
            if !self.look_again(&mut found) {
                break;
            }
        }
        Ok(found)
    }

    /// The picture of what was found, in the colours that it was found in.
    pub(super) fn draw(&self, found: &[Found]) -> Vec<Rgb> {
        let mut canvas = vec![self.ground.rgb; SIDE * SIDE];
        for f in found {
            paint_as(&mut canvas, &f.object, f.rgb);
        }
        canvas
    }

    /// What piece `i` may be among known objects, behind them and before them.
    fn among(&self, known: &[Found], i: usize) -> Vec<Object> {
        let piece = &self.pieces[i];
        let behind = Target::behind(self.pixels, &self.ground, &covered(known), piece);
        let before = Target::before(self.pixels, &self.draw(known), piece);
        [behind.candidates(piece), before.candidates(piece)].concat()
    }

    /// Fits each object that leaves much unexplained once more, now that the others are known. Tells
    /// whether that helped.
    fn look_again(&self, found: &mut Vec<Found>) -> bool {
        let everywhere = vec![true; SIDE * SIDE];
        let mut better = false;
        for old in found.clone() {
            let drawn = self.draw(found);
            let bounds = Bounds::around(&old.object, 2.0);
            let error: f64 = bounds.pixels().map(|p| apart2(self.pixels[p], drawn[p])).sum();
            let contrast = apart2(old.rgb, self.ground.rgb) * area(&old.object, &everywhere);
            let others: Vec<Found> =
                found.iter().filter(|f| f.piece != old.piece).copied().collect();
            let hidden = covered(&others);
            if error < CLEAR_FIT * contrast || !bounds.pixels().any(|p| hidden[p]) {
                continue;
            }
            let objects = self.among(&others, old.piece);
            let left = BETTER * self.difference(found, &everywhere);
            if let Some((order, then)) = self.best(&others, old.piece, &objects, &everywhere)
                && then < left
            {
                (*found, better) = (order, true);
            }
        }
        better
    }

    /// The candidate and the order of depth that, with what is known, leave the least difference.
    fn best(
        &self,
        known: &[Found],
        piece: usize,
        candidates: &[Object],
        counts: &[bool],
    ) -> Option<(Vec<Found>, f64)> {
        let rgb = self.pieces[piece].rgb;
        // Each candidate is tried at every depth.
        let tries = candidates.iter().flat_map(|&object| {
            (0..=known.len()).rev().map(move |depth| {
                let mut order = known.to_vec();
                order.insert(depth, Found { object, rgb, piece });
                order
            })
        });
        let judged = tries.map(|order| {
            let left = self.difference(&order, counts);
            (order, left)
        });
        judged.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The squared difference of the picture and what was found, where it counts.
    fn difference(&self, found: &[Found], counts: &[bool]) -> f64 {
        let drawn = self.draw(found);
        let pairs = self.pixels.iter().zip(&drawn).zip(counts);
        pairs.filter(|(_, counts)| **counts).map(|((p, q), _)| apart2(*p, *q)).sum()
    }
}

/// The number of pixels that an object covers, where it counts.
fn area(object: &Object, counts: &[bool]) -> f64 {
    let pixels = Bounds::around(object, 1.0).pixels().filter(|&p| counts[p]);
    pixels.map(|p| cover_at(object, p % SIDE, p / SIDE)).sum()
}

/// The pixels that objects touch.
fn covered(found: &[Found]) -> Vec<bool> {
    let mut hidden = vec![false; SIDE * SIDE];
    for f in found {
        for p in Bounds::around(&f.object, 1.0).pixels() {
            hidden[p] |= cover_at(&f.object, p % SIDE, p / SIDE) > TOUCHED;
        }
    }
    hidden
}
