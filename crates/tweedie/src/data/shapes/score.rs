//! How much of what was asked a picture shows.

use serde::Serialize;

use super::asked::{Asked, AskedObject};
use super::picture::Picture;
use super::reader::{LEAST_SIMILARITY, Reading, Why, read};
use super::scene::{Object, Scene};

/// What became of one asked object. Attributes that were not asked are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ObjectScore {
    /// Whether an object stands for it in the picture.
    pub found: bool,
    /// Whether its shape is right.
    pub shape: bool,
    /// Whether its colour is right.
    pub colour: Option<bool>,
    /// Whether its size class is right.
    pub size: Option<bool>,
    /// Whether its place is right.
    pub place: Option<bool>,
    /// The structural similarity of picture and drawing in its box; 0 where nothing was found.
    pub similarity: f64,
}

/// What became of everything that was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Why the picture could not be read, if so. Then nothing is right.
    pub unreadable: Option<Why>,
    /// Whether it shows as many objects as were asked.
    pub count: bool,
    /// The asked objects in order.
    pub objects: Vec<ObjectScore>,
    /// Whether the relation holds, where one was asked.
    pub relation: Option<bool>,
    /// Whether the background is right, where one was asked.
    pub background: Option<bool>,
}

impl ObjectScore {
    /// Whether it is there, everything asked of it is right, and its drawing matches the picture
    /// (structural similarity of at least [`LEAST_SIMILARITY`]).
    pub fn right(&self) -> bool {
        self.named_right() && self.similarity >= LEAST_SIMILARITY
    }

    /// Whether it is there and everything asked of it is right, however well its drawing matches.
    pub fn named_right(&self) -> bool {
        let asked = [self.colour, self.size, self.place];
        self.found && self.shape && asked.iter().all(|a| *a != Some(false))
    }

    fn of(asked: AskedObject, seen: &Object, similarity: f64) -> Self {
        Self {
            found: true,
            shape: seen.shape == asked.shape,
            colour: asked.colour.map(|c| c == seen.colour),
            size: asked.size.map(|s| s == seen.size()),
            place: asked.place.map(|p| p == seen.place()),
            similarity,
        }
    }

    fn missing(asked: AskedObject) -> Self {
        Self {
            colour: asked.colour.map(|_| false),
            size: asked.size.map(|_| false),
            place: asked.place.map(|_| false),
            ..Self::default()
        }
    }

    /// How many things are right, the whole object counting most.
    fn points(&self) -> usize {
        let asked = [self.colour, self.size, self.place];
        let right = asked.iter().filter(|a| **a == Some(true)).count();
        right + 2 * usize::from(self.shape) + 8 * usize::from(self.right())
    }
}

impl Score {
    /// Whether everything that was asked is right, every drawing matches, and nothing more is in the
    /// picture.
    pub fn all_right(&self) -> bool {
        self.all_named_right() && self.objects.iter().all(ObjectScore::right)
    }

    /// Whether everything that was asked is right and nothing more is in the picture, however well
    /// the drawings match.
    pub fn all_named_right(&self) -> bool {
        self.unreadable.is_none()
            && self.count
            && self.objects.iter().all(ObjectScore::named_right)
            && self.relation != Some(false)
            && self.background != Some(false)
    }
}

/// Reads a picture and compares it with what was asked.
///
/// The objects in the picture are matched with the asked ones so that most is right.
pub fn score(picture: &Picture, asked: &Asked) -> Score {
    score_reading(&read(picture), asked)
}

/// Like [`score`], for a picture that was read already.
pub fn score_reading(reading: &Reading, asked: &Asked) -> Score {
    match reading {
        Reading::Scene { scene, matches, .. } => compare(scene, matches, asked),
        Reading::Unreadable { why } => Score {
            unreadable: Some(*why),
            count: false,
            objects: asked.objects.iter().copied().map(ObjectScore::missing).collect(),
            relation: asked.relation.map(|_| false),
            background: asked.background.map(|_| false),
        },
    }
}

fn compare(scene: &Scene, matches: &[f64], asked: &Asked) -> Score {
    let with = |chosen: &[Option<usize>]| -> Score {
        let object = |(asked, seen): (AskedObject, &Option<usize>)| {
            seen.map_or_else(
                || ObjectScore::missing(asked),
                |i| {
                    ObjectScore::of(
                        asked,
                        &scene.objects[i],
                        matches.get(i).copied().unwrap_or(0.0),
                    )
                },
            )
        };
        let relation = asked.relation.map(|relation| match chosen {
            [Some(a), Some(b), ..] => scene.objects[*a].lies(relation, &scene.objects[*b]),
            _ => false,
        });
        Score {
            unreadable: None,
            count: scene.objects.len() == asked.objects.len(),
            objects: asked.objects.iter().copied().zip(chosen).map(object).collect(),
            relation,
            background: asked.background.map(|b| b == scene.background),
        }
    };
    let points = |score: &Score| {
        score.objects.iter().map(ObjectScore::points).sum::<usize>()
            + usize::from(score.relation == Some(true))
    };
    let mut best: Option<Score> = None;
    for chosen in choices(asked.objects.len(), scene.objects.len()) {
        let score = with(&chosen);
        if best.as_ref().is_none_or(|b| points(&score) > points(b)) {
            best = Some(score);
        }
    }
    best.unwrap_or_else(|| with(&vec![None; asked.objects.len()]))
}

