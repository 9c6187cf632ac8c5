//! Scenes: what they hold and how they are drawn from a seed.

use serde::{Deserialize, Serialize};

use super::attribute::{Background, Colour, Place, Relation, Shape, Size};
use super::draws::{Draws, Purpose};
use super::outline::{REACH, distance};
use super::render::{cover, visible_share};
use super::split::{ARRANGEMENTS, HeldOut, PAIRS, Split, held_out, is_held_out};

/// The width and the height of every picture, in pixels.
pub const SIDE: usize = 64;

/// The smallest part of an object's area that must be seen.
pub const LEAST_VISIBLE: f64 = 0.85;

/// Clear pixels between two objects of one colour, which would otherwise melt together.
const CLEAR: f64 = 2.0;

/// One object of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its outline.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// The x of its centre in pixels from the left border.
    pub x: f64,
    /// The y of its centre in pixels from the upper border.
    pub y: f64,
    /// Its radius in pixels: half the width of a circle; the other shapes are scaled to look as large.
    pub radius: f64,
}

impl Object {
    /// The class of its radius.
    pub fn size(&self) -> Size {
        Size::of(self.radius)
    }

    /// The cell of the 3x3 grid that its centre lies in.
    pub fn place(&self) -> Place {
        Place::of(self.x, self.y)
    }

    /// The signed distance in pixels from (x, y) to its outline, negative inside.
    pub fn distance(&self, x: f64, y: f64) -> f64 {
        self.radius * distance(self.shape, (x - self.x) / self.radius, (y - self.y) / self.radius)
    }

    /// Whether `relation` holds from this object to `other`.
    pub fn lies(&self, relation: Relation, other: &Self) -> bool {
        relation.holds((self.x, self.y), (other.x, other.y))
    }
}

/// A background and one to three objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// What lies behind the objects.
    pub background: Background,
    /// The objects in order of depth: the last one is nearest and hides the others.
    pub objects: Vec<Object>,
}

impl Scene {
    /// Scene number `index` of `seed` in `split`: of one object (probability 0.4), two (0.4) or
    /// three (0.2).
    ///
    /// It is a function of the three arguments alone. Backgrounds, shapes, colours and size classes
    /// are uniform, radii uniform within their class, cells uniform without repetition, and centres
    /// uniform within 2 pixels of the cell's middle (less where the border would be touched). No two
    /// objects share both shape and colour. Scenes are drawn again where less than 0.85 of an object
    /// would be seen, where objects of one colour would touch, or where a combination is not of the
    /// split.
    pub fn sample(seed: u64, index: u64, split: Split) -> Self {
        let mut draws = stream(seed, index, split);
        let count = [1, 1, 2, 2, 3][draws.below(5)];
        draw(&mut draws, split, count)
    }

    /// Like [`Scene::sample`], with `count` objects; what lies outside 1 to 3 is brought to the
    /// nearest of them.
    pub fn sample_with(seed: u64, index: u64, split: Split, count: usize) -> Self {
        let mut draws = stream(seed, index, split);
        draws.unit();
        draw(&mut draws, split, count.clamp(1, 3))
    }

    /// The held-out combinations that it shows.
    pub fn held_out(&self) -> Vec<HeldOut> {
        held_out(self)
    }
}

fn stream(seed: u64, index: u64, split: Split) -> Draws {
    let number = match split {
        Split::Train => 0,
        Split::Test => 1,
        Split::HeldOut => 2,
    };
    Draws::new(seed, index, Purpose::Scene(number))
}

/// What a held-out scene must show.
fn wanted(draws: &mut Draws, split: Split, count: usize) -> Option<HeldOut> {
    if split != Split::HeldOut {
        return None;
    }
    // Two-object scenes show a pair or an arrangement, with equal probability; the others a pair.
    Some(if count == 2 && draws.chance(0.5) {
        let (a, relation, b) = draws.pick(&ARRANGEMENTS);
        HeldOut::Arrangement(a, relation, b)
    } else {
        let (shape, colour) = draws.pick(&PAIRS);
        HeldOut::Pair(shape, colour)
    })
}

fn draw(draws: &mut Draws, split: Split, count: usize) -> Scene {
    let background = draws.pick(Background::ALL);
    let wanted = wanted(draws, split, count);
    loop {
        let mut kinds: Vec<(Shape, Colour)> = Vec::with_capacity(count);
        match wanted {
            Some(HeldOut::Pair(shape, colour)) => kinds.push((shape, colour)),
            Some(HeldOut::Arrangement(a, _, b)) => {
                kinds.extend([(a, draws.pick(Colour::ALL)), (b, draws.pick(Colour::ALL))]);
            }
            None => {}
        }
        while kinds.len() < count {
            kinds.push((draws.pick(Shape::ALL), draws.pick(Colour::ALL)));
        }
        // The first object of the list must not always be the farthest one.
        draws.shuffle(&mut kinds);
        let scene = Scene { background, objects: place(draws, &kinds) };
        if is_clear(&scene) && is_of(&scene, wanted) {
            return scene;
        }
    }
}

