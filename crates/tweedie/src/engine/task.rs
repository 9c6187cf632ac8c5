//! Image to image, repainting and editing: where a run starts, and what of the picture it keeps.
//!
//! Draws come in the order of diffusers' pipelines, so that a seed means the same picture: the
//! picture's latents, the initial noise, the masked picture's latents.

use burn::tensor::Tensor;

use crate::data::Images;
use crate::denoiser::{Cond, field};
use crate::engine::autoencode::{self, Encoded};
use crate::engine::inputs::Inputs;
use crate::engine::open::Model;
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::media;
use crate::noise::Recorded;
use crate::run::{Parts, first_step};
use crate::sampler::Blend;
use crate::spec::{MemoryMode, Spec};
use crate::state::State;

/// What the network does with a picture; its own channels decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Starts from it, brought back towards noise.
    Start,
    /// Starts from it, and keeps at every step what the mask keeps.
    Blend,
    /// Sees the mask and the masked picture beside the state: nine channels.
    Repaint,
    /// Sees the picture beside the state: eight channels.
    Edit,
}

/// What the pictures of a spec are to a model, at the size of the run.
pub(super) struct Plan {
    /// Channels, height and width of the state.
    pub(super) shape: [usize; 3],
    picture: Option<Picture>,
    /// What each control network looks at, `[1, 3, height, width]` in pixels.
    hints: Vec<Tensor<4>>,
    strength: f64,
    /// Whether guidance's branches are asked one after the other.
    pub(super) sequential: bool,
}

fn sequential(spec: &Spec) -> bool {
    spec.memory == MemoryMode::Small
}

struct Picture {
    way: Way,
    encoded: Encoded,
    /// 1 where it is repainted, at the state's size, `[1, 1, height, width]`.
    mask: Option<Tensor<4>>,
    /// The picture with grey where it is repainted.
    masked: Option<Encoded>,
}

impl Plan {
    /// Reads sizes off spec, pictures and model, and encodes the pictures.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for sizes that the model cannot have, with the nearest that it can;
    /// [`Error::Unsupported`] for a task that it was not made for.
    pub(super) fn new(model: &Model, spec: &Spec, inputs: &Inputs) -> Result<Self> {
        inputs.check(spec)?;
        if spec.task.edit.is_some() && model.beside() > 0 {
            let needs = "a network that sees the state alone, to invert a picture";
            return Err(Error::unsupported(&model.name, needs));
        }
        let size = size(model, spec, inputs.init.as_ref())?;
        let scale = model.scale();
        let shape = [model.shape[0], size[0] / scale, size[1] / scale];
        let beside = model.beside();
        let picture = match &inputs.init {
            Some(init) => Some(Picture::new(model, spec, init, inputs.mask.as_ref(), size)?),
            None if beside > 0 => {
                let needs = format!(
                    "a picture: its network sees {beside} channels of one beside the {} of the state",
                    model.shape[0]
                );
                return Err(Error::unsupported(&model.name, needs));
            }
            None => None,
        };
        let hints = hints(model, inputs, size)?;
        let strength = spec.task.effective_strength();
        Ok(Self { shape, picture, hints, strength, sequential: sequential(spec) })
    }

    /// A second pass over pictures that stand already, `[1, channels, height, width]` in -1..1.
    ///
    /// # Errors
    ///
    /// What the encoder says.
    pub(super) fn second(
        model: &Model,
        spec: &Spec,
        inputs: &Inputs,
        pixels: &Tensor<4>,
    ) -> Result<Self> {
        let [_, _, height, width] = pixels.dims();
        let strength = spec.task.upscale.map_or(0.0, |u| u.strength);
        let hints = hints(model, inputs, [height, width])?;
        let scale = model.scale();
        let encoded = Encoded::of(model, spec, pixels)?;
        let picture = Picture { way: Way::Start, encoded, mask: None, masked: None };
        let shape = [model.shape[0], height / scale, width / scale];
        let picture = Some(picture);
        Ok(Self { shape, picture, hints, strength, sequential: sequential(spec) })
    }

    /// The picture as one clean sample a row, and the mask (1 where it is repainted), of its shape.
    pub(super) fn clean(&self, model: &Model, rows: usize) -> Option<(State, Option<State>)> {
        let picture = self.picture.as_ref()?;
        let mask = picture.mask.as_ref();
        let mask =
            mask.map(|m| State::new(m.clone().repeat_dim(0, rows).repeat_dim(1, self.shape[0])));
        Some((State::new(picture.encoded.point(model, rows)), mask))
    }

