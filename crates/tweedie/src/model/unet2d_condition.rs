//! `UNet2DConditionModel`: a U-Net over latents whose transformers attend to a sequence.

use burn::tensor::{Device, Tensor, TensorData};

use super::config::{Config, DownBlock, UNet2DConditionConfig, UpBlock};
use super::edge::{Image, image, row_times};
use super::embed::{ClassEmbedding, ClassPlan, Sinusoid, TimeMlp};
use super::layers::{Conv2d, GroupNorm};
use super::ops;
use super::resnet::ResnetPlan;
use super::site::{Given, Maker, Sited};
use super::transformer::TransformerPlan;
use super::unet::{Body, BodyPlan, LevelPlan, MixerPlan};
use crate::denoiser::{AskedSizes, Asks, Cond, Network, Pass, Times, field};
use crate::error::{Error, Result};
use crate::parameters;
use crate::state::State;
use crate::tap::Site;

/// What masked tokens get added to their scores, as in the published code: far from every score,
/// and finite, so that a row without any token left is an average rather than not a number.
const MASKED: f64 = -10_000.0;

/// A pooled text embedding and sizes, embedded beside the time (Podell et al., "SDXL", 2023).
#[derive(Clone, Debug)]
struct TextTime {
    mlp: TimeMlp,
    sizes: Sinusoid,
    width: usize,
}
parameters!(TextTime { "" => mlp });

/// A U-Net with cross-attention (Rombach et al., "High-resolution image synthesis with latent
/// diffusion models", 2022, in the form of diffusers' `UNet2DConditionModel`).
///
/// Where it has a table of classes and the condition names none, the last class is used.
#[derive(Clone, Debug)]
pub struct UNet2DCondition {
    config: UNet2DConditionConfig,
    sinusoid: Sinusoid,
    conv_in: Conv2d,
    time_embedding: TimeMlp,
    class_embedding: Option<ClassEmbedding>,
    add_embedding: Option<TextTime>,
    body: Body,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
parameters!(UNet2DCondition {
    conv_in,
    time_embedding,
    class_embedding,
    add_embedding,
    "" => body,
    conv_norm_out,
    conv_out,
});

impl UNet2DCondition {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: UNet2DConditionConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let first = config.block_out_channels[0];
        let width = config.time_embed_dim();
        let sinusoid = Sinusoid {
            width: first,
            cos_first: config.flip_sin_to_cos,
            shift: config.freq_shift as f64,
        };
        let class = ClassPlan {
            kind: config.class_embed_type.as_deref(),
            classes: config.num_class_embeds,
            projected: config.projection_class_embeddings_input_dim,
            time: sinusoid,
            width,
        };
        let time = TimeMlp::new(first, width, device);
        let groups = config.norm_num_groups.unwrap_or(32);
        let mut maker = Maker::new("unet", device);
        maker.zero_ends = true;
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, config.conv_in_kernel, device),
            time_embedding: match config.time_cond_proj_dim {
                Some(second) => time.with_second(first, second, device),
                None => time,
            },
            class_embedding: ClassEmbedding::new(&class, device)?,
            add_embedding: TextTime::new(&config, device)?,
            body: Body::new(&mut maker, &body(&config, groups)?),
            conv_norm_out: GroupNorm::new(groups, first, config.norm_eps, device),
            conv_out: Conv2d::new(first, config.out_channels, config.conv_out_kernel, device)
                .at_end(&maker),
            sinusoid,
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// Checks the sequence and its mask, and makes of the mask what is added to the scores.
    fn encoder(&self, cond: &Cond, image: &Image) -> Result<(Tensor<3>, Option<Tensor<4>>)> {
        let batch = image.x.dims()[0];
        let Some(context) = &cond.context else {
            return Err(Error::unsupported("unet", "a context in the condition"));
        };
        let [rows, tokens, width] = context.dims();
        let wanted = self.config.cross_attention_dim.get(0).unwrap_or(width);
        if rows != batch || width != wanted || tokens == 0 {
            return Err(Error::Shape {
                what: "context of the condition".into(),
                wanted: vec![batch, tokens.max(1), wanted],
                found: vec![rows, tokens, width],
            });
        }
        let bias = match &cond.context_mask {
            Some(mask) if mask.dims() == [batch, tokens] => {
                let mask = image.with(mask).reshape([batch, 1, 1, tokens]);
                Some((mask * -1.0 + 1.0) * MASKED)
            }
            Some(mask) => {
                return Err(Error::Shape {
                    what: "mask of the context".into(),
                    wanted: vec![batch, tokens],
                    found: mask.dims().to_vec(),
                });
            }
            None => None,
        };
        Ok((image.with(context), bias))
    }

