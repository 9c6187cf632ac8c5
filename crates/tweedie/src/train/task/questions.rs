//! Questions about a scene, and what is true of it.
//!
//! A question names some of an object's attributes and asks for the others; or names a place and
//! asks what is there, if anything; or asks for the number of objects and the background.

use crate::data::shapes::{Background, Colour, Object, Place, Scene, Shape, Size};
use crate::random::Generator;

/// A question or an answer: for each group of values at most one.
type Choice = [Option<usize>; 6];

/// How many values each group has: shape, colour, size and place of an object, where `none` is one
/// more value of the first three; count of objects, background.
const VALUES: [usize; 6] = [
    Shape::ALL.len() + 1,
    Colour::ALL.len() + 1,
    Size::ALL.len() + 1,
    Place::ALL.len(),
    3,
    Background::ALL.len(),
];

/// Numbers of a question: one a value, and one that says that the scene is meant.
pub(crate) const ASKED: usize = ANSWERS + 1;

/// Numbers of an answer: one a value.
pub(crate) const ANSWERS: usize =
    VALUES[0] + VALUES[1] + VALUES[2] + VALUES[3] + VALUES[4] + VALUES[5];

/// Questions about one scene.
pub(crate) const QUESTIONS: usize = 4;

/// Where the values of each group lie in an answer.
pub(crate) fn groups() -> impl Iterator<Item = std::ops::Range<usize>> {
    VALUES.iter().scan(0, |from, n| {
        let range = *from..*from + n;
        *from = range.end;
        Some(range)
    })
}

/// One question with its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Question {
    /// What is named; nothing at all asks for the scene.
    named: Choice,
    /// What is asked for, as it is.
    answer: Choice,
}

/// An object's shape, colour, size and place.
fn of_object(object: &Object) -> Choice {
    let place = object.place().index();
    let [shape, colour] = [object.shape.index(), object.colour.index()];
    [Some(shape), Some(colour), Some(object.size().index()), Some(place), None, None]
}

impl Question {
    /// Two about objects, one about a place, one about the scene.
    pub(crate) fn draw(scene: &Scene, draws: &mut Generator) -> [Self; QUESTIONS] {
        [
            Self::about_an_object(scene, draws),
            Self::about_an_object(scene, draws),
            Self::about_a_place(scene, draws),
            Self::about_all(scene),
        ]
    }

    fn about_an_object(scene: &Scene, draws: &mut Generator) -> Self {
        let object = &scene.objects[draws.below(scene.objects.len() as u64) as usize];
        // Some attribute is named, and some is asked for: 1 to 14 of the four bits.
        let named = 1 + draws.below(14);
        Self::of(object, |group| named >> group & 1 == 1)
    }

    /// What `named` says of an object's groups, and the rest as the answer.
    fn of(object: &Object, named: impl Fn(usize) -> bool) -> Self {
        let all = of_object(object);
        let part = |wanted: bool| std::array::from_fn(|g| all[g].filter(|_| named(g) == wanted));
        Self { named: part(true), answer: part(false) }
    }

    fn about_a_place(scene: &Scene, draws: &mut Generator) -> Self {
        let place = draws.below(Place::ALL.len() as u64) as usize;
        if let Some(object) = scene.objects.iter().find(|o| o.place().index() == place) {
            return Self::of(object, |group| group == 3);
        }
        let none = |group: usize| Some(VALUES[group] - 1);
        Self {
            named: [None, None, None, Some(place), None, None],
            answer: [none(0), none(1), none(2), None, None, None],
        }
    }

    fn about_all(scene: &Scene) -> Self {
        let count = scene.objects.len().clamp(1, VALUES[4]) - 1;
        Self {
            named: [None; 6],
            answer: [None, None, None, None, Some(count), Some(scene.background.index())],
        }
    }

    /// The shape of the object of this colour, or the other way round, where only one is.
    pub(crate) fn bound(scene: &Scene, by_colour: bool) -> Vec<Self> {
        let key = |o: &Object| if by_colour { o.colour.index() } else { o.shape.index() };
        let alone = |o: &&Object| scene.objects.iter().filter(|p| key(p) == key(o)).count() == 1;
        let (named, asked) = if by_colour { (1, 0) } else { (0, 1) };
        let question = |object: &Object| {
            let mut question = Self::of(object, |group| group == named);
            for group in (0..6).filter(|g| *g != asked) {
                question.answer[group] = None;
            }
            question
        };
        scene.objects.iter().filter(alone).map(question).collect()
    }

    /// The question as numbers, [`ASKED`] of them.
    pub(crate) fn numbers(&self) -> Vec<f32> {
        let mut numbers = hot(&self.named);
        let scene = self.named.iter().all(Option::is_none);
        numbers.push(f32::from(u8::from(scene)));
        numbers
    }

    /// What is true, as numbers, [`ANSWERS`] of them: one at each asked group's value.
    pub(crate) fn truth(&self) -> Vec<f32> {
        hot(&self.answer)
    }

    /// Whether the largest logit of each asked group is that of the truth.
    pub(crate) fn is_right(&self, logits: &[f32]) -> bool {
        let mut pairs = groups().zip(self.answer);
        pairs.all(|(range, wanted)| {
            let values = &logits[range];
            let best = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]));
            wanted.is_none() || wanted == best
        })
    }
}

fn hot(choice: &Choice) -> Vec<f32> {
    let mut numbers = vec![0.0; ANSWERS];
    for (range, value) in groups().zip(choice) {
        if let Some(value) = value {
            numbers[range.start + value] = 1.0;
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shapes::Split;
    use crate::random::Key;

    #[test]
    fn questions_name_and_ask_apart_and_answers_are_true() {
        let mut draws = Key::new(1, 2, 3).generator();
        let mut nothing_there = 0;
        for index in 0..200 {
            let scene = Scene::sample(4, index, Split::Train);
            for question in Question::draw(&scene, &mut draws) {
                let both = |g: usize| question.named[g].is_some() && question.answer[g].is_some();
                assert!((0..6).all(|g| !both(g)));
                assert_eq!((question.numbers().len(), question.truth().len()), (ASKED, ANSWERS));
                assert!(question.is_right(&question.truth()));
                let mut wrong = question.truth();
                let group = question.answer.iter().position(Option::is_some).unwrap();
                let range = groups().nth(group).unwrap();
                let value = question.answer[group].unwrap();
                wrong[range.start + (value + 1) % range.len()] = 2.0;
                assert!(!question.is_right(&wrong));
                nothing_there += usize::from(question.answer[0] == Some(Shape::ALL.len()));
            }
            let bound = Question::bound(&scene, true);
            assert!(bound.iter().all(|q| q.truth().iter().sum::<f32>() == 1.0));
        }
        assert!((100..190).contains(&nothing_there), "{nothing_there}");
    }
}
