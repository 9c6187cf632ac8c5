//! A1111's extras: pictures made larger by filters.

use std::io::Cursor;

use axum::Json;
use axum::extract::State;
use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::body::Body;
use crate::http::picture::{of_base64, to_base64};
use crate::http::{Result, Shared, blocking};
use crate::refusal::Refusal;

/// The filters, by A1111's names.
const FILTERS: [(&str, FilterType); 2] =
    [("Lanczos", FilterType::Lanczos3), ("Nearest", FilterType::Nearest)];

/// The fields of an extras request.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    resize_mode: u8,
    #[serde(default)]
    gfpgan_visibility: f64,
    #[serde(default)]
    codeformer_visibility: f64,
    #[serde(default = "twice")]
    upscaling_resize: f64,
    #[serde(default)]
    upscaling_resize_w: Option<u32>,
    #[serde(default)]
    upscaling_resize_h: Option<u32>,
    #[serde(default = "none")]
    upscaler_1: String,
    #[serde(default = "none")]
    upscaler_2: String,
    #[serde(default)]
    extras_upscaler_2_visibility: f64,
    #[serde(default)]
    image: String,
    #[serde(default, rename = "imageList")]
    list: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    data: String,
}

fn twice() -> f64 {
    2.0
}

fn none() -> String {
    "None".into()
}

impl Asked {
    fn apply(&self, service: &Shared, param: &str, text: &str) -> Result<String> {
        for (key, share) in [
            ("gfpgan_visibility", self.gfpgan_visibility),
            ("codeformer_visibility", self.codeformer_visibility),
        ] {
            if share > 0.0 {
                return Err(Refusal::field(key, format!("{key}: there is no face restoration")));
            }
        }
        if self.extras_upscaler_2_visibility > 0.0 && self.upscaler_2 != "None" {
            let why = "upscaler_2: one upscaler at a time";
            return Err(Refusal::field("upscaler_2", why));
        }
        let bytes = of_base64(param, text)?;
        service.decoded(param, &bytes)?;
        let wrong = |e: image::ImageError| Refusal::field(param, format!("{param}: {e}"));
        let picture = image::load_from_memory(&bytes).map_err(wrong)?;
        let scaled = match FILTERS.iter().find(|(name, _)| *name == self.upscaler_1) {
            Some((_, filter)) => {
                let [width, height] = self.size(&picture, 2 * service.settings.limits.side)?;
                picture.resize_exact(width, height, *filter)
            }
            None if self.upscaler_1 == "None" => picture,
            None => {
                let names = FILTERS.iter().map(|(name, _)| *name);
                let error = tweedie::Error::unknown("upscaler_1", &self.upscaler_1, names);
                return Err(error.into());
            }
        };
        let mut png = Cursor::new(Vec::new());
        scaled.write_to(&mut png, ImageFormat::Png).map_err(wrong)?;
        Ok(to_base64(&png.into_inner()))
    }

    fn size(&self, picture: &DynamicImage, most: usize) -> Result<[u32; 2]> {
        let size = match (self.resize_mode, self.upscaling_resize_w, self.upscaling_resize_h) {
            (1, Some(width), Some(height)) => [f64::from(width), f64::from(height)],
            _ => [picture.width(), picture.height()].map(|s| f64::from(s) * self.upscaling_resize),
        };
        if size.iter().any(|s| !(1.0..=most as f64).contains(s)) {
            let why = format!("upscaling_resize: {} x {}, wanted 1 to {most}", size[0], size[1]);
            return Err(Refusal::field("upscaling_resize", why));
        }
        Ok(size.map(|s| s.round() as u32))
    }
}

pub(super) async fn single(
    State(service): State<Shared>,
    Body(asked): Body<Asked>,
) -> Result<Json<Value>> {
    blocking(move || {
        let image = asked.apply(&service, "image", &asked.image)?;
        Ok(Json(json!({"html_info": "", "image": image})))
    })
    .await
}

pub(super) async fn batch(
    State(service): State<Shared>,
    Body(asked): Body<Asked>,
) -> Result<Json<Value>> {
    blocking(move || {
        let most = service.settings.limits.count;
        if asked.list.len() > most {
            let why = format!("imageList: {} pictures, at most {most}", asked.list.len());
            return Err(Refusal::field("imageList", why));
        }
        let one = |item: &Item| asked.apply(&service, "imageList", &item.data);
        let images = asked.list.iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Json(json!({"html_info": "", "images": images})))
    })
    .await
}

pub(super) async fn upscalers() -> Json<Value> {
    let one = |name: &str| {
        json!({
            "name": name, "model_name": null, "model_path": null, "model_url": null, "scale": 4,
        })
    };
    Json(std::iter::once("None").chain(FILTERS.map(|(name, _)| name)).map(one).collect())
}
