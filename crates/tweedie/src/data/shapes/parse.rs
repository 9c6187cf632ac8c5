//! From a text back to what it asks for.

use std::collections::BTreeSet;

use super::asked::{Asked, AskedObject};
use super::attribute::{Background, Colour, Place, Relation, Shape, Size};
use crate::error::{Error, Result};

/// Words that carry nothing here and may stand anywhere.
const FILLERS: &[&str] = &[
    "a", "an", "the", "and", "with", "in", "at", "on", "to", "is", "there", "against", "picture",
    "image", "of", "side", "corner",
];

/// A filler that counts in `left of`.
const OF: &str = "of";

/// The word that makes a background's colour one.
const GROUND: &str = "background";

/// What a word or a run of words means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Size(Size),
    Colour(Colour),
    Shape(Shape),
    Place(Place),
    Relation(Relation),
    Background(Background),
    Ground,
}

/// Every word of every caption, in alphabetical order, and the comma: the whole vocabulary.
pub fn vocabulary() -> Vec<&'static str> {
    let phrases = Shape::ALL.iter().flat_map(|v| v.phrases());
    let phrases = phrases.chain(Colour::ALL.iter().flat_map(|v| v.phrases()));
    let phrases = phrases.chain(Size::ALL.iter().flat_map(|v| v.phrases()));
    let phrases = phrases.chain(Place::ALL.iter().flat_map(|v| v.phrases()));
    let phrases = phrases.chain(Relation::ALL.iter().flat_map(|v| v.phrases()));
    let phrases = phrases.chain(Background::ALL.iter().flat_map(|v| v.phrases()));
    let mut words: BTreeSet<&str> = phrases.flat_map(|p| p.split(' ')).collect();
    words.extend(FILLERS);
    words.extend([GROUND, ","]);
    words.into_iter().collect()
}

impl Asked {
    /// Reads what a text asks for.
    ///
    /// It knows the words of [`vocabulary`] in upper or lower case and some freedom in their order:
    /// size and colour stand before the shape, a place after the shape or before the object, a
    /// relation between two objects, the background anywhere. Punctuation is ignored. Fails with the
    /// culprit where a word is unknown, where an object has no shape, where there are no objects or
    /// more than three, and where something is asked twice.
    ///
    /// ```
    /// use tweedie::data::shapes::{Asked, Colour, Place, Shape};
    ///
    /// let asked = Asked::parse("A big red disc in the middle, on a white background.")?;
    /// assert_eq!(asked.objects[0].shape, Shape::Circle);
    /// assert_eq!(asked.objects[0].colour, Some(Colour::Red));
    /// assert_eq!(asked.objects[0].place, Some(Place::Center));
    /// # Ok::<(), tweedie::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let lower = text.to_lowercase();
        let split = lower.split(|c: char| !c.is_alphanumeric() && c != '-');
        let words: Vec<&str> = split.filter(|w| !w.is_empty() && !is_filler(w)).collect();
        let lexicon = lexicon();
        let mut sentence = Sentence::default();
        let mut rest = words.as_slice();
        while let Some((word, tail)) = rest.split_first() {
            let here = lexicon.iter().filter(|(phrase, _)| rest.starts_with(phrase));
            if let Some((phrase, token)) = here.max_by_key(|(phrase, _)| phrase.len()) {
                sentence.take(*token)?;
                rest = &rest[phrase.len()..];
            } else if *word == OF {
                rest = tail;
            } else {
                return Err(Error::unknown("word of the shapes world", word, vocabulary()));
            }
        }
        sentence.finish()
    }
}

fn is_filler(word: &str) -> bool {
    word != OF && FILLERS.contains(&word)
}

