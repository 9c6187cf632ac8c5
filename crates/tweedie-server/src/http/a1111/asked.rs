//! From A1111's fields to a request.

use std::io::Cursor;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tweedie::catalog::{Seam, find};
use tweedie::spec::{Spec, Upscale};

use super::options;
use crate::http::own::drawn_seed;
use crate::http::picture::of_base64;
use crate::http::{Result, Shared};
use crate::job::{Door, Pictures, Request};
use crate::refusal::Refusal;
use crate::service::named;

/// A1111's own defaults, where they are not the model's.
const STEPS: usize = 50;
const SIDE: usize = 512;
const CFG: f64 = 7.0;
const MASK_BLUR: f32 = 4.0;

/// The strongest blur of a mask, in pixels.
const MOST_BLUR: f32 = 64.0;

/// A field's value; `null` and an absent field are the same.
fn value<T: DeserializeOwned>(asked: &Map<String, Value>, key: &str) -> Result<Option<T>> {
    match asked.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|e| Refusal::field(key, format!("{key}: {e}"))),
    }
}

/// A number that must be whole, also where it is written with a point.
fn whole(asked: &Map<String, Value>, key: &str) -> Result<Option<i64>> {
    let Some(number) = value::<f64>(asked, key)? else { return Ok(None) };
    if number.fract() != 0.0 || number.abs() > 9e15 {
        return Err(Refusal::field(key, format!("{key}: {number} is no whole number")));
    }
    Ok(Some(number as i64))
}

fn count(asked: &Map<String, Value>, key: &str, default: usize) -> Result<usize> {
    let number = whole(asked, key)?.unwrap_or(default as i64);
    usize::try_from(number).map_err(|_| Refusal::field(key, format!("{key}: {number}")))
}

/// What would change the picture and means nothing here.
fn refuse_foreign(asked: &Map<String, Value>) -> Result<()> {
    let is_set = |key: &str| match asked.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty() && text != "None",
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(_) => true,
    };
    for (key, what) in [
        ("restore_faces", "face restoration"),
        ("tiling", "tiling"),
        ("script_name", "scripts"),
        ("styles", "prompt styles"),
        ("subseed_strength", "variation seeds"),
        ("hr_prompt", "prompt of its own for the second pass"),
        ("hr_negative_prompt", "negative prompt of its own for the second pass"),
        ("hr_checkpoint_name", "model of its own for the second pass"),
        ("hr_resize_x", "second pass to a given size; `hr_scale` says how many times larger"),
        ("hr_resize_y", "second pass to a given size; `hr_scale` says how many times larger"),
        ("firstphase_width", "first phase of another size"),
        ("firstphase_height", "first phase of another size"),
        ("refiner_checkpoint", "refiner"),
    ] {
        if is_set(key) {
            return Err(Refusal::field(key, format!("{key}: this server has no {what}")));
        }
    }
    for key in ["seed_resize_from_w", "seed_resize_from_h"] {
        if whole(asked, key)?.is_some_and(|n| n > 0) {
            return Err(Refusal::field(key, format!("{key}: seeds are not resized here")));
        }
    }
    // Scripts that are always there are passed an empty or switched-off list by some clients.
    let scripts = value::<Map<String, Value>>(asked, "alwayson_scripts")?.unwrap_or_default();
    for (name, script) in &scripts {
        let args = script.get("args").and_then(Value::as_array);
        let off = args.is_none_or(|a| a.is_empty() || a[0] == Value::Bool(false));
        if !off {
            let why = format!("alwayson_scripts: this server has no `{name:.40}`");
            return Err(Refusal::field("alwayson_scripts", why));
        }
    }
    Ok(())
}