    /// The strength that the run has.
    pub(super) fn strength(&self) -> f64 {
        self.strength
    }

    /// Whether it starts from a picture or looks at one beside the state.
    pub(super) fn has_picture(&self) -> bool {
        self.picture.is_some()
    }

    /// Puts what control networks look at into the condition of so many rows.
    pub(super) fn show_hints(&self, cond: &mut Cond, rows: usize) {
        for (i, hint) in self.hints.iter().enumerate() {
            let hint = State::new(hint.clone().repeat_dim(0, rows));
            field_of(cond, &field::control(i), &hint);
        }
    }

    /// The first state of a batch and the step that it is at. What the network sees beside the
    /// state goes into the condition, and what is kept around the sampler.
    ///
    /// `given` is initial noise from elsewhere.
    ///
    /// # Errors
    ///
    /// What the source of noise and the process say.
    pub(super) fn start(
        &self,
        model: &Model,
        parts: &mut Parts<'_>,
        like: &State,
        given: Option<State>,
    ) -> Result<(State, usize)> {
        self.show_hints(&mut parts.cond, like.batch());
        let Some(picture) = &self.picture else {
            let eps = initial(parts, like, given)?;
            return Ok((prior(parts, like, eps)?, 0));
        };
        let rows = like.batch();
        let steps = parts.levels.len() - 1;
        let (whole, first) = match picture.way {
            Way::Edit => (true, 0),
            way => (self.strength == 1.0 && way != Way::Start, first_step(steps, self.strength)?),
        };
        let first = if whole { first } else { parts.sampler.enter(&parts.levels, first) };
        let known = if picture.way == Way::Blend || !whole {
            Some(State::new(picture.encoded.draw(model, rows, parts.noise.as_mut())?))
        } else {
            None
        };
        let eps = initial(parts, like, given)?;
        let x = match &known {
            Some(known) if !whole => {
                let at = Levels::One(parts.levels[first]);
                let mut tape = Recorded::new(vec![eps.clone()]);
                parts.process.perturb(known, None, &at, &mut tape)?.0
            }
            _ => prior(parts, like, eps.clone())?,
        };
        let masked = match &picture.masked {
            Some(masked) => Some(masked.draw(model, rows, parts.noise.as_mut())?),
            None => {
                if picture.way == Way::Blend && picture.encoded.is_drawn() {
                    // diffusers draws the masked picture's latents here too, and does not use them.
                    parts.noise.draw(like)?;
                }
                None
            }
        };
        let mask = picture.mask.as_ref().map(|m| m.clone().repeat_dim(0, rows));
        match (picture.way, mask, masked, known) {
            (Way::Repaint, Some(mask), Some(masked), _) => {
                beside(&mut parts.cond, &State::new(Tensor::cat(vec![mask, masked], 1)));
            }
            (Way::Edit, ..) => beside(&mut parts.cond, &State::new(picture.encoded.mode(rows))),
            (Way::Blend, Some(mask), _, Some(known)) => {
                let mask = State::new(mask.repeat_dim(1, self.shape[0]));
                parts.sampler = Box::new(Blend::new(parts.sampler.fork(), mask, known, eps));
            }
            _ => {}
        }
        Ok((x, first))
    }
}

impl Picture {
    fn new(
        model: &Model,
        spec: &Spec,
        init: &Images,
        mask: Option<&Images>,
        size: [usize; 2],
    ) -> Result<Self> {
        let task = &spec.task;
        let channels = model.shape[0];
        let way = match (model.beside(), task.repaints()) {
            (0, false) => Way::Start,
            (0, true) => Way::Blend,
            (n, true) if n == channels + 1 => Way::Repaint,
            (n, false) if n == channels => Way::Edit,
            (n, repaints) => {
                let task = if repaints { "repainting" } else { "image to image" };
                let needs = format!(
                    "{} for {task}: its network sees {n} channels beside the state's {channels}",
                    if n == channels + 1 { "a mask or an extension" } else { "another network" },
                );
                return Err(Error::unsupported(&model.name, needs));
            }
        };
        if way == Way::Edit && task.strength.is_some() {
            let why =
                "a network that edits by instruction starts from noise; it has `image_guidance`";
            return Err(Error::setting("strength", why));
        }
        let [left, top, right, bottom] = task.extend.unwrap_or_default();
        let inner = [size[0] - top - bottom, size[1] - left - right];
        let init = media::extended(
            &media::resized(init, inner[0], inner[1])?,
            [left, top, right, bottom],
        )?;
        let pixels = autoencode::pixels(model, &init, size)?;
        let encoded = Encoded::of(model, spec, &pixels)?;
        if !task.repaints() {
            return Ok(Self { way, encoded, mask: None, masked: None });
        }
        let whole =
            autoencode::mask(model, &canvas(mask, inner, [left, top, right, bottom])?, size)?;
        let kept = whole.clone() * -1.0 + 1.0;
        let masked = match way {
            Way::Repaint => Some(Encoded::of(model, spec, &(pixels * kept))?),
            _ => None,
        };
        let mask = autoencode::thinned(whole, model.scale());
        Ok(Self { way, encoded, mask: Some(mask), masked })
    }
}

