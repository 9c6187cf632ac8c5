//! What U-Nets with cross-attention make of time and condition before their first block.

use burn::tensor::{Device, Tensor, TensorData};

use super::attention::{attend, merge_heads, split_heads};
use super::config::{Activation, AdditionEmbedding, TimeEmbedding, UNet2DConditionConfig};
use super::edge::{Image, sequence};
use super::embed::{ClassEmbedding, ClassPlan, Fourier, Sinusoid, TimeMlp, TimeSource};
use super::layers::{LayerNorm, Linear};
use super::ops;
use super::site::{Given, Maker, Sited};
use crate::denoiser::{AskedSizes, Asks, Cond, Pass, field};
use crate::error::{Error, Result};
use crate::parameters;
use crate::tap::{Site, SiteKind};
use crate::weight::{Initial, Parameters, Weight};

/// The epsilon of the norms around a pooled sequence, which the published class fixes.
const NORM_EPS: f64 = 1e-5;

/// Time, class, pooled text, sizes and guidance weight as one vector, and the sequence that is
/// attended to.
#[derive(Clone, Debug)]
pub(super) struct Conditioning {
    time_proj: TimeSource,
    time_embedding: TimeMlp,
    class_embedding: Option<ClassEmbedding>,
    add_embedding: Option<Added>,
    encoder_hid_proj: Option<Linear>,
    /// Classes stand behind the time rather than being added to it.
    concat: bool,
    /// An activation of the sum.
    last: Option<Activation>,
    /// Features of the sequence as it comes in.
    context: usize,
    /// Features of the embedded guidance weight.
    guidance: Option<usize>,
    part: &'static str,
}
parameters!(Conditioning {
    time_proj,
    time_embedding,
    class_embedding,
    add_embedding,
    encoder_hid_proj,
});

impl Conditioning {
    /// As the settings say, which must be valid; `class` is the activation inside the embedding of
    /// a class as a time, and `part` names the network in errors.
    pub(super) fn new(
        maker: &mut Maker<'_>,
        config: &UNet2DConditionConfig,
        class: Activation,
        part: &'static str,
    ) -> Result<Self> {
        let device = maker.device;
        let first = config.block_out_channels[0];
        let width = config.time_embed_dim();
        let sinusoid = |width: usize| Sinusoid {
            width,
            cos_first: config.flip_sin_to_cos,
            shift: config.freq_shift as f64,
        };
        let time_proj = match config.time_embedding_type {
            TimeEmbedding::Fourier => {
                let cos_first = config.flip_sin_to_cos;
                TimeSource::Fourier(Fourier::new(width / 2, 1.0, false, cos_first, device))
            }
            _ => TimeSource::Sinusoid(sinusoid(first)),
        };
        let inputs = time_proj.width();
        let class_plan = ClassPlan {
            kind: config.class_embed_type.as_deref(),
            classes: config.num_class_embeds,
            projected: config.projection_class_embeddings_input_dim,
            time: inputs,
            activation: class,
            width,
        };
        let time = TimeMlp::new(inputs, width, device)
            .with_activations(config.act_fn, config.timestep_post_act);
        let inner = config.context_width();
        let context = config.encoder_hid_dim.unwrap_or(inner);
        let added = match config.addition_embed_type {
            None => None,
            Some(AdditionEmbedding::Text) => {
                let heads = config.addition_embed_type_num_heads;
                Some(Added::Text(Box::new(Pooling::new(maker, context, width, heads))))
            }
            Some(AdditionEmbedding::TextTime) => {
                let (total, each) = config.sizes()?;
                let mlp = TimeMlp::new(total, width, device);
                Some(Added::Sizes { mlp, sizes: sinusoid(each), total })
            }
        };
        Ok(Self {
            time_embedding: match config.time_cond_proj_dim {
                Some(second) => time.with_second(inputs, second, device),
                None => time,
            },
            time_proj,
            class_embedding: ClassEmbedding::new(&class_plan, device)?,
            add_embedding: added,
            encoder_hid_proj: config.encoder_hid_dim.map(|from| Linear::new(from, inner, device)),
            concat: config.class_embeddings_concat,
            last: config.time_embedding_act_fn,
            context,
            guidance: config.time_cond_proj_dim,
            part,
        })
    }