/// The request that the fields of `txt2img`, or with `starts` of `img2img`, ask for.
///
/// # Errors
///
/// The field that is wrong, and why.
pub(super) fn request(
    service: &Shared,
    asked: &Map<String, Value>,
    starts: bool,
) -> Result<(Request, Pictures)> {
    refuse_foreign(asked)?;
    let over = value::<Map<String, Value>>(asked, "override_settings")?.unwrap_or_default();
    let options = options::with(service, &over)?;
    let own = service.library.facts(&options.model)?.spec.clone();
    let (batch, runs) = (count(asked, "batch_size", 1)?, count(asked, "n_iter", 1)?);
    let seed = whole(asked, "seed")?.unwrap_or(-1);
    let mut spec = Spec {
        model: options.model,
        prompt: value(asked, "prompt")?.unwrap_or_default(),
        negative: value(asked, "negative_prompt")?.unwrap_or_default(),
        clip_skip: options.clip_skip,
        steps: count(asked, "steps", STEPS)?,
        guidance: Some(value(asked, "cfg_scale")?.unwrap_or(CFG)),
        seed: u64::try_from(seed).unwrap_or_else(|_| drawn_seed()),
        count: batch.saturating_mul(runs),
        width: Some(count(asked, "width", SIDE)?),
        height: Some(count(asked, "height", SIDE)?),
        ..Spec::default()
    };
    let sampler = value::<String>(asked, "sampler_name")?;
    let sampler = match sampler.filter(|s| !s.is_empty()) {
        Some(name) => Some(name),
        None => value::<String>(asked, "sampler_index")?,
    };
    let automatic = |name: &String| !name.is_empty() && !name.eq_ignore_ascii_case("automatic");
    let grid = value::<String>(asked, "scheduler")?.filter(automatic);
    let sampler = sampler.filter(automatic).unwrap_or_else(|| "Euler".into());
    named(&mut spec, &own, Some(&sampler), grid.as_deref())?;
    numbers(asked, &mut spec)?;
    let strength = value(asked, "denoising_strength")?;
    if !starts && value(asked, "enable_hr")?.unwrap_or(false) {
        spec.task.upscale = Some(Upscale {
            factor: value(asked, "hr_scale")?.unwrap_or(2.0),
            strength: strength.unwrap_or(0.7),
        });
    }
    let mut pictures = Pictures::default();
    if starts {
        spec.task.strength = Some(strength.unwrap_or(0.75));
        pictures = given(service, asked)?;
        // As that server does.
        spec.task.keep = pictures.mask.is_some();
    }
    Ok((Request { spec, preview: true, door: Door::A1111, ..Request::default() }, pictures))
}

/// Numbers that some samplers have; null and A1111's own default leave the sampler's.
fn numbers(asked: &Map<String, Value>, spec: &mut Spec) -> Result<()> {
    let defaults =
        (find(tweedie::sampler::entries(), Seam::Sampler, &spec.sampler.name)?.defaults)();
    for (key, usual) in
        [("eta", 1.0), ("s_churn", 0.0), ("s_tmin", 0.0), ("s_tmax", 0.0), ("s_noise", 1.0)]
    {
        let Some(number) = value::<f64>(asked, key)?.filter(|n| *n != usual) else { continue };
        // `s_tmax` of 0 is no end, in older versions written as a very large number.
        if key == "s_tmax" && number > 1e6 {
            continue;
        }
        if defaults.get(key).is_none() {
            let why = format!("{key}: {} has no such setting", spec.sampler.name);
            return Err(Refusal::field(key, why));
        }
        spec.sampler.settings.insert(key.to_owned(), number.into());
    }
    Ok(())
}

/// The pictures that a request starts from.
fn given(service: &Shared, asked: &Map<String, Value>) -> Result<Pictures> {
    let list = value::<Vec<String>>(asked, "init_images")?.unwrap_or_default();
    let [init] = list.as_slice() else {
        let why = format!("init_images: {} pictures, wanted one", list.len());
        return Err(Refusal::field("init_images", why));
    };
    let fill = whole(asked, "inpainting_fill")?.unwrap_or(0);
    let mask = value::<String>(asked, "mask")?.filter(|m| !m.is_empty());
    if mask.is_some() && !(0..=1).contains(&fill) {
        let why = "inpainting_fill: what is repainted starts from the picture here, 0 or 1";
        return Err(Refusal::field("inpainting_fill", why));
    }
    let invert = whole(asked, "inpainting_mask_invert")?.unwrap_or(0) == 1;
    let mask = match mask {
        None => None,
        Some(text) => {
            let bytes = of_base64("mask", &text)?;
            service.decoded("mask", &bytes)?;
            Some(softened(&bytes, invert, mask_blur(asked)?)?)
        }
    };
    Ok(Pictures { init: Some(of_base64("init_images", init)?), mask })
}