/// All phrases with their meaning, each as its words without the fillers.
fn lexicon() -> Vec<(Vec<&'static str>, Token)> {
    let mut lexicon = Vec::new();
    let mut add = |phrases: &[&'static str], token: Token| {
        for phrase in phrases {
            lexicon.push((phrase.split(' ').filter(|w| !is_filler(w)).collect(), token));
        }
    };
    for &v in Shape::ALL {
        add(v.phrases(), Token::Shape(v));
    }
    for &v in Colour::ALL {
        add(v.phrases(), Token::Colour(v));
    }
    for &v in Size::ALL {
        add(v.phrases(), Token::Size(v));
    }
    for &v in Place::ALL {
        add(v.phrases(), Token::Place(v));
    }
    for &v in Relation::ALL {
        add(v.phrases(), Token::Relation(v));
    }
    for &v in Background::ALL {
        add(v.phrases(), Token::Background(v));
    }
    add(&[GROUND], Token::Ground);
    lexicon
}

/// What has been read so far.
#[derive(Default)]
struct Sentence {
    objects: Vec<AskedObject>,
    relation: Option<Relation>,
    background: Option<Background>,
    /// Words that wait for the shape or for `background`.
    size: Option<Size>,
    colour: Option<Colour>,
    place: Option<Place>,
    ground: Option<Background>,
}

impl Sentence {
    fn take(&mut self, token: Token) -> Result<()> {
        match token {
            Token::Size(size) => once(&mut self.size, size, "a size"),
            Token::Colour(colour) => once(&mut self.colour, colour, "a colour"),
            Token::Background(background) => once(&mut self.ground, background, "a background"),
            Token::Place(place) => {
                let free = self.nothing_waits();
                match self.objects.last_mut() {
                    Some(last) if last.place.is_none() && free => last.place = Some(place),
                    _ => once(&mut self.place, place, "a place")?,
                }
                Ok(())
            }
            Token::Relation(relation) => {
                if self.objects.len() != 1 || !self.nothing_waits() {
                    return wrong(format!("`{relation}` must stand between the two objects"));
                }
                once(&mut self.relation, relation, "a relation")
            }
            Token::Ground => {
                if let Some(colour) = self.colour {
                    return Err(unknown_background(colour.name()));
                }
                match self.ground.take() {
                    Some(background) => once(&mut self.background, background, "a background"),
                    None => wrong("the background has no colour".into()),
                }
            }
            Token::Shape(shape) => {
                if let Some(ground) = self.ground {
                    let known = Colour::ALL.iter().map(|c| c.name());
                    return Err(Error::unknown("colour of objects", ground.name(), known));
                }
                if self.objects.len() == 3 {
                    return wrong("a scene holds at most three objects".into());
                }
                let (size, colour, place) =
                    (self.size.take(), self.colour.take(), self.place.take());
                self.objects.push(AskedObject { shape, colour, size, place });
                Ok(())
            }
        }
    }

    fn nothing_waits(&self) -> bool {
        self.size.is_none() && self.colour.is_none() && self.place.is_none()
    }