    /// What the network wants to find in a condition.
    pub(super) fn asks(&self) -> Asks {
        let sizes = match &self.add_embedding {
            Some(Added::Sizes { sizes, total, .. }) => {
                Some(AskedSizes { total: *total, each: sizes.width })
            }
            _ => None,
        };
        Asks {
            channels: None,
            class: self.class_embedding.as_ref().map(ClassEmbedding::asks).unwrap_or_default(),
            context: Some(self.context),
            sizes,
            guidance: self.guidance,
        }
    }

    /// What every block is given.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the condition lacks what the network asks for,
    /// [`Error::Shape`] where it does not fit.
    pub(super) fn given(
        &self,
        times: &[f64],
        cond: &Cond,
        image: &Image,
        pass: &mut Pass,
    ) -> Result<Given> {
        let batch = times.len();
        let (encoder, bias) = sequence(cond, image, self.context, self.part)?;
        let guidance = self.guided(cond, image)?;
        let class = match &self.class_embedding {
            Some(class) => Some(class.forward(cond, batch, &self.time_proj, &image.x)?),
            None => None,
        };
        let added = match &self.add_embedding {
            Some(added) => Some(added.forward(cond, &encoder, image, self.part, pass)?),
            None => None,
        };
        let embedded = pass.embedded(self, times, |times| {
            // Batch behind batch.
            let again = |x: &Tensor<2>| x.clone().repeat(&[times.len() / batch, 1]);
            let time = self.time_proj.of(times, &image.x)?;
            let mut embedded = self.time_embedding.forward(time, guidance.as_ref().map(again));
            if let Some(class) = &class {
                embedded = match self.concat {
                    true => Tensor::cat(vec![embedded, again(class)], 1),
                    false => embedded + again(class),
                };
            }
            if let Some(added) = &added {
                embedded = embedded + again(added);
            }
            Ok(match self.last {
                Some(last) => ops::activate(embedded, last),
                None => embedded,
            })
        })?;
        let encoder = match &self.encoder_hid_proj {
            Some(project) => project.forward(encoder),
            None => encoder,
        };
        Ok(Given { time: Some(embedded), encoder: Some(encoder), bias, skip: None })
    }

    /// The embedded guidance weight, `[batch, width]`, for networks that are told one.
    fn guided(&self, cond: &Cond, image: &Image) -> Result<Option<Tensor<2>>> {
        let Some(width) = self.guidance else { return Ok(None) };
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
}

impl Sited for Conditioning {
    fn sites(&self, list: &mut Vec<Site>) {
        if let Some(Added::Text(pooling)) = &self.add_embedding {
            let parts = [pooling.norm1.site(), Some(&pooling.site), pooling.norm2.site()];
            list.extend(parts.into_iter().flatten().cloned());
        }
    }
}

/// The guidance weight that a distilled network is told (Luo et al., "Latent consistency models",
/// 2023): the sines and cosines of a thousand times the weight less one.
fn guidance_embedding(guidance: &[f64], width: usize, beside: &Tensor<4>) -> Tensor<2> {
    let times: Vec<f64> = guidance.iter().map(|w| 1000.0 * (w - 1.0)).collect();
    let values = ops::sinusoid(&times, width, false, 1.0);
    Tensor::from_data(TensorData::new(values, [times.len(), width]), &beside.device())
}

/// What is embedded beside the time.
#[derive(Clone, Debug)]
enum Added {
    /// A pooled text embedding and sizes (Podell et al., "SDXL", 2023).
    Sizes { mlp: TimeMlp, sizes: Sinusoid, total: usize },
    /// The sequence, pooled by attention.
    Text(Box<Pooling>),
}

impl Parameters for Added {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Sizes { mlp, .. } => mlp.each(path, visit),
            Self::Text(pooling) => pooling.each(path, visit),
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Sizes { mlp, .. } => mlp.each_mut(path, visit),
            Self::Text(pooling) => pooling.each_mut(path, visit),
        }
    }
}

