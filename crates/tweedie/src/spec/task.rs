//! What a run starts from besides noise, and what else it looks at.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::{Limits, PartSpec, SourceFile};

/// The task: text to image where everything is empty.
///
/// Pictures stand here by name and hash; they themselves go beside the spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Task {
    /// The picture to start from: image to image, and with a mask, repainting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<SourceFile>,
    /// What of it to repaint: white is repainted, black stays, from the middle of the grey scale on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<SourceFile>,
    /// Whether what the mask keeps is put back into the result pixel by pixel, and softly where the mask
    /// is grey: an autoencoder changes every pixel a little. The default is no, as in diffusers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// The picture inverted, and walked again as the prompt has it; the strength is the method's own
    /// where nothing is said. A mask then says where the edit may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
    /// Pixels to paint beyond its borders: left, top, right, bottom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend: Option<[usize; 4]>,
    /// How far back towards noise the picture is brought: 0 is not at all, 1 all the way. Of the
    /// steps that share is walked. By default 0.75, as in A1111 and sd.cpp, and 1 with a mask, as in
    /// diffusers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// How closely a network that edits by instruction keeps to the picture; 1.5 where it is one and
    /// nothing was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_guidance: Option<f64>,
    /// A second pass over the result at a larger size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upscale: Option<Upscale>,
    /// The picture that the reward `measurement` measures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<SourceFile>,
    /// Control networks, each with its picture.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Control>,
}

/// An edit by inversion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The method ([`crate::edit`]), with its settings.
    pub method: PartSpec,
    /// What the picture shows: its caption, or the name of its class.
    pub source: String,
    /// The guidance weight of the source's side; the method's own where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_guidance: Option<f64>,
    /// Whether it is walked as the source's caption has it, so that the picture comes back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reconstruct: bool,
}

/// A second pass: the result is enlarged, brought back towards noise and walked again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upscale {
    /// How many times wider and higher.
    pub factor: f64,
    /// As [`Task::strength`], for the second pass.
    pub strength: f64,
}

/// A control network and what it looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The picture.
    pub picture: SourceFile,
    /// The network: its name without folders, and the hash of its weights.
    pub model: SourceFile,
    /// What its output is multiplied by; 1 is as it was trained.
    pub strength: f64,
}

impl Task {
    /// Whether it is text to image.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something of the picture is kept.
    pub fn repaints(&self) -> bool {
        self.mask.is_some() || self.extend.is_some()
    }

    /// The strength that the run has.
    pub fn effective_strength(&self) -> f64 {
        self.strength.unwrap_or(if self.repaints() { 1.0 } else { 0.75 })
    }

