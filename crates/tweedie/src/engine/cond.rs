//! From a spec's prompt or classes to a condition.

use burn::tensor::Tensor;

use crate::denoiser::Cond;
use crate::engine::open::{Classes, Model};
use crate::engine::text::{EncodedPrompt, Reading};
use crate::error::{Error, Result};
use crate::spec::Spec;

/// The classes of all images of a spec; drawn in turn where none is asked for.
pub(super) fn classes_of(model: &Model, spec: &Spec) -> Result<Option<Vec<i64>>> {
    let Some(classes) = &model.classes else {
        if !spec.classes.is_empty() {
            let why = format!("{} takes no class", model.name);
            return Err(Error::setting("classes", why));
        }
        return Ok(None);
    };
    let count = classes.names.len() as i64;
    if let Some(bad) =
        spec.classes.iter().find(|&&c| c < 0 || c >= count + i64::from(classes.none.is_some()))
    {
        let why = format!("{bad} is no class of {}; it has 0 to {}", model.name, count - 1);
        return Err(Error::setting("classes", why));
    }
    let asked = if !spec.classes.is_empty() {
        spec.classes.clone()
    } else if spec.prompt.is_empty() {
        (0..count).collect()
    } else {
        vec![class_named(classes, &spec.prompt)?]
    };
    Ok(Some((0..spec.count).map(|k| asked[k % asked.len()]).collect()))
}

/// The class of that name or number; letter case, and all but letters and digits aside.
fn class_named(classes: &Classes, name: &str) -> Result<i64> {
    let plain = |s: &str| {
        s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>()
    };
    let wanted = plain(name);
    let is = |label: &str| {
        plain(label) == wanted || label.split(['/', ',']).any(|part| plain(part) == wanted)
    };
    let by_name = classes.names.iter().position(|label| is(label));
    let by_number = || name.trim().parse::<usize>().ok().filter(|&i| i < classes.names.len());
    match by_name.or_else(by_number) {
        Some(class) => Ok(class as i64),
        None => Err(Error::unknown("class", name, classes.names.iter().map(String::as_str))),
    }
}

/// The encoded prompts of a run: what the pictures should be of, in turn, and what not.
#[derive(Clone, Debug)]
pub struct Texts {
    positive: Vec<EncodedPrompt>,
    negative: EncodedPrompt,
    /// What the picture shows that is edited.
    source: Option<Source>,
}

/// The caption of a picture that is edited.
#[derive(Clone, Debug)]
struct Source {
    prompt: EncodedPrompt,
    /// For each token of the prompt, the one of the caption that it stands for.
    words: Vec<Option<usize>>,
}

impl Texts {
    /// Encodes the prompts of a run; `None` for models without a text encoder. Picture `k` is of
    /// `prompts[k % prompts.len()]`, or of the spec's prompt where there are none.
    ///
    /// All prompts of the run, the negative one too, have as many windows as the longest of them:
    /// a picture depends on the run's prompts, never on its batch.
    pub(super) fn encode(model: &Model, spec: &Spec, prompts: &[String]) -> Result<Option<Self>> {
        let own = [spec.prompt.as_str()];
        let mut all: Vec<&str> = prompts.iter().map(String::as_str).collect();
        if all.is_empty() {
            all.extend(own);
        }
        all.push(&spec.negative);
        all.extend(spec.task.edit.iter().map(|edit| edit.source.as_str()));
        model.check_adapters(spec, &all)?;
        let Some(text) = &model.text else {
            if !spec.negative.is_empty() {
                let why = format!("{} takes no prompt", model.name);
                return Err(Error::setting("negative", why));
            }
            let source = spec.task.edit.as_ref().is_some_and(|edit| !edit.source.is_empty());
            if (source || !spec.prompt.is_empty()) && model.classes.is_none() {
                let why = format!("{} takes no prompt", model.name);
                return Err(Error::setting("prompt", why));
            }
            return Ok(None);
        };
        let reading = Reading::of(spec);
        let mut positive = text.encode(&all, reading)?;
        let source = match &spec.task.edit {
            None => None,
            Some(edit) => {
                let words = text.words(&edit.source, &spec.prompt, &all, reading)?;
                positive.pop().map(|prompt| Source { prompt, words })
            }
        };
        let Some(mut negative) = positive.pop() else {
            return Err(Error::unsupported("a prompt", "a text encoder"));
        };
        if text.zeros_for_empty && spec.negative.is_empty() {
            negative = negative.zeros_like();
        }
        Ok(Some(Self { positive, negative, source }))
    }

    /// The caption of the picture that is edited, in place of the prompts.
    pub(super) fn of_source(&self) -> Option<Self> {
        let source = self.source.as_ref()?;
        Some(Self { positive: vec![source.prompt.clone()], ..self.clone() })
    }

    /// For each token of the prompt, the token of the source's caption that it stands for.
    pub(super) fn words(&self) -> Option<Vec<Option<usize>>> {
        self.source.as_ref().map(|source| source.words.clone())
    }

    fn of(&self, k: usize) -> &EncodedPrompt {
        &self.positive[k % self.positive.len()]
    }
}

fn rows_of<const D: usize>(
    rows: &[&EncodedPrompt],
    of: impl Fn(&EncodedPrompt) -> Tensor<D>,
) -> Tensor<D> {
    Tensor::cat(rows.iter().map(|e| of(e)).collect(), 0)
}

/// The condition of the images `from..to`, with the negative one beside it.
pub(super) fn condition(
    model: &Model,
    texts: Option<&Texts>,
    classes: Option<&[i64]>,
    from: usize,
    to: usize,
) -> Result<Cond> {
    let mut cond = Cond::default();
    if let (Some(classes), Some(known)) = (classes, &model.classes) {
        cond.class = Some(classes[from..to].into());
        if let Some(none) = known.none {
            cond.negative = Some(Box::new(Cond::of_class(vec![none; to - from])));
        }
    }
    if let Some(texts) = texts {
        let rows: Vec<&EncodedPrompt> = (from..to).map(|k| texts.of(k)).collect();
        cond.context = Some(rows_of(&rows, |e| e.context.clone()));
        let negative = vec![&texts.negative; to - from];
        let context = Some(rows_of(&negative, |e| e.context.clone()));
        let mut other = Cond { context, ..Cond::default() };
        if model.denoiser.network.asks().sizes.is_some() {
            cond.vector = Some(rows_of(&rows, |e| e.pooled.clone()));
            other.vector = Some(rows_of(&negative, |e| e.pooled.clone()));
        }
        cond.negative = Some(Box::new(other));
    }
    Ok(cond)
}