    fn finish(self) -> Result<Asked> {
        if let Some(ground) = self.ground {
            return wrong(format!("`{ground}` names a background; say `on a {ground} background`"));
        }
        if !self.nothing_waits() {
            return wrong("the last object has no shape".into());
        }
        if self.objects.is_empty() {
            return wrong("no object is named; say `a red circle` or the like".into());
        }
        if self.relation.is_some() && self.objects.len() != 2 {
            return wrong("a relation needs exactly two objects".into());
        }
        let Self { objects, relation, background, .. } = self;
        Ok(Asked { objects, relation, background })
    }
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<()> {
    if slot.is_some() {
        return wrong(format!("{what} is named twice"));
    }
    *slot = Some(value);
    Ok(())
}

fn wrong<T>(why: String) -> Result<T> {
    Err(Error::setting("prompt", why))
}

fn unknown_background(name: &str) -> Error {
    Error::unknown("background", name, Background::ALL.iter().map(|b| b.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shapes::{Caption, Scene, Split};

    /// A caption as words and commas.
    fn words(text: &str) -> Vec<String> {
        text.replace(',', " ,").split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn captions_say_what_they_ask_and_the_scene_shows_it() {
        let mut longest = 0;
        let mut used = BTreeSet::new();
        for index in 0..9000 {
            let split = Split::ALL[index as usize % 3];
            let scene = Scene::sample(21, index, split);
            let caption = Caption::sample(&scene, 22, index);
            let asked = Asked::parse(&caption.text);
            assert_eq!(asked.as_ref().ok(), Some(&caption.asked), "{} {asked:?}", caption.text);
            let plain = Caption::plain(caption.asked.clone());
            assert_eq!(Asked::parse(&plain.text).unwrap(), plain.asked, "{}", plain.text);
            longest = longest.max(words(&caption.text).len());
            used.extend(words(&caption.text));
            assert_eq!(caption.text, caption.text.to_lowercase());
            assert_eq!(caption, Caption::sample(&scene, 22, index));
            let all = Asked::all_of(&scene);
            assert_eq!(caption.asked.objects.len(), all.objects.len());
            assert!(caption.asked.background.is_none_or(|b| b == scene.background));
            for object in &caption.asked.objects {
                let is = |o: &&AskedObject| (o.shape, o.colour) == (object.shape, object.colour);
                let truth = all.objects.iter().find(is).unwrap();
                assert!(object.size.is_none_or(|s| Some(s) == truth.size));
                assert!(object.place.is_none_or(|p| Some(p) == truth.place));
            }
            if let Some(relation) = caption.asked.relation {
                let at = |asked: &AskedObject| {
                    let is = |o: &&crate::data::shapes::Object| {
                        (o.shape, Some(o.colour)) == (asked.shape, asked.colour)
                    };
                    scene.objects.iter().find(is).unwrap()
                };
                let (a, b) = (at(&caption.asked.objects[0]), at(&caption.asked.objects[1]));
                assert!(a.lies(relation, b), "{} {scene:?}", caption.text);
            }
        }
        // What is taught is what is known: no word is missing and none is idle.
        let known: BTreeSet<String> = vocabulary().into_iter().map(str::to_owned).collect();
        assert_eq!(used, known);
        assert!(longest <= Caption::MOST_WORDS && longest + 4 > Caption::MOST_WORDS, "{longest}");
    }

    #[test]
    fn freedom_of_wording() {
        let same = |a: &str, b: &str| {
            assert_eq!(Asked::parse(a).unwrap(), Asked::parse(b).unwrap(), "{a} | {b}");
        };
        same("Red circle, top left.", "a crimson disc in the top left corner");
        same("on a white background, a small star", "a little star on a white background");
        same(
            "on the left a red ring and on the right a blue ring",
            "a red ring on the left and a blue ring on the right",
        );
        same("a heart on the left side of a big box", "a heart left of a large square");
        same("a red circle to the left and a star", "a red circle on the left with a star");
        let asked = Asked::parse("an orange cross under a pink heart").unwrap();
        assert_eq!(asked.relation, Some(Relation::Below));
        assert_eq!(asked.text(), "an orange cross below a pink heart");
    }

    #[test]
    fn errors_name_the_culprit() {
        let error = |text: &str| Asked::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("a red circel"),
            "no word of the shapes world is called `circel`; did you mean one of `circle`, `cream`?"
        );
        assert!(error("").contains("no object is named"));
        assert!(error("a red").contains("no shape"));
        assert!(error("a red blue circle").contains("a colour is named twice"));
        assert!(error("a circle on a red background").contains("no background is called `red`"));
        assert!(error("a white circle").contains("no colour of objects is called `white`"));
        assert!(error("a circle on white").contains("on a white background"));
        assert!(error("a circle on a background").contains("has no colour"));
        assert!(error("left of a circle a star").contains("between"));
        assert!(error("a circle above a star and a ring").contains("exactly two"));
        assert!(error("a star, a star, a star and a star").contains("at most three"));
        assert!(error("a star in the center at the top").contains("no shape"));
    }
}
