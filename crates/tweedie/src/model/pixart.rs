//! `PixArtTransformer2DModel`: a transformer over patches that is told the time through its norms
//! and attends to a text.

use burn::tensor::{Device, Tensor};
use tweedie_kernels as kernels;

use super::attention::{Attention, AttentionPlan, to_tokens};
use super::config::{Activation, Config, PixArtConfig};
use super::edge::{Image, image, row_times, sequence};
use super::embed::{Sinusoid, TimeMlp};
use super::feed_forward::Ff;
use super::layers::{Conv2d, LayerNorm, Linear};
use super::patches;
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::{Asks, Cond, Network, Pass, Times};
use crate::error::{Error, Result};
use crate::parameters;
use crate::state::State;
use crate::tap::{Site, SiteKind};
use crate::weight::{Initial, Weight};

/// The epsilon of the last norm, which the published class fixes.
const NORM_EPS: f64 = 1e-6;
/// How the time is embedded, which the published class fixes.
const SINUSOID: Sinusoid = Sinusoid { width: 256, cos_first: true, shift: 0.0 };
/// Shift, scale and gate of the attention, and of the feed-forward layer.
const SIX: usize = 6;

/// Self-attention, cross-attention and a feed-forward layer. The six vectors of the time are those
/// of all blocks plus a table of the block's own (adaLN-single; Chen et al. 2023, section 2.3).
#[derive(Clone, Debug)]
struct Block {
    scale_shift_table: Weight,
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    ff: Ff,
    site: Site,
}
parameters!(Block { scale_shift_table, attn1, attn2, ff });

/// PixArt-alpha's transformer (Chen et al., "PixArt-alpha: fast training of diffusion transformer
/// for photorealistic text-to-image synthesis", arXiv:2310.00426).
///
/// Images may have any size that divides into patches; positions scale to the side that the network
/// was made for.
#[derive(Clone, Debug)]
pub struct PixArt {
    config: PixArtConfig,
    proj: Conv2d,
    timestep_embedder: TimeMlp,
    linear: Linear,
    caption: Option<TimeMlp>,
    transformer_blocks: Vec<Block>,
    norm_out: LayerNorm,
    scale_shift_table: Weight,
    proj_out: Linear,
}
parameters!(PixArt {
    "pos_embed.proj" => proj,
    "adaln_single.emb.timestep_embedder" => timestep_embedder,
    "adaln_single.linear" => linear,
    "caption_projection" => caption,
    transformer_blocks,
    scale_shift_table,
    proj_out,
});