    /// The embedded guidance weight, `[batch, width]`, for networks that are told one.
    fn guidance(&self, cond: &Cond, image: &Image) -> Result<Option<Tensor<2>>> {
        let Some(width) = self.config.time_cond_proj_dim else { return Ok(None) };
        let batch = image.x.dims()[0];
        if let Some(embedded) = cond.fields.get(field::TIMESTEP_COND) {
            let embedded = image.with(&embedded.view::<2>()?);
            if embedded.dims() != [batch, width] {
                return Err(Error::Shape {
                    what: "embedded guidance weight".into(),
                    wanted: vec![batch, width],
                    found: embedded.dims().to_vec(),
                });
            }
            return Ok(Some(embedded));
        }
        match &cond.guidance {
            Some(guidance) if guidance.len() == batch => {
                Ok(Some(guidance_embedding(guidance, width, &image.x)))
            }
            Some(guidance) => Err(Error::Shape {
                what: "guidance weights of a batch".into(),
                wanted: vec![batch],
                found: vec![guidance.len()],
            }),
            None => Ok(None),
        }
    }

    /// The embedded time with all that is added to it.
    fn embedded(&self, times: &[f64], cond: &Cond, image: &Image) -> Result<Tensor<2>> {
        let batch = times.len();
        let guidance = self.guidance(cond, image)?;
        let mut embedded = self.time_embedding.forward(self.sinusoid.of(times, &image.x), guidance);
        if let Some(class) = &self.class_embedding {
            embedded = embedded + class.forward(cond, batch, &image.x)?;
        }
        if let Some(added) = &self.add_embedding {
            embedded = embedded + added.forward(cond, batch, image)?;
        }
        Ok(embedded)
    }
}

/// The guidance weight that a distilled network is told (Luo et al., "Latent consistency models",
/// 2023): the sines and cosines of a thousand times the weight less one.
fn guidance_embedding(guidance: &[f64], width: usize, beside: &Tensor<4>) -> Tensor<2> {
    let times: Vec<f64> = guidance.iter().map(|w| 1000.0 * (w - 1.0)).collect();
    let values = ops::sinusoid(&times, width, false, 1.0);
    Tensor::from_data(TensorData::new(values, [times.len(), width]), &beside.device())
}

impl TextTime {
    fn new(config: &UNet2DConditionConfig, device: &Device) -> Result<Option<Self>> {
        match config.addition_embed_type.as_deref() {
            None => Ok(None),
            Some("text_time") => {
                let want = |key: &str, value: Option<usize>| {
                    let why = "is wanted by `addition_embed_type` \"text_time\"";
                    value.ok_or_else(|| Error::setting(key, why))
                };
                let width = want(
                    "projection_class_embeddings_input_dim",
                    config.projection_class_embeddings_input_dim,
                )?;
                let size = want("addition_time_embed_dim", config.addition_time_embed_dim)?;
                let sizes = Sinusoid {
                    width: size,
                    cos_first: config.flip_sin_to_cos,
                    shift: config.freq_shift as f64,
                };
                let mlp = TimeMlp::new(width, config.time_embed_dim(), device);
                Ok(Some(Self { mlp, sizes, width }))
            }
            Some(other) => Err(Error::unknown("addition_embed_type", other, ["text_time"])),
        }
    }

