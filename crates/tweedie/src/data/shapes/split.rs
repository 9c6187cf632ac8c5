//! Which combinations of attributes training sees, and which it never does.

use serde::{Deserialize, Serialize};

use super::attribute::{Colour, Relation, Shape};
use super::scene::Scene;

/// A part of the shapes world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// For training. No scene shows a held-out combination.
    Train,
    /// For testing on what training knows: the distribution of [`Split::Train`], other draws.
    Test,
    /// For testing what training never saw: every scene shows a held-out combination.
    HeldOut,
}

impl Split {
    /// All three, training first.
    pub const ALL: &'static [Self] = &[Self::Train, Self::Test, Self::HeldOut];
}

/// A combination that [`Split::Train`] and [`Split::Test`] never show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldOut {
    /// An object of this shape and colour.
    Pair(Shape, Colour),
    /// An object of the first shape that lies so to an object of the second, whatever their colours.
    /// The relation is [`Relation::LeftOf`] or [`Relation::Above`]; the other two are their mirrors.
    Arrangement(Shape, Relation, Shape),
}

/// The held-out pairs: every shape and every colour occurs once, so that training sees each of them
/// with seven partners.
pub const PAIRS: [(Shape, Colour); 8] = [
    (Shape::Circle, Colour::Green),
    (Shape::Square, Colour::Purple),
    (Shape::Triangle, Colour::Red),
    (Shape::Diamond, Colour::Cyan),
    (Shape::Star, Colour::Blue),
    (Shape::Cross, Colour::Orange),
    (Shape::Ring, Colour::Pink),
    (Shape::Heart, Colour::Yellow),
];

/// The held-out arrangements: every shape occurs once on either side.
pub const ARRANGEMENTS: [(Shape, Relation, Shape); 8] = [
    (Shape::Circle, Relation::LeftOf, Shape::Star),
    (Shape::Square, Relation::Above, Shape::Heart),
    (Shape::Triangle, Relation::LeftOf, Shape::Ring),
    (Shape::Diamond, Relation::Above, Shape::Circle),
    (Shape::Star, Relation::Above, Shape::Square),
    (Shape::Cross, Relation::LeftOf, Shape::Diamond),
    (Shape::Ring, Relation::Above, Shape::Cross),
    (Shape::Heart, Relation::LeftOf, Shape::Triangle),
];

/// Whether an object of this shape and colour is held out.
pub fn is_held_out(shape: Shape, colour: Colour) -> bool {
    PAIRS.contains(&(shape, colour))
}

/// The held-out combinations that a scene shows: pairs in order of depth, then arrangements.
pub fn held_out(scene: &Scene) -> Vec<HeldOut> {
    let objects = &scene.objects;
    let pairs = objects.iter().filter(|o| is_held_out(o.shape, o.colour));
    let mut found: Vec<_> = pairs.map(|o| HeldOut::Pair(o.shape, o.colour)).collect();
    for (i, a) in objects.iter().enumerate() {
        for (j, b) in objects.iter().enumerate() {
            let shown = |&&(first, relation, second): &&(Shape, Relation, Shape)| {
                i != j
                    && (first, second) == (a.shape, b.shape)
                    && relation.holds((a.x, a.y), (b.x, b.y))
            };
            let shown = ARRANGEMENTS.iter().filter(shown);
            found.extend(shown.map(|&(a, r, b)| HeldOut::Arrangement(a, r, b)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_lists_name_everything_once() {
        for &shape in Shape::ALL {
            assert_eq!(PAIRS.iter().filter(|p| p.0 == shape).count(), 1, "{shape}");
            assert_eq!(ARRANGEMENTS.iter().filter(|a| a.0 == shape).count(), 1, "{shape}");
            assert_eq!(ARRANGEMENTS.iter().filter(|a| a.2 == shape).count(), 1, "{shape}");
        }
        for &colour in Colour::ALL {
            assert_eq!(PAIRS.iter().filter(|p| p.1 == colour).count(), 1, "{colour}");
        }
        let named = |r: Relation| ARRANGEMENTS.iter().filter(move |a| a.1 == r).count();
        assert_eq!((named(Relation::LeftOf), named(Relation::Above)), (4, 4));
    }

    #[test]
    fn splits_keep_their_promise() {
        let (mut pairs, mut arrangements) = (0, 0);
        for index in 0..6000 {
            for &split in Split::ALL {
                let scene = Scene::sample(11, index, split);
                let found = held_out(&scene);
                assert_eq!(
                    found.is_empty(),
                    split != Split::HeldOut,
                    "{split:?} {index} {found:?}"
                );
                if split == Split::HeldOut {
                    let pair = matches!(found[0], HeldOut::Pair(..));
                    pairs += usize::from(pair);
                    arrangements += usize::from(!pair);
                }
            }
        }
        assert!(pairs > 2500 && arrangements > 800, "{pairs} {arrangements}");
    }
}