/// Every way to give each of `asked` objects one of `seen` or none, no two the same; as many as
/// possible are given one.
fn choices(asked: usize, seen: usize) -> Vec<Vec<Option<usize>>> {
    let mut all: Vec<Vec<Option<usize>>> = vec![Vec::new()];
    for _ in 0..asked {
        let longer = |chosen: Vec<Option<usize>>| {
            let free: Vec<usize> = (0..seen).filter(|i| !chosen.contains(&Some(*i))).collect();
            let next = free.into_iter().map(Some).chain([None]);
            next.map(|n| [chosen.as_slice(), &[n]].concat()).collect::<Vec<_>>()
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    let most = asked.min(seen);
    all.retain(|chosen| chosen.iter().flatten().count() == most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shapes::{Background, Caption, Colour, Relation, Shape, Split};

    #[test]
    fn every_caption_is_right_of_its_own_picture() {
        for index in 0..300 {
            let scene = Scene::sample(31, index, Split::ALL[index as usize % 3]);
            let caption = Caption::sample(&scene, 31, index);
            let score = score(&scene.render(), &caption.asked);
            assert!(score.all_right(), "{} {score:?}", caption.text);
        }
    }

    #[test]
    fn each_wrong_attribute_is_found() {
        let text = "a small red circle in the top left corner and a large blue star in the center \
                    on a white background";
        let asked = Asked::parse(text).unwrap();
        let circle =
            Object { shape: Shape::Circle, colour: Colour::Red, x: 14.0, y: 14.0, radius: 7.5 };
        let star =
            Object { shape: Shape::Star, colour: Colour::Blue, x: 32.0, y: 33.0, radius: 11.0 };
        let of = |objects: Vec<Object>, background| {
            score(&Scene { background, objects }.render(), &asked)
        };
        assert!(of(vec![star, circle], Background::White).all_right());
        let other = of(vec![star, circle], Background::Beige);
        assert!(other.background == Some(false) && !other.all_right());
        let fails = |circle: Object| {
            let score = of(vec![star, circle], Background::White);
            assert!(!score.all_right() && score.count && score.objects[1].right(), "{score:?}");
            score.objects[0]
        };
        assert!(!fails(Object { shape: Shape::Heart, ..circle }).shape);
        assert_eq!(fails(Object { colour: Colour::Green, ..circle }).colour, Some(false));
        assert_eq!(fails(Object { radius: 10.9, ..circle }).size, Some(false));
        assert_eq!(fails(Object { y: 50.0, ..circle }).place, Some(false));
        let alone = of(vec![star], Background::White);
        assert!(!alone.count && !alone.objects[0].found && alone.objects[1].right());
        let more = of(vec![star, circle, Object { y: 50.0, ..circle }], Background::White);
        assert!(!more.count && more.objects.iter().all(ObjectScore::right) && !more.all_right());
        let nothing = of(vec![], Background::White);
        assert!(nothing.unreadable == Some(Why::NoObject) && !nothing.all_right());
    }

    #[test]
    fn relations_are_judged_between_the_matched_objects() {
        let object = |x, colour| Object { shape: Shape::Square, colour, x, y: 32.0, radius: 8.0 };
        let objects = vec![object(14.0, Colour::Pink), object(50.0, Colour::Green)];
        let picture = Scene { background: Background::Black, objects }.render();
        let right = |text: &str| score(&picture, &Asked::parse(text).unwrap());
        assert!(right("a pink square left of a green square").all_right());
        assert!(right("a green square to the right of a pink square").all_right());
        assert!(right("a square left of a square").all_right());
        let wrong = right("a green square left of a pink square");
        assert!(wrong.relation == Some(false) && wrong.objects.iter().all(ObjectScore::right));
        assert_eq!(right("a pink square above a green square").relation, Some(false));
        assert_eq!(Relation::ALL.len(), 4);
    }

    #[test]
    fn an_object_that_does_not_match_its_drawing_does_not_count() {
        let scene = Scene::sample_with(2, 0, Split::Test, 1);
        let asked = Asked::all_of(&scene);
        let score = score(&scene.render().noisy(25.0, 1, 1), &asked);
        let object = score.objects[0];
        assert!(
            object.shape && object.colour == Some(true) && object.similarity < LEAST_SIMILARITY
        );
        assert!(!object.right() && !score.all_right());
    }
}
