//! From a scene to its picture and its exact ground truth.

use super::outline::{REACH, extent};
use super::picture::Picture;
use super::scene::{Object, SIDE, Scene};
use crate::error::{Error, Result};

/// A rectangle of pixels: from `left` to before `right`, from `top` to before `bottom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first column.
    pub left: usize,
    /// The first row.
    pub top: usize,
    /// The column after the last one.
    pub right: usize,
    /// The row after the last one.
    pub bottom: usize,
}

impl Bounds {
    /// The rectangle around an object with `margin` more on each side, within the picture.
    pub(super) fn of_object(object: &Object, margin: f64) -> Self {
        let (side, up, down) = extent(object.shape);
        let low = |v: f64| ((v - margin).round().max(0.0) as usize).min(SIDE - 1);
        let high =
            |v: f64, low: usize| ((v + margin).round().max(0.0) as usize).clamp(low + 1, SIDE);
        let left = low(object.x - side * object.radius);
        let top = low(object.y - up * object.radius);
        Self {
            left,
            top,
            right: high(object.x + side * object.radius, left),
            bottom: high(object.y + down * object.radius, top),
        }
    }

    /// The pixels that an object may touch, with `margin` more on each side, within the picture.
    pub(super) fn around(object: &Object, margin: f64) -> Self {
        let reach = REACH * object.radius + margin;
        let low = |v: f64| ((v - reach).max(0.0) as usize).min(SIDE);
        let high = |v: f64| ((v + reach).max(0.0) as usize + 1).min(SIDE);
        Self {
            left: low(object.x),
            top: low(object.y),
            right: high(object.x),
            bottom: high(object.y),
        }
    }

    /// The numbers of its pixels in a picture of `SIDE` x `SIDE`.
    pub(super) fn pixels(self) -> impl Iterator<Item = usize> {
        (self.top..self.bottom).flat_map(move |y| y * SIDE + self.left..y * SIDE + self.right)
    }

    /// The smallest rectangle around the pixels of a mask of `SIDE` x `SIDE`, if any is set.
    pub fn of_mask(mask: &[bool]) -> Option<Self> {
        let mut bounds: Option<Self> = None;
        for (i, _) in mask.iter().enumerate().filter(|(_, set)| **set) {
            let (x, y) = (i % SIDE, i / SIDE);
            let old = bounds.unwrap_or(Self { left: x, top: y, right: x + 1, bottom: y + 1 });
            bounds = Some(Self {
                left: old.left.min(x),
                top: old.top,
                right: old.right.max(x + 1),
                bottom: y + 1,
            });
        }
        bounds
    }

    /// The share of the union of two rectangles that is in both, 0 to 1.
    pub fn overlap(&self, other: &Self) -> f64 {
        let both = |a: (usize, usize), b: (usize, usize)| a.1.min(b.1).saturating_sub(a.0.max(b.0));
        let area = |b: &Self| b.right.saturating_sub(b.left) * b.bottom.saturating_sub(b.top);
        let width = both((self.left, self.right), (other.left, other.right));
        let height = both((self.top, self.bottom), (other.top, other.bottom));
        let shared = width * height;
        shared as f64 / (area(self) + area(other) - shared).max(1) as f64
    }
}

/// What is known of a picture exactly because it was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// For each pixel the number of the object that is seen there (its place in `Scene::objects`,
    /// which is the order of depth), or nothing for the background; `[64, 64]`. An object is seen
    /// where it covers at least half of the pixel and nothing nearer does.
    pub seen: Vec<Option<u8>>,
    /// For each object the pixels where it is seen, `[64, 64]`.
    pub masks: Vec<Vec<bool>>,
    /// For each object the rectangle around the whole of it, hidden parts included.
    pub boxes: Vec<Bounds>,
    /// The pixels whose right or lower neighbour shows something else, `[64, 64]`.
    pub edges: Vec<bool>,
}