fn place(draws: &mut Draws, kinds: &[(Shape, Colour)]) -> Vec<Object> {
    let mut cells = Place::ALL.to_vec();
    draws.shuffle(&mut cells);
    let object = |(&(shape, colour), place): (&(Shape, Colour), &Place)| {
        let (low, high) = draws.pick(Size::ALL).radii();
        let radius = draws.between(low, high);
        let (x, y) = place.middle();
        let (x, y) = (x + draws.between(-2.0, 2.0), y + draws.between(-2.0, 2.0));
        // One clear pixel at the border.
        let margin = REACH * radius + 1.0;
        let within = |v: f64| v.clamp(margin, SIDE as f64 - margin);
        Object { shape, colour, x: within(x), y: within(y), radius }
    };
    kinds.iter().zip(&cells).map(object).collect()
}

/// Whether every object can be recognised: kinds differ, equal colours keep apart, little is hidden.
pub(super) fn is_clear(scene: &Scene) -> bool {
    let objects = &scene.objects;
    for (i, a) in objects.iter().enumerate() {
        for b in &objects[..i] {
            if a.colour == b.colour && (a.shape == b.shape || touch(a, b)) {
                return false;
            }
        }
    }
    let covers: Vec<_> = objects.iter().map(cover).collect();
    (0..objects.len()).all(|i| visible_share(&covers, i) >= LEAST_VISIBLE)
}

/// Whether two objects come nearer than [`CLEAR`], judged by the pixels.
fn touch(a: &Object, b: &Object) -> bool {
    let gap = REACH * (a.radius + b.radius) + CLEAR;
    if (a.x - b.x).abs() > gap || (a.y - b.y).abs() > gap {
        return false;
    }
    let pixels = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x as f64 + 0.5, y as f64 + 0.5)));
    pixels.into_iter().any(|(x, y)| a.distance(x, y) + b.distance(x, y) < CLEAR)
}

/// Whether it shows what is wanted and no held-out combination of the other kind.
fn is_of(scene: &Scene, wanted: Option<HeldOut>) -> bool {
    let found = held_out(scene);
    match wanted {
        None => found.is_empty(),
        // The companions are of training's combinations.
        Some(HeldOut::Pair(..)) => {
            found.len() == 1 && scene.objects.iter().any(|o| is_held_out(o.shape, o.colour))
        }
        Some(arrangement) => found == [arrangement],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_are_functions_of_seed_index_and_split() {
        for index in 0..50 {
            let scene = Scene::sample(1, index, Split::Train);
            assert_eq!(scene, Scene::sample(1, index, Split::Train));
            assert_ne!(scene, Scene::sample(2, index, Split::Train));
            assert_ne!(scene, Scene::sample(1, index + 50, Split::Train));
            assert_ne!(scene, Scene::sample(1, index, Split::Test));
        }
    }

    #[test]
    fn scenes_are_clear_and_the_counts_as_documented() {
        let mut counts = [0; 4];
        let mut overlaps = 0;
        for index in 0..3000 {
            let scene = Scene::sample(5, index, Split::Train);
            counts[scene.objects.len()] += 1;
            let covers: Vec<_> = scene.objects.iter().map(cover).collect();
            let shares: Vec<f64> = (0..covers.len()).map(|i| visible_share(&covers, i)).collect();
            assert!(shares.iter().all(|&s| s >= LEAST_VISIBLE));
            overlaps += i32::from(shares.iter().any(|&s| s < 1.0));
            for (i, a) in scene.objects.iter().enumerate() {
                let margin = REACH * a.radius + 0.999;
                for v in [a.x, a.y] {
                    assert!(v >= margin && v <= SIDE as f64 - margin);
                }
                let (low, high) = a.size().radii();
                assert!(a.radius >= low && a.radius <= high);
                for b in &scene.objects[..i] {
                    assert_ne!(a.place(), b.place());
                    let (dx, dy) = ((a.x - b.x).abs(), (a.y - b.y).abs());
                    for d in [dx, dy] {
                        assert!((d - Relation::REACH).abs() > 2.0, "{d}");
                    }
                }
            }
        }
        assert!(counts[1] > 1100 && counts[2] > 1100 && counts[3] > 500, "{counts:?}");
        assert!(overlaps > 100, "{overlaps}");
    }

    #[test]
    fn the_number_of_objects_can_be_chosen() {
        for index in 0..60 {
            for &split in Split::ALL {
                for count in 1..=3 {
                    assert_eq!(Scene::sample_with(3, index, split, count).objects.len(), count);
                }
            }
            let scene = Scene::sample(3, index, Split::Test);
            assert_eq!(scene, Scene::sample_with(3, index, Split::Test, scene.objects.len()));
        }
    }
}