impl PixArt {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: PixArtConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let mut maker = Maker::new("transformer", device);
        let (width, patch) = (config.width(), config.patch_size);
        let blocks = (0..config.num_layers)
            .map(|i| Block::new(&mut maker, &format!("transformer_blocks.{i}"), &config));
        let blocks = blocks.collect();
        let caption = config.caption_channels.map(|from| {
            TimeMlp::new(from, width, device).with_activations(Activation::GeluTanh, None)
        });
        let outputs = patch * patch * config.output_channels();
        Ok(Self {
            proj: Conv2d::new(config.in_channels, width, patch, device).striding(patch, [0; 4]),
            timestep_embedder: TimeMlp::new(SINUSOID.width, width, device),
            linear: Linear::new(width, SIX * width, device),
            caption,
            transformer_blocks: blocks,
            norm_out: LayerNorm::bare(NORM_EPS).at(&mut maker, "norm_out"),
            scale_shift_table: table(2, width, device),
            proj_out: Linear::new(width, outputs, device).from_zero(device),
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &PixArtConfig {
        &self.config
    }

    /// Features of the sequence that comes with the condition.
    fn context(&self) -> usize {
        self.config.caption_channels.unwrap_or(self.config.cross_width())
    }

    /// The sequence as the blocks attend to it, and what is added to the scores.
    fn told(&self, cond: &Cond, image: &Image) -> Result<(Tensor<3>, Option<Tensor<4>>)> {
        let (context, bias) = sequence(cond, image, self.context(), "transformer")?;
        let Some(caption) = &self.caption else { return Ok((context, bias)) };
        let [batch, tokens, features] = context.dims();
        let projected = caption.forward(context.reshape([batch * tokens, features]), None);
        Ok((projected.reshape([batch, tokens, self.config.width()]), bias))
    }
}

/// A table of vectors that are added to those of the time.
fn table(rows: usize, width: usize, device: &Device) -> Weight {
    Weight::new([rows, width], Initial::Normal((width as f64).sqrt().recip()), device)
}

impl Block {
    fn new(maker: &mut Maker<'_>, path: &str, config: &PixArtConfig) -> Self {
        let site = maker.site(path, SiteKind::Block);
        let (device, width) = (maker.device, config.width());
        let plan = AttentionPlan {
            width,
            encoder: None,
            heads: config.num_attention_heads,
            head: config.attention_head_dim,
            bias: config.attention_bias,
        };
        let norm = |maker: &mut Maker<'_>, name: &str| {
            let norm = match config.norm_elementwise_affine {
                true => LayerNorm::new(width, config.norm_eps, device),
                false => LayerNorm::bare(config.norm_eps),
            };
            norm.at(maker, &format!("{path}.{name}"))
        };
        let norm1 = norm(maker, "norm1");
        let attn1 = Attention::new(maker, &format!("{path}.attn1"), plan);
        // As published, what comes in from the text starts at zero; the gates start near it.
        maker.zero_ends = true;
        let cross = AttentionPlan { encoder: Some(config.cross_width()), ..plan };
        let attn2 = Attention::new(maker, &format!("{path}.attn2"), cross);
        maker.zero_ends = false;
        Self {
            scale_shift_table: table(SIX, width, device),
            norm1,
            attn1,
            attn2,
            norm2: norm(maker, "norm2"),
            ff: Ff::new(maker, &format!("{path}.ff"), width, config.activation_fn),
            site,
        }
    }

    /// Tokens, keeping the shape; what is given as the time are the six vectors side by side.
    fn forward(&self, x: Tensor<3>, given: &Given, pass: &mut Pass) -> Result<Tensor<3>> {
        around(pass, &self.site, x, given, |pass, x, given| {
            let Some(time) = given.time.clone() else {
                return Err(Error::unsupported("transformer", "an embedded time"));
            };
            let [batch, features] = time.dims();
            let own: Tensor<2> = self.scale_shift_table.tensor(&time);
            let width = features / SIX;
            let six = time.reshape([batch, SIX, width]) + own.unsqueeze::<3>();
            let part = |i: usize| six.clone().narrow(1, i, 1).reshape([batch, width]);
            let normed = self.norm1.modulated(x.clone(), part(0), part(1), pass)?;
            let y = self.attn1.forward(normed, None, None, pass)?;
            let x = kernels::add_gated(x, y, part(2));
            // As published, without a norm before it.
            let (encoder, bias) = (given.encoder.clone(), given.bias.clone());
            let x = kernels::add(self.attn2.forward(x.clone(), encoder, bias, pass)?, x);
            let normed = self.norm2.modulated(x.clone(), part(3), part(4), pass)?;
            let y = self.ff.forward(normed, pass)?;
            Ok(kernels::add_gated(x, y, part(5)))
        })
    }
}

impl Sited for Block {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
        let rest = [
            self.norm1.site(),
            Some(self.attn1.site()),
            Some(self.attn2.site()),
            self.norm2.site(),
            Some(self.ff.site()),
        ];
        list.extend(rest.into_iter().flatten().cloned());
    }
}

impl Network for PixArt {
    fn copied(&self) -> Option<Box<dyn Network>> {
        Some(Box::new(self.clone()))
    }

    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let (config, patch) = (&self.config, self.config.patch_size);
        let image = image(x, config.in_channels, cond, self.proj.weight(), config.dropout)?;
        let batch = image.x.dims()[0];
        let grid = patches::grid(&image.x, patch)?;
        let times = row_times(time, batch, "transformer")?;
        let (encoder, bias) = self.told(cond, &image)?;
        let embedded = pass.embedded(self, times, |times| {
            Ok(self.timestep_embedder.forward(SINUSOID.of(times, &image.x), None))
        })?;
        let into_six = |time: Tensor<2>| self.linear.vectors(kernels::silu(time));
        let six = pass.of_rows(&self.linear, embedded.clone(), into_six);
        let given = Given { time: Some(six), encoder: Some(encoder), bias, skip: None };
        let positions = patches::positions(grid, config.width(), config.base(), &image.x);
        let mut hidden = to_tokens(self.proj.forward(image.x.clone())) + positions;
        for block in &self.transformer_blocks {
            hidden = block.forward(hidden, &given, pass)?;
        }
        let own: Tensor<2> = self.scale_shift_table.tensor(&embedded);
        let two = embedded.unsqueeze_dim::<3>(1) + own.unsqueeze::<3>();
        let width = two.dims()[2];
        let part = |i: usize| two.clone().narrow(1, i, 1).reshape([batch, width]);
        let normed = self.norm_out.modulated(hidden, part(0), part(1), pass)?;
        let hidden = self.proj_out.forward(normed);
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
        Asks {
            channels: Some(self.config.in_channels),
            context: Some(self.context()),
            ..Asks::default()
        }
    }

    fn sample_shape(&self) -> Option<Vec<usize>> {
        let side = self.config.sample_size;
        Some(vec![self.config.in_channels, side, side])
    }
}
