//! `DiTTransformer2DModel`: a transformer over patches of latents, told the time and a class.

use burn::tensor::{Device, Tensor};
use tweedie_kernels as kernels;

use super::attention::{Attention, AttentionPlan, to_tokens};
use super::config::{Config, DitConfig};
use super::edge::{image, row_times};
use super::embed::{Sinusoid, TimeMlp, classes, lifted};
use super::feed_forward::Ff;
use super::layers::{Conv2d, Embedding, LayerNorm, Linear};
use super::patches;
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::{AskedClass, Asks, Cond, Network, Pass, Times};
use crate::error::{Error, Result};
use crate::parameters;
use crate::state::State;
use crate::tap::{Site, SiteKind};

/// The epsilon of the norms that the published class fixes.
const NORM_EPS: f64 = 1e-6;
/// How each block embeds the time, which the published class fixes.
const SINUSOID: Sinusoid = Sinusoid { width: 256, cos_first: true, shift: 1.0 };

/// Time and class as one vector, in each block anew.
#[derive(Clone, Debug)]
struct Conditioning {
    timestep_embedder: TimeMlp,
    class_embedder: Embedding,
}
parameters!(Conditioning {
    timestep_embedder,
    "class_embedder.embedding_table" => class_embedder,
});

/// Self-attention and a feed-forward layer, whose norms are shifted and scaled and whose results
/// are gated by the conditioning (adaLN-Zero).
#[derive(Clone, Debug)]
struct Block {
    emb: Conditioning,
    linear: Linear,
    norm1: LayerNorm,
    attn1: Attention,
    norm3: LayerNorm,
    ff: Ff,
    site: Site,
}
parameters!(Block { "norm1.emb" => emb, "norm1.linear" => linear, attn1, norm3, ff });

/// A diffusion transformer (Peebles and Xie, "Scalable diffusion models with transformers", 2023).
///
/// Where the condition names no class, the row behind the last class is used, which stands for
/// none. Images may have any size that divides into patches; positions scale to the side that the
/// network was made for.
#[derive(Clone, Debug)]
pub struct DiT {
    config: DitConfig,
    proj: Conv2d,
    transformer_blocks: Vec<Block>,
    norm_out: LayerNorm,
    proj_out_1: Linear,
    proj_out_2: Linear,
}
parameters!(DiT { "pos_embed.proj" => proj, transformer_blocks, proj_out_1, proj_out_2 });

