//! The transformer block with cross-attention, and its stack over the pixels of an image.

use burn::tensor::Tensor;
use tweedie_kernels::{self as kernels, Activation, Epilogue};

use super::attention::{Attention, AttentionPlan, to_image, to_tokens};
use super::layers::{Conv2d, GroupNorm, LayerNorm, Linear};
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::Pass;
use crate::error::Result;
use crate::parameters;
use crate::tap::{Site, SiteKind};
use crate::weight::{Parameters, Weight};

/// The epsilon of the layer norms, which the published class fixes.
const NORM_EPS: f64 = 1e-5;
/// The epsilon of the group norm before the blocks, which the published class fixes.
const ENTRY_EPS: f64 = 1e-6;

/// Two linear layers with GELU gating between them (GEGLU; Shazeer 2020), four times as wide
/// inside.
#[derive(Clone, Debug)]
pub struct GegluFf {
    entry: Linear,
    exit: Linear,
    site: Site,
}
parameters!(GegluFf { "net.0.proj" => entry, "net.2" => exit });

impl GegluFf {
    /// At `path`, over `width` features.
    pub fn new(maker: &mut Maker<'_>, path: &str, width: usize) -> Self {
        let site = maker.site(path, SiteKind::Ff);
        let entry = Linear::new(width, 8 * width, maker.device);
        let exit = Linear::new(4 * width, width, maker.device);
        let exit = if maker.zero_ends { exit.from_zero(maker.device) } else { exit };
        Self { entry, exit, site }
    }

    /// Tokens, keeping the shape.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<3>, pass: &mut Pass) -> Result<Tensor<3>> {
        around(pass, &self.site, x, &Given::default(), |_, x, _| {
            Ok(self.exit.forward(self.entry.forward_then(x, Epilogue::Gated(Activation::Gelu))))
        })
    }

    /// Where it stands.
    pub fn site(&self) -> &Site {
        &self.site
    }
}

/// How a [`ImageTransformer`] is made.
#[derive(Clone, Copy, Debug)]
pub struct TransformerPlan {
    /// How many heads.
    pub heads: usize,
    /// How many blocks.
    pub layers: usize,
    /// Features of the sequence that is attended to.
    pub encoder: usize,
    /// Groups of the norm before the blocks.
    pub groups: usize,
    /// Whether the projections around the blocks are linear layers rather than 1x1 convolutions.
    pub linear: bool,
    /// Whether the first attention too looks at the sequence.
    pub only_cross: bool,
}

/// Self-attention, cross-attention and a feed-forward layer, each behind a norm and beside a
/// shortcut (Rombach et al. 2022, appendix E.2.1; diffusers' `BasicTransformerBlock`).
#[derive(Clone, Debug)]
pub struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: GegluFf,
    only_cross: bool,
    site: Site,
}
parameters!(TransformerBlock { norm1, attn1, norm2, attn2, norm3, ff });

impl TransformerBlock {
    /// At `path`, over `width` features.
    pub fn new(maker: &mut Maker<'_>, path: &str, width: usize, plan: &TransformerPlan) -> Self {
        let site = maker.site(path, SiteKind::Block);
        let norm = |maker: &mut Maker<'_>, name: &str| {
            let norm = LayerNorm::new(width, NORM_EPS, maker.device);
            norm.at(maker, &format!("{path}.{name}"))
        };
        let cross = AttentionPlan {
            width,
            encoder: Some(plan.encoder),
            heads: plan.heads,
            head: width / plan.heads,
            bias: false,
        };
        let first = AttentionPlan { encoder: cross.encoder.filter(|_| plan.only_cross), ..cross };
        Self {
            norm1: norm(maker, "norm1"),
            attn1: Attention::new(maker, &format!("{path}.attn1"), first),
            norm2: norm(maker, "norm2"),
            attn2: Attention::new(maker, &format!("{path}.attn2"), cross),
            norm3: norm(maker, "norm3"),
            ff: GegluFf::new(maker, &format!("{path}.ff"), width),
            only_cross: plan.only_cross,
            site,
        }
    }

    /// Tokens, keeping the shape.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<3>, given: &Given, pass: &mut Pass) -> Result<Tensor<3>> {
        around(pass, &self.site, x, given, |pass, x, given| {
            let (encoder, bias) = (given.encoder.clone(), given.bias.clone());
            let normed = self.norm1.run(x.clone(), pass)?;
            // As published, the mask of the sequence does not reach the first attention.
            let first = encoder.clone().filter(|_| self.only_cross);
            let x = kernels::add(self.attn1.forward(normed, first, None, pass)?, x);
            let normed = self.norm2.run(x.clone(), pass)?;
            let x = kernels::add(self.attn2.forward(normed, encoder, bias, pass)?, x);
            let normed = self.norm3.run(x.clone(), pass)?;
            Ok(kernels::add(self.ff.forward(normed, pass)?, x))
        })
    }
}

