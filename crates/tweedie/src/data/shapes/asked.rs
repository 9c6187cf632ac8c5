//! What a caption asks for, and its plain wording.

use serde::{Deserialize, Serialize};

use super::attribute::{Background, Colour, Place, Relation, Shape, Size};
use super::scene::{Object, Scene};

/// What is asked of one object. What is `None` is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedObject {
    /// The shape, always asked.
    pub shape: Shape,
    /// The colour; captions of the world always ask for it, a user's prompt may not.
    pub colour: Option<Colour>,
    /// The size class.
    pub size: Option<Size>,
    /// The cell of the 3x3 grid.
    pub place: Option<Place>,
}

/// What a caption asks for: exactly these objects, in the order of their mention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// One to three objects.
    pub objects: Vec<AskedObject>,
    /// How the first object lies to the second; only where there are two.
    pub relation: Option<Relation>,
    /// The background.
    pub background: Option<Background>,
}

impl AskedObject {
    /// Everything that can be asked of an object.
    pub fn all_of(object: &Object) -> Self {
        Self {
            shape: object.shape,
            colour: Some(object.colour),
            size: Some(object.size()),
            place: Some(object.place()),
        }
    }
}

impl Asked {
    /// Everything that can be asked of a scene but the relation, objects in order of depth.
    pub fn all_of(scene: &Scene) -> Self {
        Self {
            objects: scene.objects.iter().map(AskedObject::all_of).collect(),
            relation: None,
            background: Some(scene.background),
        }
    }

    /// The plain wording: usual words, one template, such as `a small red circle in the center and a
    /// blue star on a white background`.
    pub fn text(&self) -> String {
        let objects: Vec<String> = self.objects.iter().copied().map(plain).collect();
        let mut text = match (self.relation, objects.as_slice()) {
            (Some(relation), [a, b]) => format!("{a} {relation} {b}"),
            (_, []) => String::new(),
            (_, [one]) => one.clone(),
            (_, [first @ .., last]) => format!("{} and {last}", first.join(", ")),
        };
        if let Some(background) = self.background {
            text = format!("{text} on a {background} background");
        }
        text
    }
}

fn plain(object: AskedObject) -> String {
    phrase(
        object.size.map(Size::name),
        object.colour.map(Colour::name),
        object.shape.name(),
        object.place.map(Place::name),
    )
}

/// An object's phrase from its words, with the article that its first word takes.
pub(super) fn phrase(
    size: Option<&str>,
    colour: Option<&str>,
    shape: &str,
    place: Option<&str>,
) -> String {
    let words: Vec<&str> = [size, colour, Some(shape), place].into_iter().flatten().collect();
    let words = words.join(" ");
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {words}")
}