impl DiT {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: DitConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let mut maker = Maker::new("transformer", device);
        let (width, patch) = (config.width(), config.patch_size);
        let classes = config.num_embeds_ada_norm.unwrap_or(0);
        let blocks = (0..config.num_layers).map(|i| {
            let path = format!("transformer_blocks.{i}");
            Block::new(&mut maker, &path, &config, classes)
        });
        let outputs = patch * patch * config.output_channels();
        let blocks = blocks.collect();
        Ok(Self {
            transformer_blocks: blocks,
            norm_out: LayerNorm::bare(NORM_EPS).at(&mut maker, "norm_out"),
            proj: Conv2d::new(config.in_channels, width, patch, device).striding(patch, [0; 4]),
            proj_out_1: Linear::new(width, 2 * width, device).from_zero(device),
            proj_out_2: Linear::new(width, outputs, device).from_zero(device),
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Patches of a side at the size that the network was made for.
    fn base(&self) -> f64 {
        (self.config.sample_size / self.config.patch_size) as f64
    }
}

impl Conditioning {
    /// `[batch, width]`; the classes are within the table.
    fn forward(&self, times: &[f64], classes: &[i64], beside: &Tensor<4>) -> Tensor<2> {
        let time = self.timestep_embedder.forward(SINUSOID.of(times, beside), None);
        time + lifted(self.class_embedder.forward(classes), beside)
    }
}

impl Block {
    fn new(maker: &mut Maker<'_>, path: &str, config: &DitConfig, classes: usize) -> Self {
        let site = maker.site(path, SiteKind::Block);
        let (device, width) = (maker.device, config.width());
        let attention = AttentionPlan {
            width,
            encoder: None,
            heads: config.num_attention_heads,
            head: config.attention_head_dim,
            bias: config.attention_bias,
        };
        let norm1 = LayerNorm::bare(NORM_EPS).at(maker, &format!("{path}.norm1"));
        let attn1 = Attention::new(maker, &format!("{path}.attn1"), attention);
        let norm3 = match config.norm_elementwise_affine {
            true => LayerNorm::new(width, config.norm_eps, device),
            false => LayerNorm::bare(config.norm_eps),
        };
        Self {
            emb: Conditioning {
                timestep_embedder: TimeMlp::new(SINUSOID.width, width, device),
                class_embedder: Embedding::new(classes + 1, width, 0.02, device),
            },
            linear: Linear::new(width, 6 * width, device).from_zero(device),
            norm1,
            attn1,
            norm3: norm3.at(maker, &format!("{path}.norm3")),
            ff: Ff::new(maker, &format!("{path}.ff"), width, config.activation_fn),
            site,
        }
    }

    /// Tokens, keeping the shape; the conditioning is the embedded time.
    fn forward(&self, x: Tensor<3>, given: &Given, pass: &mut Pass) -> Result<Tensor<3>> {
        around(pass, &self.site, x, given, |pass, x, given| {
            let Some(time) = given.time.clone() else {
                return Err(Error::unsupported("transformer", "an embedded time"));
            };
            let [batch, width] = time.dims();
            let six = pass.of_rows(&self.linear, time, |t| self.linear.vectors(kernels::silu(t)));
            let six = six.reshape([batch, 6, width]);
            let part = |i: usize| six.clone().narrow(1, i, 1).reshape([batch, width]);
            let normed = self.norm1.modulated(x.clone(), part(0), part(1), pass)?;
            let y = self.attn1.forward(normed, None, None, pass)?;
            let x = kernels::add_gated(x, y, part(2));
            let normed = self.norm3.modulated(x.clone(), part(3), part(4), pass)?;
            let y = self.ff.forward(normed, pass)?;
            Ok(kernels::add_gated(x, y, part(5)))
        })
    }
}

impl Sited for Block {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
        let rest =
            [self.norm1.site(), Some(self.attn1.site()), self.norm3.site(), Some(self.ff.site())];
        list.extend(rest.into_iter().flatten().cloned());
    }
}

impl Network for DiT {
    fn copied(&self) -> Option<Box<dyn Network>> {
        Some(Box::new(self.clone()))
    }

    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let (config, patch) = (&self.config, self.config.patch_size);
        let image = image(x, config.in_channels, cond, self.proj.weight(), config.dropout)?;
        let batch = image.x.dims()[0];
        let grid = patches::grid(&image.x, patch)?;
        let times = row_times(time, batch, "transformer")?;
        let none = config.num_embeds_ada_norm.unwrap_or(0);
        let classes = classes(cond, batch, none + 1, none as i64)?;
        let positions = patches::positions(grid, config.width(), self.base(), &image.x);
        let mut hidden = to_tokens(self.proj.forward(image.x.clone())) + positions;
        let mut first = None;
        for block in &self.transformer_blocks {
            let time = pass.embedded(&block.emb, times, |times| {
                let classes = classes.repeat(times.len() / batch);
                Ok(block.emb.forward(times, &classes, &image.x))
            })?;
            first = first.or_else(|| Some(time.clone()));
            let given = Given { time: Some(time), ..Given::default() };
            hidden = block.forward(hidden, &given, pass)?;
        }
        let Some(conditioning) = first else {
            return Err(Error::setting("num_layers", "wanted at least 1, found 0"));
        };
        // The end is told what the first block is told.
        let [_, features] = conditioning.dims();
        let exit = |time: Tensor<2>| self.proj_out_1.vectors(kernels::silu(time));
        let two = pass.of_rows(&self.proj_out_1, conditioning, exit);
        let shift = two.clone().narrow(1, 0, features);
        let scale = two.narrow(1, features, features);
        let normed = self.norm_out.modulated(hidden, shift, scale, pass)?;
        let hidden = self.proj_out_2.forward(normed);
        Ok(image.state(patches::joined(hidden, grid, patch)))
    }

    fn sites(&self) -> Vec<Site> {
        let mut list = Vec::new();
        self.transformer_blocks.sites(&mut list);
        list.extend(self.norm_out.site().cloned());
        list
    }

    fn multiple(&self) -> usize {
        self.config.patch_size
    }

    fn asks(&self) -> Asks {
        let classes = self.config.num_embeds_ada_norm.map_or(0, |n| n + 1);
        Asks {
            channels: Some(self.config.in_channels),
            class: AskedClass::Label(classes),
            ..Asks::default()
        }
    }

    fn sample_shape(&self) -> Option<Vec<usize>> {
        let side = self.config.sample_size;
        Some(vec![self.config.in_channels, side, side])
    }
}