impl Sited for TransformerBlock {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
        let rest = [
            self.norm1.site(),
            Some(self.attn1.site()),
            self.norm2.site(),
            Some(self.attn2.site()),
            self.norm3.site(),
            Some(self.ff.site()),
        ];
        list.extend(rest.into_iter().flatten().cloned());
    }
}

/// The projection into or out of the blocks.
#[derive(Clone, Debug)]
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Parameters for Projection {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Linear(layer) => layer.each(path, visit),
            Self::Conv(layer) => layer.each(path, visit),
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Linear(layer) => layer.each_mut(path, visit),
            Self::Conv(layer) => layer.each_mut(path, visit),
        }
    }
}

/// Transformer blocks over the pixels of an image, behind a norm and beside a shortcut (diffusers'
/// `Transformer2DModel` with continuous input).
#[derive(Clone, Debug)]
pub struct ImageTransformer {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}
parameters!(ImageTransformer { norm, proj_in, transformer_blocks, proj_out });

impl ImageTransformer {
    /// At `path`, over `channels` channels; inside they are as many as the heads divide without
    /// rest.
    pub fn new(maker: &mut Maker<'_>, path: &str, channels: usize, plan: &TransformerPlan) -> Self {
        let device = maker.device;
        let project = |inputs: usize, outputs: usize| {
            if plan.linear {
                Projection::Linear(Linear::new(inputs, outputs, device))
            } else {
                Projection::Conv(Conv2d::new(inputs, outputs, 1, device))
            }
        };
        let inner = channels / plan.heads * plan.heads;
        let (proj_in, proj_out) = (project(channels, inner), project(inner, channels));
        let norm = GroupNorm::new(plan.groups, channels, ENTRY_EPS, device);
        let norm = norm.at(maker, &format!("{path}.norm"));
        let blocks = (0..plan.layers).map(|i| {
            TransformerBlock::new(maker, &format!("{path}.transformer_blocks.{i}"), inner, plan)
        });
        Self { transformer_blocks: blocks.collect(), norm, proj_in, proj_out }
    }

    /// `[batch, c, h, w]`, keeping the shape.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        let [_, _, height, width] = x.dims();
        let normed = self.norm.run(x.clone(), None, pass)?;
        let mut tokens = match &self.proj_in {
            Projection::Linear(layer) => layer.forward(to_tokens(normed)),
            Projection::Conv(layer) => to_tokens(layer.forward(normed)),
        };
        for block in &self.transformer_blocks {
            tokens = block.forward(tokens, given, pass)?;
        }
        let y = match &self.proj_out {
            Projection::Linear(layer) => to_image(layer.forward(tokens), [height, width]),
            Projection::Conv(layer) => layer.forward(to_image(tokens, [height, width])),
        };
        Ok(kernels::add(y, x))
    }
}

impl Sited for ImageTransformer {
    fn sites(&self, list: &mut Vec<Site>) {
        list.extend(self.norm.site().cloned());
        self.transformer_blocks.sites(list);
    }
}