    /// Every file, with its key.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &SourceFile)> {
        let controls = self.controls.iter();
        let init = self.init.iter().map(|f| ("init", f));
        let mask = self.mask.iter().map(|f| ("mask", f));
        let measured = self.measured.iter().map(|f| ("measured", f));
        init.chain(mask)
            .chain(measured)
            .chain(controls.flat_map(|c| [("control", &c.picture), ("controlnet", &c.model)]))
    }

    /// Checks every number.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with the key.
    pub fn validate(&self, limits: &Limits) -> Result<()> {
        if self.init.is_none() {
            for (key, there) in [
                ("mask", self.mask.is_some()),
                ("extend", self.extend.is_some()),
                ("strength", self.strength.is_some()),
                ("edit", self.edit.is_some()),
                ("image_guidance", self.image_guidance.is_some()),
            ] {
                if there {
                    return Err(Error::setting(key, "it needs a picture to start from, `init`"));
                }
            }
        }
        if let Some(edit) = &self.edit {
            self.validate_edit(edit, limits)?;
        }
        if self.keep && (!self.repaints() || self.upscale.is_some()) {
            let why = "it puts back what a mask or an extension keeps, at the picture's own size";
            return Err(Error::setting("keep", why));
        }
        let share = |key: &str, value: f64| match value {
            v if (0.0..=1.0).contains(&v) => Ok(()),
            other => Err(Error::setting(key, format!("{other}, wanted 0 to 1"))),
        };
        share("strength", self.effective_strength())?;
        if let Some(sides) = self.extend {
            if sides.iter().all(|s| *s == 0) {
                return Err(Error::setting("extend", "nothing on any side"));
            }
            if let Some(side) = sides.iter().find(|s| **s > limits.side) {
                return Err(Error::setting("extend", format!("{side}, at most {}", limits.side)));
            }
        }
        if let Some(weight) = self.image_guidance
            && (!weight.is_finite() || weight.abs() > limits.guidance)
        {
            let why = format!("{weight} is not a finite number of at most {}", limits.guidance);
            return Err(Error::setting("image_guidance", why));
        }
        if let Some(Upscale { factor, strength }) = self.upscale {
            share("upscale strength", strength)?;
            if !(1.0..=8.0).contains(&factor) {
                return Err(Error::setting("upscale", format!("{factor}, wanted 1 to 8")));
            }
        }
        if self.controls.len() > limits.parts {
            let why = format!("{}, at most {}", self.controls.len(), limits.parts);
            return Err(Error::setting("controls", why));
        }
        for control in &self.controls {
            let strength = control.strength;
            if !(0.0..=10.0).contains(&strength) {
                return Err(Error::setting(
                    "control strength",
                    format!("{strength}, wanted 0 to 10"),
                ));
            }
        }
        Ok(())
    }

    /// What an edit cannot go with, and its numbers.
    fn validate_edit(&self, edit: &Edit, limits: &Limits) -> Result<()> {
        for (key, there) in [
            ("extend", self.extend.is_some()),
            ("image_guidance", self.image_guidance.is_some()),
            ("upscale", self.upscale.is_some()),
            ("controls", !self.controls.is_empty()),
        ] {
            if there {
                let why = "it does not go with an edit, which inverts the picture as it is";
                return Err(Error::setting(key, why));
            }
        }
        if edit.source.len() > limits.prompt {
            let why = format!("{} characters, at most {}", edit.source.len(), limits.prompt);
            return Err(Error::setting("source", why));
        }
        match edit.source_guidance {
            Some(weight) if !weight.is_finite() || weight.abs() > limits.guidance => {
                let why = format!("{weight} is not a finite number of at most {}", limits.guidance);
                Err(Error::setting("source_guidance", why))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    fn file(name: &str) -> SourceFile {
        SourceFile { name: name.into(), hash: "0f".repeat(32) }
    }

    fn check(task: Task) -> String {
        let spec = Spec { task, ..Spec::default() };
        match spec.validate(&Limits::default()) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_task_survives_json_and_plain_ones_leave_no_trace() {
        let task = Task {
            init: Some(file("a.png")),
            mask: Some(file("m.png")),
            extend: Some([8, 0, 0, 8]),
            strength: Some(0.4),
            upscale: Some(Upscale { factor: 1.5, strength: 0.3 }),
            controls: vec![Control { picture: file("e.png"), model: file("c"), strength: 0.9 }],
            ..Task::default()
        };
        let spec = Spec { task: task.clone(), ..Spec::default() };
        let text = spec.to_json().unwrap();
        assert_eq!(Spec::from_json(&text, &Limits::default()).unwrap().task, task);
        assert!(!Spec::default().to_json().unwrap().contains("task"));
        assert_eq!(task.files().count(), 4);
        let typo = text.replace("\"strength\":0.4", "\"strenght\":0.4");
        assert!(Spec::from_json(&typo, &Limits::default()).is_err());
    }

    #[test]
    fn every_wrong_number_names_its_key() {
        let with = |change: fn(&mut Task)| {
            let mut task = Task { init: Some(file("a.png")), ..Task::default() };
            change(&mut task);
            check(task)
        };
        assert_eq!(with(|_| {}), "");
        for (wanted, change) in [
            ("`strength`: 1.5", (|t| t.strength = Some(1.5)) as fn(&mut Task)),
            ("`strength`: NaN", |t| t.strength = Some(f64::NAN)),
            ("`extend`: nothing", |t| t.extend = Some([0; 4])),
            ("`extend`: 99999", |t| t.extend = Some([99_999, 0, 0, 0])),
            ("`image_guidance`: inf", |t| t.image_guidance = Some(f64::INFINITY)),
            ("`upscale`: 0.5", |t| t.upscale = Some(Upscale { factor: 0.5, strength: 0.5 })),
            ("`upscale strength`", |t| t.upscale = Some(Upscale { factor: 2.0, strength: 3.0 })),
            ("`mask`: `../m` is a path", |t| t.mask = Some(file("../m"))),
            ("`init`", |t| t.init.as_mut().unwrap().hash = "x".into()),
            ("`keep`: it puts back", |t| t.keep = true),
            ("`upscale`: it does not go with", |t| {
                t.edit = Some(Edit::default());
                t.upscale = Some(Upscale { factor: 2.0, strength: 0.5 });
            }),
            ("`source_guidance`: NaN", |t| {
                t.edit = Some(Edit { source_guidance: Some(f64::NAN), ..Edit::default() });
            }),
            ("`edit`: it needs", |t| (t.init, t.edit) = (None, Some(Edit::default()))),
            ("`keep`: it puts back", |t| {
                (t.mask, t.keep) = (Some(file("m.png")), true);
                t.upscale = Some(Upscale { factor: 2.0, strength: 0.5 });
            }),
            ("`mask`: it needs", |t| (t.init, t.mask) = (None, Some(file("m.png")))),
        ] {
            let found = with(change);
            assert!(found.contains(wanted), "wanted {wanted}, found {found}");
        }
    }

    #[test]
    fn a_mask_alone_repaints_all_the_way() {
        let mut task = Task { init: Some(file("a.png")), ..Task::default() };
        assert_eq!(task.effective_strength(), 0.75);
        task.mask = Some(file("m.png"));
        assert_eq!(task.effective_strength(), 1.0);
    }
}
