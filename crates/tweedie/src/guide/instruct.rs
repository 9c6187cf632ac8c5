//! Two guidance weights for a network that edits a picture by an instruction: one for the words, one
//! for the picture.
//!
//! Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing Instructions",
//! 2022, [arXiv:2211.09800](https://arxiv.org/abs/2211.09800), section 3.2.1, equation 3. Their
//! `s_T` is `weight`, their `s_I` is `image`.
//!
//! ```text
//! x0 = x0(none, none) + image (x0(picture, none) - x0(none, none))
//!                     + weight (x0(picture, words) - x0(picture, none))
//! ```
//!
//! The picture is the condition's field `beside`; without it the channels are zero. Without words
//! the negative condition is taken, as in classifier-free guidance. The weights sum to one, so the
//! result is the same in `x0`, `eps` and `v`. With `image = 1` the branch without the picture drops
//! out and this is classifier-free guidance.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass, evaluate_branches};
use crate::error::{Error, Result};
use crate::guide::cfg::Cfg;
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::state::State;

/// The field of a condition that holds the picture.
const PICTURE: &str = "beside";

pub(crate) const CARD: Card = Card {
    id: "instruct",
    seam: Seam::Guide,
    title: "InstructPix2Pix: Learning to Follow Image Editing Instructions",
    source: "2211.09800",
    year: 2022,
    what: "one weight for the words and one for the picture to edit",
    aliases: &["image_guidance_scale", "instruct-pix2pix"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Instruct>()?.checked()?)),
    defaults: defaults_of::<Instruct>,
    known_failures: &[],
};

/// Guidance by words and by a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Instruct {
    /// The words' weight. The default, 7.5, is the paper's.
    pub weight: f64,
    /// The picture's weight. The default, 1.5, is the paper's.
    pub image: f64,
}

impl Default for Instruct {
    fn default() -> Self {
        Self { weight: 7.5, image: 1.5 }
    }
}

impl Instruct {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        weight("instruct", self.weight)?;
        if self.image.is_finite() {
            return Ok(self);
        }
        Err(Error::setting("instruct:image", format!("{}, wanted a finite number", self.image)))
    }
}

impl Guide for Instruct {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let Some(picture) = cond.fields.get(PICTURE).filter(|_| self.image != 1.0) else {
            // One of the three is one of the others.
            return Cfg { weight: self.weight }.x0(model, x, at, cond, pass);
        };
        let mut wordless = cond.unconditional();
        wordless.fields.insert(PICTURE.into(), picture.clone());
        let mut nothing = wordless.clone();
        nothing.fields.insert(PICTURE.into(), picture.zeros_like());
        let branches =
            [(Branch::Cond, cond), (Branch::Part(0), &wordless), (Branch::Uncond, &nothing)];
        let three = evaluate_branches(model, x, at, &branches, pass)?;
        let [both, picture, none] = three.as_slice() else {
            return Err(Error::unsupported("instruct", "an estimate of each branch"));
        };
        let by_picture = (picture.clone() - none.clone()) * self.image;
        let by_words = (both.clone() - picture.clone()) * self.weight;
        Ok(none.clone() + by_picture + by_words)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::level::Level;

    /// Says 1 for a class, and 10 more for a picture that is not zero.
    struct Says;

    impl Denoiser for Says {
        fn x0(&self, x: &State, _at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
            pass.count_forward();
            let words = |row: usize| cond.class.as_ref().map_or(0.0, |c| c[row] as f64);
            let seen = cond.fields.get(PICTURE).map(State::to_rows);
            let row = |row| words(row) + seen.as_ref().map_or(0.0, |s| 10.0 * s[row][0]);
            x.filled_like(&(0..x.batch()).map(row).collect::<Vec<f64>>())
        }
    }

    fn ask(guide: &Instruct, picture: bool) -> (f64, usize) {
        let x = State::from_f64(vec![0.1], &[1, 1], &Device::flex()).unwrap();
        let at = Level::vp(0.5, 0.0);
        let mut pass = Pass::single(1, at);
        let mut cond = Cond::of_class(vec![1]);
        cond.negative = Some(Box::new(Cond::of_class(vec![0])));
        if picture {
            cond.fields.insert(PICTURE.into(), x.filled_like(&[1.0]).unwrap());
        }
        let x0 = guide.clone().x0(&Says, &x, &Levels::One(at), &cond, &mut pass).unwrap();
        (x0.to_rows()[0][0], pass.cost.forward)
    }

    #[test]
    fn each_weight_scales_its_own_difference() {
        // With words and picture 11, with the picture alone 10, with nothing 0.
        assert_eq!(ask(&Instruct { weight: 3.0, image: 1.5 }, true), (15.0 + 3.0, 3));
        assert_eq!(ask(&Instruct { weight: 0.0, image: 2.0 }, true), (20.0, 3));
        assert!(Instruct { weight: 1.0, image: f64::NAN }.checked().is_err());
    }

    #[test]
    fn without_a_picture_or_at_weight_one_it_is_guidance_by_words() {
        assert_eq!(ask(&Instruct { weight: 3.0, image: 1.5 }, false), (3.0, 2));
        assert_eq!(ask(&Instruct { weight: 1.0, image: 1.0 }, true), (11.0, 1));
    }
}