/// The deviation, in pixels, that a mask is blurred by.
fn mask_blur(asked: &Map<String, Value>) -> Result<f32> {
    let of = |key: &str| match value::<f32>(asked, key)? {
        Some(blur) if !(0.0..=MOST_BLUR).contains(&blur) => {
            let why = format!("{key}: {blur}, wanted 0 to {MOST_BLUR}");
            Err(Refusal::field(key, why))
        }
        blur => Ok(blur),
    };
    if let Some(blur) = of("mask_blur")? {
        return Ok(blur);
    }
    let [x, y] = [of("mask_blur_x")?, of("mask_blur_y")?].map(|blur| blur.unwrap_or(MASK_BLUR));
    if x == y {
        return Ok(x);
    }
    let why = format!("mask_blur_y: {y}, wanted that of mask_blur_x, {x}");
    Err(Refusal::field("mask_blur_y", why))
}

/// A mask whose size has been checked, turned into its negative where asked and blurred.
fn softened(bytes: &Arc<[u8]>, invert: bool, blur: f32) -> Result<Arc<[u8]>> {
    if !invert && blur == 0.0 {
        return Ok(Arc::clone(bytes));
    }
    let wrong = |e: image::ImageError| Refusal::field("mask", format!("mask: {e}"));
    let mut mask = image::load_from_memory(bytes).map_err(wrong)?.into_luma8();
    if invert {
        mask.pixels_mut().for_each(|p| p.0[0] = 255 - p.0[0]);
    }
    if blur > 0.0 {
        mask = image::imageops::fast_blur(&mask, blur);
    }
    let mut png = Cursor::new(Vec::new());
    DynamicImage::from(mask).write_to(&mut png, ImageFormat::Png).map_err(wrong)?;
    Ok(png.into_inner().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn what_would_change_the_picture_is_not_passed_over() {
        let fine = json!({
            "restore_faces": false, "tiling": null, "styles": [], "script_name": null,
            "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_w": -1, "new_field": 7,
            "alwayson_scripts": {"ADetailer": {"args": [false]}, "ControlNet": {"args": []}},
        });
        refuse_foreign(&map(fine)).unwrap();
        for bad in [
            json!({"restore_faces": true}),
            json!({"tiling": true}),
            json!({"styles": ["ink"]}),
            json!({"script_name": "x/y/z plot"}),
            json!({"subseed_strength": 0.2}),
            json!({"seed_resize_from_w": 64}),
            json!({"alwayson_scripts": {"ADetailer": {"args": [true, {}]}}}),
        ] {
            let refused = refuse_foreign(&map(bad.clone())).unwrap_err();
            let key = map(bad).keys().next().cloned();
            assert_eq!((refused.status(), refused.param), (400, key));
        }
    }

    #[test]
    fn masks_are_blurred_and_turned() {
        for (asked, wanted) in [
            (json!({}), Some(4.0)),
            (json!({"mask_blur": 0}), Some(0.0)),
            (json!({"mask_blur": null, "mask_blur_x": 2, "mask_blur_y": 2}), Some(2.0)),
            (json!({"mask_blur_x": 2}), None),
            (json!({"mask_blur": -1}), None),
            (json!({"mask_blur": 1e9}), None),
        ] {
            assert_eq!(mask_blur(&map(asked)).ok(), wanted);
        }
        let mut png = Cursor::new(Vec::new());
        let half =
            image::GrayImage::from_fn(32, 4, |x, _| image::Luma([if x < 16 { 0 } else { 255 }]));
        DynamicImage::from(half).write_to(&mut png, ImageFormat::Png).unwrap();
        let bytes: Arc<[u8]> = png.into_inner().into();
        assert_eq!(softened(&bytes, false, 0.0).unwrap(), bytes);
        let read = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_luma8();
        let soft = read(&softened(&bytes, true, 4.0).unwrap());
        let [left, middle, right] = [0, 16, 31].map(|x| soft.get_pixel(x, 2).0[0]);
        assert!(left > 240 && (64..192).contains(&middle) && right < 15, "{left} {middle} {right}");
    }

    #[test]
    fn numbers_may_be_written_with_a_point() {
        let asked = map(json!({"a": 3.0, "b": 3.5, "c": -1, "d": "x", "e": null}));
        assert_eq!(count(&asked, "a", 1).unwrap(), 3);
        assert_eq!(count(&asked, "e", 7).unwrap(), 7);
        for key in ["b", "c", "d"] {
            assert_eq!(count(&asked, key, 1).unwrap_err().param.as_deref(), Some(key));
        }
    }
}