/// How much of each pixel an object covers, 0 to 1, `[64, 64]`: one half less the signed distance of
/// the pixel's middle to the outline, clipped.
pub(super) fn cover(object: &Object) -> Vec<f64> {
    let mut cover = vec![0.0; SIDE * SIDE];
    let bounds = Bounds::around(object, 1.0);
    for y in bounds.top..bounds.bottom {
        for x in bounds.left..bounds.right {
            cover[y * SIDE + x] = cover_at(object, x, y);
        }
    }
    cover
}

/// How much of one pixel an object covers, 0 to 1.
pub(super) fn cover_at(object: &Object, x: usize, y: usize) -> f64 {
    (0.5 - object.distance(x as f64 + 0.5, y as f64 + 0.5)).clamp(0.0, 1.0)
}

/// The part of object `i` that later objects do not hide, by pixels covered at least half.
pub(super) fn visible_share(covers: &[Vec<f64>], i: usize) -> f64 {
    let (mut whole, mut seen) = (0_u32, 0_u32);
    for (p, _) in covers[i].iter().enumerate().filter(|(_, c)| **c >= 0.5) {
        whole += 1;
        seen += u32::from(covers[i + 1..].iter().all(|c| c[p] < 0.5));
    }
    f64::from(seen) / f64::from(whole.max(1))
}

impl Scene {
    /// The picture: the objects painted over the background in order of depth, edges smoothed by
    /// coverage. The bits are the same on every platform.
    pub fn render(&self) -> Picture {
        let ground = self.background.rgb().map(f64::from);
        let mut canvas = vec![ground; SIDE * SIDE];
        for object in &self.objects {
            paint(&mut canvas, object);
        }
        let data = canvas.iter().flatten().map(|v| (v + 0.5) as u8).collect();
        Picture::from_rgb(SIDE, SIDE, data)
            .unwrap_or_else(|_| Picture::plain(SIDE, SIDE, self.background.rgb()))
    }

    /// The picture with `side` pixels a side, each the mean of a block of [`Scene::render`]'s.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`](crate::Error::Setting) where [`SIDE`] is no multiple of `side`.
    pub fn render_at(&self, side: usize) -> Result<Picture> {
        if side == SIDE {
            return Ok(self.render());
        }
        if side == 0 || !SIDE.is_multiple_of(side) {
            let why = format!("{side}, wanted a side that divides {SIDE}");
            return Err(Error::setting("side", why));
        }
        self.render().reduced(SIDE / side)
    }

    /// The exact ground truth of [`Scene::render`].
    pub fn truth(&self) -> Truth {
        let covers: Vec<_> = self.objects.iter().map(cover).collect();
        let top = |p: usize| covers.iter().rposition(|c| c[p] >= 0.5).map(|i| i as u8);
        let seen: Vec<_> = (0..SIDE * SIDE).map(top).collect();
        let mask = |i: usize| seen.iter().map(|s| *s == Some(i as u8)).collect();
        let whole = |c: &Vec<f64>| c.iter().map(|v| *v >= 0.5).collect::<Vec<_>>();
        let empty = Bounds { left: 0, top: 0, right: 0, bottom: 0 };
        let boxes = covers.iter().map(|c| Bounds::of_mask(&whole(c)).unwrap_or(empty)).collect();
        let differs = |p: usize, q: usize| seen.get(q).is_some_and(|other| *other != seen[p]);
        let edge = |p: usize| (p % SIDE + 1 < SIDE && differs(p, p + 1)) || differs(p, p + SIDE);
        let edges = (0..SIDE * SIDE).map(edge).collect();
        Truth { masks: (0..self.objects.len()).map(mask).collect(), seen, boxes, edges }
    }
}

/// Paints an object over a canvas of `SIDE` x `SIDE`.
fn paint(canvas: &mut [[f64; 3]], object: &Object) {
    paint_as(canvas, object, object.colour.rgb().map(f64::from));
}