impl Added {
    fn forward(
        &self,
        cond: &Cond,
        encoder: &Tensor<3>,
        image: &Image,
        part: &str,
        pass: &mut Pass,
    ) -> Result<Tensor<2>> {
        let (mlp, sizes, total) = match self {
            Self::Text(pooling) => return pooling.forward(encoder.clone(), pass),
            Self::Sizes { mlp, sizes, total } => (mlp, sizes, *total),
        };
        let batch = encoder.dims()[0];
        let Some(text) = &cond.vector else {
            return Err(Error::unsupported(part, "a pooled text embedding in the condition"));
        };
        let Some(ids) = cond.fields.get(field::TIME_IDS) else {
            return Err(Error::unsupported(part, "a field `time_ids` in the condition"));
        };
        let ids: Vec<f64> = ids.to_rows().into_iter().flatten().collect();
        let text = image.with(text);
        let found = text.dims()[1] + ids.len() / batch * sizes.width;
        if text.dims()[0] != batch || !ids.len().is_multiple_of(batch) || found != total {
            return Err(Error::Shape {
                what: "pooled text embedding and embedded `time_ids`".into(),
                wanted: vec![batch, total],
                found: vec![text.dims()[0], found],
            });
        }
        let embedded = sizes.of(&ids, &image.x);
        let embedded = embedded.reshape([batch, ids.len() / batch * sizes.width]);
        Ok(mlp.forward(Tensor::cat(vec![text, embedded], 1), None))
    }
}

/// A sequence as one vector: its mean asks, and it answers beside its mean (Radford et al.,
/// "Learning transferable visual models from natural language supervision", 2021, section 2.4;
/// diffusers' `TextTimeEmbedding`).
#[derive(Clone, Debug)]
struct Pooling {
    norm1: LayerNorm,
    positional_embedding: Weight,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    proj: Linear,
    norm2: LayerNorm,
    heads: usize,
    site: Site,
}
parameters!(Pooling {
    norm1,
    "pool.positional_embedding" => positional_embedding,
    "pool.q_proj" => q_proj,
    "pool.k_proj" => k_proj,
    "pool.v_proj" => v_proj,
    proj,
    norm2,
});

impl Pooling {
    fn new(maker: &mut Maker<'_>, inputs: usize, outputs: usize, heads: usize) -> Self {
        let device: &Device = maker.device;
        let norm = |maker: &mut Maker<'_>, width: usize, name: &str| {
            LayerNorm::new(width, NORM_EPS, device).at(maker, &format!("add_embedding.{name}"))
        };
        let start = Initial::Normal((inputs as f64).powf(-0.5));
        Self {
            norm1: norm(maker, inputs, "norm1"),
            site: maker.site("add_embedding.pool", SiteKind::Attention),
            norm2: norm(maker, outputs, "norm2"),
            positional_embedding: Weight::new([1, inputs], start, device),
            q_proj: Linear::new(inputs, inputs, device),
            k_proj: Linear::new(inputs, inputs, device),
            v_proj: Linear::new(inputs, inputs, device),
            proj: Linear::new(inputs, outputs, device),
            heads,
        }
    }

    /// `[batch, tokens, inputs]` to `[batch, outputs]`.
    fn forward(&self, x: Tensor<3>, pass: &mut Pass) -> Result<Tensor<2>> {
        let x = self.norm1.run(x, pass)?;
        let place: Tensor<2> = self.positional_embedding.tensor(&x);
        let mean = x.clone().mean_dim(1) + place.unsqueeze::<3>();
        let all = Tensor::cat(vec![mean.clone(), x], 1);
        let q = split_heads(self.q_proj.forward(mean), self.heads);
        let k = split_heads(self.k_proj.forward(all.clone()), self.heads);
        let v = split_heads(self.v_proj.forward(all), self.heads);
        let pooled = merge_heads(attend(pass, &self.site, [q, k, v], None)?);
        let y = self.norm2.run(self.proj.forward(pooled), pass)?;
        let [batch, _, width] = y.dims();
        Ok(y.reshape([batch, width]))
    }
}
