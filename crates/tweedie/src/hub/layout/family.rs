//! The families of single files: what their files leave unsaid.
//!
//! A single file has no settings. What a network needs to know beside its shapes is the same in all
//! models of a family and is written down here, from the published folders of the same models:
//! the factor of the latents, the side of the pictures, the scheduler, the tokenizer's padding.

use serde_json::{Map, Value, json};

use super::super::scheduler::PredictionType;
use super::super::tensor_set::TensorSet;
use super::UNet;

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Stable Diffusion 1: CLIP-L, convolutions as projections.
    Sd1,
    /// Stable Diffusion 2: OpenCLIP-H, linear projections.
    Sd2,
    /// Stable Diffusion XL: CLIP-L and OpenCLIP-bigG, sizes.
    Sdxl,
    /// The refiner of Stable Diffusion XL: OpenCLIP-bigG alone, sizes and a score.
    Refiner,
}

/// What was decided that the keys do not say, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assumed {
    pub(crate) prediction: PredictionType,
    pub(crate) why: String,
}

impl Family {
    /// The family of a U-Net. One that takes sizes and attends to OpenCLIP-bigG alone (1280 features)
    /// is the refiner, one that attends to both encoders XL.
    pub(crate) fn of(unet: &UNet, has_clip_l: bool, has_open_clip: bool) -> Self {
        match (unet.takes_sizes(), unet.is_linear()) {
            (true, _) if has_clip_l => Self::Sdxl,
            (true, _) if has_open_clip || unet.context == 1280 => Self::Refiner,
            (true, _) => Self::Sdxl,
            (false, true) => Self::Sd2,
            (false, false) => Self::Sd1,
        }
    }

    /// Its name, for a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sd1 => "Stable Diffusion 1",
            Self::Sd2 => "Stable Diffusion 2",
            Self::Sdxl => "Stable Diffusion XL",
            Self::Refiner => "Stable Diffusion XL refiner",
        }
    }

    /// The pipeline's class, by the channels of the U-Net's input: 4 of latents; beside them 4 of a
    /// picture to edit, or 4 of a picture and 1 of its mask.
    pub(crate) fn pipeline(self, channels: usize) -> &'static str {
        match (self, channels) {
            (Self::Sd1 | Self::Sd2, 9) => "StableDiffusionInpaintPipeline",
            (Self::Sd1 | Self::Sd2, 8) => "StableDiffusionInstructPix2PixPipeline",
            (Self::Sd1 | Self::Sd2, _) => "StableDiffusionPipeline",
            (Self::Sdxl, 9) => "StableDiffusionXLInpaintPipeline",
            (Self::Sdxl, 8) => "StableDiffusionXLInstructPix2PixPipeline",
            (Self::Sdxl, _) => "StableDiffusionXLPipeline",
            (Self::Refiner, _) => "StableDiffusionXLImg2ImgPipeline",
        }
    }

    /// Arguments of the pipeline's constructor.
    pub(crate) fn arguments(self) -> Map<String, Value> {
        let map = match self {
            Self::Sd1 | Self::Sd2 => json!({ "requires_safety_checker": false }),
            Self::Sdxl => json!({ "force_zeros_for_empty_prompt": true }),
            Self::Refiner => json!({
                "force_zeros_for_empty_prompt": false, "requires_aesthetics_score": true,
            }),
        };
        map.as_object().cloned().unwrap_or_default()
    }

    /// The side of the latents that it was trained on.
    pub(crate) fn side(self, prediction: PredictionType) -> usize {
        match self {
            Self::Sd2 if prediction == PredictionType::VPrediction => 96,
            Self::Sd1 | Self::Sd2 => 64,
            Self::Sdxl | Self::Refiner => 128,
        }
    }

    /// How many sizes enter its U-Net beside the text: original size, crop and target size; the
    /// refiner has a score in the place of the target's two.
    pub(crate) fn times(self) -> usize {
        if self == Self::Refiner { 5 } else { 6 }
    }

    /// The factor and the shift between the autoencoder's latents and those of diffusion.
    pub(crate) fn factor(self) -> (f64, Option<f64>) {
        match self {
            Self::Sd1 | Self::Sd2 => (0.18215, None),
            Self::Sdxl | Self::Refiner => (0.13025, None),
        }
    }

    /// What the network predicts, where nothing in the file says: everything but 4-channel models of
    /// version 2 predicts noise. Those come in both kinds. The step counter of the first published one
    /// for noise is known (875,000). Else the biases of one norm tell, which the training on `v` spread
    /// by more than 0.09 and that on noise did not (a rule that ComfyUI found); a file in which they are
    /// all the same was not trained, and is taken for the later kind, `v`, as diffusers takes it.
    pub(crate) fn prediction(self, unet: &UNet, original: &TensorSet, file: &TensorSet) -> Assumed {
        let told = |prediction, why: &str| Assumed { prediction, why: why.to_owned() };
        let (noise, v) = (PredictionType::Epsilon, PredictionType::VPrediction);
        if let Some(said) = file.metadata("modelspec.prediction_type") {
            match said {
                "v" | "v_prediction" => return told(v, "the file's metadata say so"),
                "epsilon" => return told(noise, "the file's metadata say so"),
                _ => {}
            }
        }
        // A marker that writers of v-prediction models of XL leave in the weights.
        if file.contains("v_pred") {
            return told(v, "the file holds the marker `v_pred`");
        }
        if self != Self::Sd2 || unet.in_channels != 4 {
            return told(noise, "models of its family do");
        }
        match file.metadata("global_step") {
            Some("875000") => return told(noise, "its step counter is that of 2-base"),
            Some(_) => return told(v, "its step counter is not that of 2-base"),
            None => {}
        }
        let bias = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
        let values = original.read_f32(bias).unwrap_or_default();
        let count = values.len().max(1) as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let spread = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
        let spread = spread.sqrt();
        if spread == 0.0 {
            return told(v, "nothing in the file tells, and most models of its family do");
        }
        let why = format!("the biases of `{bias}` spread by {spread:.3} (more than 0.09 means v)");
        Assumed { prediction: if spread > 0.09 { v } else { noise }, why }
    }
}

/// The scheduler of a family's published folder, with what the network predicts.
pub(crate) fn scheduler(
    family: Family,
    channels: usize,
    prediction: PredictionType,
    zero: bool,
) -> Map<String, Value> {
    let class = match (family, channels) {
        (Family::Sdxl | Family::Refiner, _) => "EulerDiscreteScheduler",
        (Family::Sd2, _) => "DDIMScheduler",
        (Family::Sd1, 8) => "EulerAncestralDiscreteScheduler",
        (Family::Sd1, _) => "PNDMScheduler",
    };
    let mut map = json!({
        "_class_name": class,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    });
    match class {
        "PNDMScheduler" => {
            map["set_alpha_to_one"] = json!(false);
            map["skip_prk_steps"] = json!(true);
        }
        "DDIMScheduler" => {
            map["clip_sample"] = json!(false);
            map["set_alpha_to_one"] = json!(false);
        }
        _ => {}
    }
    if zero && class == "EulerDiscreteScheduler" {
        // Another marker of writers of XL models: nothing of the data is left at the last step.
        map["rescale_betas_zero_snr"] = json!(true);
        map["timestep_spacing"] = json!("trailing");
    }
    map.as_object().cloned().unwrap_or_default()
}
