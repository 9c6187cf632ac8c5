//! Changes of scenes, each with its exact picture: a world for methods that edit.

use serde::{Deserialize, Serialize};

use super::asked::Asked;
use super::attribute::{Background, Colour, Place, Shape, Size};
use super::draws::{Draws, Purpose};
use super::outline::REACH;
use super::scene::{Object, SIDE, Scene, is_clear};
use super::split::{Split, held_out};

/// What is changed in a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// The colour of an object.
    Recolour,
    /// The shape of an object.
    Reshape,
    /// The cell that an object lies in.
    Move,
    /// An object more, nearest to the eye.
    Add,
    /// An object less.
    Delete,
    /// The background.
    Background,
}

impl ChangeKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Recolour, Self::Reshape, Self::Move, Self::Add, Self::Delete, Self::Background];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recolour => "recolour",
            Self::Reshape => "reshape",
            Self::Move => "move",
            Self::Add => "add",
            Self::Delete => "delete",
            Self::Background => "background",
        }
    }
}

/// A scene, and the same with one thing changed. Both are of the splits' common distribution: clear,
/// and without held-out combinations.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What is changed.
    pub kind: ChangeKind,
    /// The scene before.
    pub source: Scene,
    /// The scene after.
    pub target: Scene,
}

impl Change {
    /// Change number `index` of `seed`: a function of the three arguments. Scenes are those of
    /// [`Split::Test`] with as many objects as the split draws, but one or two where one is added and
    /// two or three where one is deleted.
    pub fn sample(seed: u64, index: u64, kind: ChangeKind) -> Self {
        let mut draws = Draws::new(seed, index, Purpose::Change(kind as u8));
        loop {
            // Some scenes cannot be changed so: then another one is.
            let scene = draws.below(usize::MAX) as u64;
            let source = match kind {
                ChangeKind::Add => Scene::sample_with(seed, scene, Split::Test, 1 + draws.below(2)),
                ChangeKind::Delete => {
                    Scene::sample_with(seed, scene, Split::Test, 2 + draws.below(2))
                }
                _ => Scene::sample(seed, scene, Split::Test),
            };
            for _ in 0..16 {
                let target = changed(&mut draws, &source, kind);
                if is_clear(&target) && held_out(&target).is_empty() && target != source {
                    return Self { kind, source, target };
                }
            }
        }
    }

    /// Everything that can be said of the scene before, in plain words.
    pub fn source_text(&self) -> String {
        Asked::all_of(&self.source).text()
    }

    /// Everything that can be said of the scene after, in plain words.
    pub fn target_text(&self) -> String {
        Asked::all_of(&self.target).text()
    }

    /// Where the two pictures differ, row by row.
    pub fn mask(&self) -> Vec<bool> {
        let (before, after) = (self.source.render(), self.target.render());
        let pixels = before.data().chunks_exact(3).zip(after.data().chunks_exact(3));
        pixels.map(|(a, b)| a != b).collect()
    }
}

fn changed(draws: &mut Draws, source: &Scene, kind: ChangeKind) -> Scene {
    let mut scene = source.clone();
    let chosen = draws.below(scene.objects.len());
    match kind {
        ChangeKind::Recolour => scene.objects[chosen].colour = draws.pick(Colour::ALL),
        ChangeKind::Reshape => scene.objects[chosen].shape = draws.pick(Shape::ALL),
        ChangeKind::Move => {
            let place = free(draws, source);
            let object = &mut scene.objects[chosen];
            let (old, new) = (object.place().middle(), place.middle());
            *object = at(object, (object.x - old.0 + new.0, object.y - old.1 + new.1));
        }
        ChangeKind::Add => {
            let (x, y) = free(draws, source).middle();
            let (x, y) = (x + draws.between(-2.0, 2.0), y + draws.between(-2.0, 2.0));
            let (low, high) = draws.pick(Size::ALL).radii();
            let radius = draws.between(low, high);
            let (shape, colour) = (draws.pick(Shape::ALL), draws.pick(Colour::ALL));
            scene.objects.push(at(&Object { shape, colour, x, y, radius }, (x, y)));
        }
        ChangeKind::Delete => {
            scene.objects.remove(chosen);
        }
        ChangeKind::Background => scene.background = draws.pick(Background::ALL),
    }
    scene
}

/// A cell that no object lies in.
fn free(draws: &mut Draws, scene: &Scene) -> Place {
    let taken = |place: &Place| scene.objects.iter().any(|o| o.place() == *place);
    let free: Vec<Place> = Place::ALL.iter().copied().filter(|p| !taken(p)).collect();
    draws.pick(&free)
}

/// The object there, one clear pixel from the border.
fn at(object: &Object, (x, y): (f64, f64)) -> Object {
    let margin = REACH * object.radius + 1.0;
    let within = |v: f64| v.clamp(margin, SIDE as f64 - margin);
    Object { x: within(x), y: within(y), ..*object }
}

#[cfg(test)]
mod tests {
    use super::super::score;
    use super::*;

    #[test]
    fn changes_are_exact_and_legible() {
        for kind in ChangeKind::ALL {
            for index in 0..40 {
                let change = Change::sample(3, index, kind);
                assert_eq!(change, Change::sample(3, index, kind));
                let (before, after) = (change.source.render(), change.target.render());
                let wanted = Asked::all_of(&change.target);
                assert!(score(&after, &wanted).all_right(), "{change:?}");
                assert!(!score(&before, &wanted).all_named_right(), "{change:?}");
                let (mask, counts) = (change.mask(), [&change.source, &change.target]);
                let [a, b] = counts.map(|scene| scene.objects.len());
                let more = [ChangeKind::Add, ChangeKind::Delete].contains(&kind);
                assert_eq!(a.abs_diff(b), usize::from(more));
                let changed = mask.iter().filter(|m| **m).count();
                let most = if kind == ChangeKind::Background { 4096 } else { 2600 };
                assert!((20..most).contains(&changed), "{kind:?} {changed}");
            }
        }
    }
}