/// Paints an object over a canvas of `SIDE` x `SIDE`, in a colour that need not be its own.
pub(super) fn paint_as(canvas: &mut [[f64; 3]], object: &Object, colour: [f64; 3]) {
    let bounds = Bounds::around(object, 1.0);
    for y in bounds.top..bounds.bottom {
        for x in bounds.left..bounds.right {
            let share = cover_at(object, x, y);
            let pixel = &mut canvas[y * SIDE + x];
            for (value, target) in pixel.iter_mut().zip(colour) {
                *value += share * (target - *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::data::shapes::{Background, Colour, Shape, Split};

    #[test]
    fn the_pixels_are_pinned() {
        let mut hash = Sha256::new();
        for index in 0..64 {
            hash.update(Scene::sample(1, index, Split::Train).render().data());
        }
        let hash = hash.finalize();
        assert_eq!(hash[..8], [0x96, 0x4a, 0xa7, 0x68, 0x10, 0x8d, 0x1b, 0x3d]);
    }

    #[test]
    fn a_circle_is_painted_with_its_area_and_colour() {
        let object =
            Object { shape: Shape::Circle, colour: Colour::Red, x: 30.3, y: 20.7, radius: 9.0 };
        let scene = Scene { background: Background::White, objects: vec![object] };
        let area: f64 = cover(&object).iter().sum();
        assert!((area / (std::f64::consts::PI * 81.0) - 1.0).abs() < 2e-3, "{area}");
        let picture = scene.render();
        assert_eq!(picture.get(30, 20), Some(Colour::Red.rgb()));
        assert_eq!(picture.get(0, 0), Some(Background::White.rgb()));
        let truth = scene.truth();
        assert_eq!(truth.boxes[0], Bounds { left: 21, top: 12, right: 39, bottom: 30 });
        assert_eq!(Bounds::of_mask(&truth.masks[0]), Some(truth.boxes[0]));
        assert_eq!(Bounds::of_mask(&[false; SIDE * SIDE]), None);
    }

    #[test]
    fn truth_agrees_with_itself() {
        for index in 0..200 {
            let scene = Scene::sample(9, index, Split::Train);
            let truth = scene.truth();
            assert_eq!(
                (truth.masks.len(), truth.boxes.len()),
                (scene.objects.len(), scene.objects.len())
            );
            for p in 0..SIDE * SIDE {
                let masks: Vec<usize> =
                    (0..truth.masks.len()).filter(|&i| truth.masks[i][p]).collect();
                assert_eq!(masks, truth.seen[p].map(usize::from).into_iter().collect::<Vec<_>>());
                if truth.edges[p] {
                    let next = [p + 1, p + SIDE].map(|q| truth.seen.get(q).copied());
                    assert!(next.iter().flatten().any(|s| *s != truth.seen[p]));
                }
            }
            for (mask, bounds) in truth.masks.iter().zip(&truth.boxes) {
                let seen = Bounds::of_mask(mask).unwrap();
                assert!(seen.left >= bounds.left && seen.right <= bounds.right);
                assert!(seen.top >= bounds.top && seen.bottom <= bounds.bottom);
                assert!(seen.overlap(bounds) > 0.6 && bounds.overlap(bounds) == 1.0);
            }
        }
    }

    #[test]
    fn the_nearer_object_hides_the_farther_one() {
        let object = |colour, x| Object { shape: Shape::Square, colour, x, y: 32.0, radius: 10.0 };
        let objects = vec![object(Colour::Blue, 26.0), object(Colour::Yellow, 36.0)];
        let scene = Scene { background: Background::Gray, objects };
        assert_eq!(scene.render().get(31, 32), Some(Colour::Yellow.rgb()));
        assert_eq!(scene.truth().seen[32 * SIDE + 31], Some(1));
        assert_eq!(scene.truth().seen[32 * SIDE + 22], Some(0));
    }
}