/// The mask on the larger canvas: what is beyond the picture is painted.
pub(super) fn canvas(
    mask: Option<&Images>,
    [height, width]: [usize; 2],
    sides: [usize; 4],
) -> Result<Images> {
    let inner = match mask {
        Some(mask) => media::resized(&media::with_channels(mask, 1)?, height, width)?,
        None => Images::new([1, 1, height, width], vec![0; height * width])?,
    };
    let [left, top, ..] = sides;
    let mut out = media::extended(&inner, sides)?;
    for y in 0..out.height {
        for x in 0..out.width {
            let inside = (top..top + height).contains(&y) && (left..left + width).contains(&x);
            if !inside {
                out.data[y * out.width + x] = 255;
            }
        }
    }
    Ok(out)
}

/// The initial noise; where it is given, the seed's first draw is skipped, so that later ones are
/// those of a plain run.
fn initial(parts: &mut Parts<'_>, like: &State, given: Option<State>) -> Result<State> {
    let own = parts.noise.draw(like)?;
    Ok(given.unwrap_or(own))
}

fn prior(parts: &Parts<'_>, like: &State, eps: State) -> Result<State> {
    let endpoint = parts.cond.endpoint.as_ref();
    parts.process.prior(like, endpoint, parts.levels[0], &mut Recorded::new(vec![eps]))
}

/// Puts channels beside the state.
fn beside(cond: &mut Cond, channels: &State) {
    field_of(cond, field::BESIDE, channels);
}

/// Puts a field into the condition, and into the negative one.
fn field_of(cond: &mut Cond, name: &str, value: &State) {
    cond.fields.insert(name.into(), value.clone());
    if let Some(negative) = &mut cond.negative {
        negative.fields.insert(name.into(), value.clone());
    }
}

fn hints(model: &Model, inputs: &Inputs, size: [usize; 2]) -> Result<Vec<Tensor<4>>> {
    inputs.controls.iter().map(|c| autoencode::hint(model, &c.picture, size)).collect()
}

/// Height and width in pixels: what was asked, else the picture's with what goes around it, else the
/// model's own.
fn size(model: &Model, spec: &Spec, init: Option<&Images>) -> Result<[usize; 2]> {
    let unit = model.multiple();
    let [left, top, right, bottom] = spec.task.extend.unwrap_or_default();
    for pixels in [left, top, right, bottom] {
        if pixels % unit != 0 {
            return Err(not_a_multiple("extend", pixels, unit));
        }
    }
    let own = model.picture_size();
    let side = |asked: Option<usize>,
                of_init: Option<usize>,
                around: usize,
                own: usize,
                key: &str| {
        match (asked, of_init) {
            (Some(pixels), _) if pixels == 0 || pixels % unit != 0 => {
                Err(not_a_multiple(key, pixels, unit))
            }
            (Some(pixels), Some(_)) if pixels <= around => {
                let why =
                    format!("{pixels} leaves nothing of the picture beside the {around} around it");
                Err(Error::setting(key, why))
            }
            (Some(pixels), _) => Ok(pixels),
            (None, Some(pixels)) => Ok((pixels - pixels % unit).max(unit) + around),
            (None, None) => Ok(own),
        }
    };
    let height = side(spec.height, init.map(|i| i.height), top + bottom, own[1], "height")?;
    let width = side(spec.width, init.map(|i| i.width), left + right, own[0], "width")?;
    Ok([height, width])
}

fn not_a_multiple(key: &str, pixels: usize, unit: usize) -> Error {
    let below = pixels - pixels % unit;
    let why = match below {
        0 => format!("{pixels} is no multiple of {unit}; the smallest is {unit}"),
        _ => format!(
            "{pixels} is no multiple of {unit}; the nearest are {below} and {}",
            below + unit
        ),
    };
    Error::setting(key, why)
}