    fn forward(&self, cond: &Cond, batch: usize, image: &Image) -> Result<Tensor<2>> {
        let Some(text) = &cond.vector else {
            return Err(Error::unsupported("unet", "a pooled text embedding in the condition"));
        };
        let Some(ids) = cond.fields.get(field::TIME_IDS) else {
            return Err(Error::unsupported("unet", "a field `time_ids` in the condition"));
        };
        let ids: Vec<f64> = ids.to_rows().into_iter().flatten().collect();
        let text = image.with(text);
        let found = text.dims()[1] + ids.len() / batch.max(1) * self.sizes.width;
        if text.dims()[0] != batch || !ids.len().is_multiple_of(batch) || found != self.width {
            return Err(Error::Shape {
                what: "pooled text embedding and embedded `time_ids`".into(),
                wanted: vec![batch, self.width],
                found: vec![text.dims()[0], found],
            });
        }
        let sizes = self.sizes.of(&ids, &image.x);
        let sizes = sizes.reshape([batch, ids.len() / batch * self.sizes.width]);
        Ok(self.mlp.forward(Tensor::cat(vec![text, sizes], 1), None))
    }
}

/// The plan of the levels.
fn body(config: &UNet2DConditionConfig, groups: usize) -> Result<BodyPlan> {
    let count = config.block_out_channels.len();
    let layers = config.layers_per_block.spread("layers_per_block", count)?;
    let heads = config.attention_head_dim.spread("attention_head_dim", count)?;
    let depths =
        config.transformer_layers_per_block.spread("transformer_layers_per_block", count)?;
    let encoder = config.cross_attention_dim.spread("cross_attention_dim", count)?;
    let crossed = config.only_cross_attention.spread("only_cross_attention", count)?;
    let transformer = |i: usize, only_cross: bool| {
        MixerPlan::Transformer(TransformerPlan {
            heads: heads[i],
            layers: depths[i],
            encoder: encoder[i],
            groups,
            linear: config.use_linear_projection,
            only_cross,
        })
    };
    let level = |i: usize| {
        let down = config.down_block_types[i] == DownBlock::CrossAttnDownBlock2D;
        let up = config.up_block_types[count - 1 - i] == UpBlock::CrossAttnUpBlock2D;
        LevelPlan {
            channels: config.block_out_channels[i],
            layers: layers[i],
            down: down.then(|| transformer(i, crossed[i])),
            up: up.then(|| transformer(i, crossed[i])),
        }
    };
    Ok(BodyPlan {
        levels: (0..count).map(level).collect(),
        mid: config.mid_block_type.is_some(),
        mid_mixer: Some(transformer(count - 1, false)),
        downsample_padding: config.downsample_padding,
        resnet: ResnetPlan {
            time: Some(config.time_embed_dim()),
            groups,
            eps: config.norm_eps,
            shift: config.resnet_time_scale_shift,
        },
    })
}

impl Network for UNet2DCondition {
    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let config = &self.config;
        let image = image(x, config.in_channels, cond, self.conv_in.weight(), config.dropout)?;
        let [batch, _, height, width] = image.x.dims();
        self.body.fits([height, width])?;
        let embedded = self.embedded(row_times(time, batch, "unet")?, cond, &image)?;
        let (encoder, bias) = self.encoder(cond, &image)?;
        let given = Given { time: Some(embedded), encoder: Some(encoder), bias, skip: None };
        let x: Tensor<4> =
            if config.center_input_sample { image.x.clone() * 2.0 - 1.0 } else { image.x.clone() };
        let hidden = self.body.forward(self.conv_in.forward(x), &given, pass)?;
        Ok(image.state(self.conv_out.forward(self.conv_norm_out.silu(hidden))))
    }

    fn sites(&self) -> Vec<Site> {
        let mut list = Vec::new();
        self.body.sites(&mut list);
        list
    }

    fn asks(&self) -> Asks {
        Asks {
            channels: Some(self.config.in_channels),
            class: self.class_embedding.as_ref().map(ClassEmbedding::asks).unwrap_or_default(),
            context: self.config.cross_attention_dim.get(0),
            sizes: self
                .add_embedding
                .as_ref()
                .map(|added| AskedSizes { total: added.width, each: added.sizes.width }),
            guidance: self.config.time_cond_proj_dim,
        }
    }

    fn sample_shape(&self) -> Option<Vec<usize>> {
        let [height, width] = self.config.sample_size?.height_width();
        Some(vec![self.config.in_channels, height, width])
    }
}
