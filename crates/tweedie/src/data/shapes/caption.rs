//! Captions: a scene said in natural words.

use serde::{Deserialize, Serialize};

use super::asked::{Asked, AskedObject, phrase};
use super::attribute::{Colour, Place, Relation, Shape, Size};
use super::draws::{Draws, Purpose};
use super::scene::Scene;
use super::split::{HeldOut, held_out};

/// A text and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caption {
    /// The text: lower-case words, single spaces, commas, no full stop.
    pub text: String,
    /// What it asks for; what it does not name is free.
    pub asked: Asked,
}

impl Caption {
    /// The most words and commas that a caption has.
    pub const MOST_WORDS: usize = 37;

    /// A caption of `scene`, number `index` of `seed`: a function of the three alone.
    ///
    /// Shape and colour of every object are always named. Sizes are named with probability 0.5 and
    /// the background with 0.6. Two objects are told by their relation (0.4), by their places (0.3)
    /// or by neither (0.3); one object by its place (0.5) or not, three by their places (0.4) or not.
    /// Objects are mentioned in random order. Where the scene shows a held-out arrangement, the
    /// relation is always named. The usual word is taken with probability 0.6 and otherwise any word,
    /// the usual one included.
    pub fn sample(scene: &Scene, seed: u64, index: u64) -> Self {
        let mut draws = Draws::new(seed, index, Purpose::Caption);
        let asked = ask(&mut draws, scene);
        let text = word(&mut draws, &asked);
        Self { text, asked }
    }

    /// The plain wording of what is asked.
    pub fn plain(asked: Asked) -> Self {
        Self { text: asked.text(), asked }
    }
}

/// Chooses what is asked of a scene.
fn ask(draws: &mut Draws, scene: &Scene) -> Asked {
    let mut order: Vec<usize> = (0..scene.objects.len()).collect();
    draws.shuffle(&mut order);
    let objects: Vec<_> = order.iter().map(|&i| scene.objects[i]).collect();
    let background = draws.chance(0.6).then_some(scene.background);
    let manner = draws.unit();
    let (related, placed) = match objects.len() {
        1 => (false, manner < 0.5),
        2 => (manner < 0.4, manner >= 0.7),
        _ => (false, manner < 0.4),
    };
    let shown = held_out(scene);
    let arrangement = shown.iter().find_map(|h| match h {
        HeldOut::Arrangement(a, relation, b) => Some((*a, *relation, *b)),
        HeldOut::Pair(..) => None,
    });
    let relation = match (objects.as_slice(), arrangement) {
        ([first, second], Some((a, relation, b))) => {
            // Two objects of one shape never are an arrangement, so the shape tells which is which.
            let forward = (a, b) == (first.shape, second.shape);
            Some(if forward { relation } else { relation.reversed() })
        }
        ([first, second], None) if related => {
            let holds = |r: &Relation| first.lies(*r, second);
            let holding: Vec<_> = Relation::ALL.iter().copied().filter(holds).collect();
            (!holding.is_empty()).then(|| draws.pick(&holding))
        }
        _ => None,
    };
    let mut object = |o: &super::scene::Object| AskedObject {
        shape: o.shape,
        colour: Some(o.colour),
        size: draws.chance(0.5).then(|| o.size()),
        place: (placed && relation.is_none()).then(|| o.place()),
    };
    Asked { objects: objects.iter().map(&mut object).collect(), relation, background }
}

/// One of the words of a value: the usual one with probability 0.6, otherwise any.
fn synonym(draws: &mut Draws, phrases: &[&'static str]) -> &'static str {
    if draws.chance(0.6) { phrases[0] } else { draws.pick(phrases) }
}

/// Words what is asked.
fn word(draws: &mut Draws, asked: &Asked) -> String {
    let mut object = |o: &AskedObject| {
        let size = o.size.map(Size::phrases).map(|p| synonym(draws, p));
        let colour = o.colour.map(Colour::phrases).map(|p| synonym(draws, p));
        let shape = synonym(draws, Shape::phrases(o.shape));
        let place = o.place.map(Place::phrases).map(|p| synonym(draws, p));
        phrase(size, colour, shape, place)
    };
    let objects: Vec<String> = asked.objects.iter().map(&mut object).collect();
    let body = match (asked.relation, objects.as_slice()) {
        (Some(relation), [a, b]) => {
            let verb = if draws.chance(0.2) { " is" } else { "" };
            format!("{a}{verb} {} {b}", synonym(draws, relation.phrases()))
        }
        (_, [a, b]) => format!("{a} {} {b}", draws.pick(&["and", "and", "and", "with"])),
        (_, [a, b, c]) => match draws.below(4) {
            0 | 1 => format!("{a}, {b} and {c}"),
            2 => format!("{a}, {b}, and {c}"),
            _ => format!("{a} and {b} and {c}"),
        },
        _ => objects.join(" and "),
    };
    // `there is a circle is above a square` would be no sentence.
    let opening = if body.contains(" is ") { "" } else { opening(draws) };
    let Some(background) = asked.background else {
        return format!("{opening}{body}");
    };
    let colour = synonym(draws, background.phrases());
    match draws.below(8) {
        0..=4 => format!("{opening}{body} on a {colour} background"),
        5 | 6 => format!("{opening}{body} against a {colour} background"),
        _ => format!("on a {colour} background, {body}"),
    }
}

fn opening(draws: &mut Draws) -> &'static str {
    match draws.below(10) {
        0 => "a picture of ",
        1 => "an image of ",
        2 => "there is ",
        _ => "",
    }
}
