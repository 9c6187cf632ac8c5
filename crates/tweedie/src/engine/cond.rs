//! From a spec's prompt or classes to a condition.

use burn::tensor::Tensor;

use crate::denoiser::Cond;
use crate::engine::open::{Classes, Model, Text};
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

/// The condition of the images `from..to`, with the negative one beside it.
pub(super) fn condition(
    model: &Model,
    spec: &Spec,
    prompts: &[String],
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
    match &model.text {
        Some(text) => {
            let of = |k: usize| match prompts {
                [] => spec.prompt.as_str(),
                several => several[k % several.len()].as_str(),
            };
            cond.context = Some(embedded(text, &(from..to).map(of).collect::<Vec<_>>())?);
            let negative = vec![spec.negative.as_str(); to - from];
            let context = Some(embedded(text, &negative)?);
            cond.negative = Some(Box::new(Cond { context, ..Cond::default() }));
        }
        None if !spec.negative.is_empty() => {
            let why = format!("{} takes no prompt", model.name);
            return Err(Error::setting("negative", why));
        }
        None if !spec.prompt.is_empty() && model.classes.is_none() => {
            let why = format!("{} takes no prompt", model.name);
            return Err(Error::setting("prompt", why));
        }
        None => {}
    }
    Ok(cond)
}

/// Prompts, one a row, embedded; each different one goes through the encoder once and alone, so that
/// a row does not depend on its batch.
fn embedded(text: &Text, prompts: &[&str]) -> Result<Tensor<3>> {
    let mut known: Vec<(&str, Tensor<3>)> = Vec::new();
    let mut rows = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        if let Some((_, hidden)) = known.iter().find(|(p, _)| p == prompt) {
            rows.push(hidden.clone());
            continue;
        }
        let tokens = text.tokenizer.encode(prompt)?;
        let hidden = text.encoder.encode(&[tokens.ids], 0)?.hidden;
        known.push((prompt, hidden.clone()));
        rows.push(hidden);
    }
    Ok(Tensor::cat(rows, 0))
}
