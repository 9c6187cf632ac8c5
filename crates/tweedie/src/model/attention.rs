//! Attention behind its projections, and the attention block of images.

use burn::tensor::{Tensor, activation};
use tweedie_kernels as kernels;

use super::layers::{GroupNorm, Linear};
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::Pass;
use crate::error::Result;
use crate::parameters;
use crate::tap::{Features, Site, SiteKind};

/// Announces an attention and runs it: `q` `[batch, heads, tokens, channels]`, `k` and `v`
/// `[batch, heads, keys, channels]`, and what is added to the scores, to
/// `[batch, heads, tokens, channels]`.
///
/// A tap gets `q`, `k`, `v` and, where there is one, `bias`; it sees `hidden` in the shape of `q`
/// come out, and with it `map`, the weights `[batch, heads, tokens, keys]`, if it asked for them.
///
/// # Errors
///
/// What a tap says.
pub fn attend(
    pass: &mut Pass,
    site: &Site,
    [q, k, v]: [Tensor<4>; 3],
    bias: Option<Tensor<4>>,
) -> Result<Tensor<4>> {
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    if !pass.wants(site) {
        return Ok(kernels::attention(q, k, v, bias, scale));
    }
    let needs_map = pass.needs_map(site);
    let batch = q.dims()[0];
    let mut input = Features::new().with("q", q).with("k", k).with("v", v);
    if let Some(bias) = bias {
        // A tap picks rows, so that each row has its own.
        let [_, heads, tokens, keys] = bias.dims();
        input = input.with("bias", bias.expand([batch, heads, tokens, keys]));
    }
    let mut output = pass.at(site, input, |_, mut input| {
        let (q, k, v) = (input.take::<4>("q")?, input.take::<4>("k")?, input.take::<4>("v")?);
        let bias = if input.has("bias") { Some(input.take::<4>("bias")?) } else { None };
        let map = needs_map.then(|| map(q.clone(), k.clone(), bias.clone(), scale));
        let output = Features::hidden(kernels::attention(q, k, v, bias, scale));
        Ok(match map {
            Some(map) => output.with("map", map),
            None => output,
        })
    })?;
    output.take("hidden")
}

/// The weights of an attention, `[batch, heads, tokens, keys]`.
fn map(q: Tensor<4>, k: Tensor<4>, bias: Option<Tensor<4>>, scale: f64) -> Tensor<4> {
    let scores = q.matmul(k.swap_dims(2, 3)) * scale;
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    activation::softmax(scores, 3)
}

/// `[batch, tokens, heads * channels]` to `[batch, heads, tokens, channels]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}

/// The inverse of [`split_heads`].
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, channels] = x.dims();
    kernels::contiguous(x.swap_dims(1, 2)).reshape([batch, tokens, heads * channels])
}

/// How an [`Attention`] is made.
#[derive(Clone, Copy, Debug)]
pub struct AttentionPlan {
    /// Features of the tokens that ask and of the result.
    pub width: usize,
    /// Features of the tokens that answer; `None` for self-attention.
    pub encoder: Option<usize>,
    /// How many heads.
    pub heads: usize,
    /// Features of a head; heads times these need not be `width`.
    pub head: usize,
    /// Whether query, key and value layers have a bias.
    pub bias: bool,
}

/// Multi-head attention (Vaswani et al. 2017) in the naming of diffusers' `Attention`.
#[derive(Clone, Debug)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    site: Site,
}
parameters!(Attention { to_q, to_k, to_v, "to_out.0" => to_out });

impl Attention {
    /// At `path`; the site is a cross-attention where the plan has an encoder.
    pub fn new(maker: &mut Maker<'_>, path: &str, plan: AttentionPlan) -> Self {
        let kind = match plan.encoder {
            Some(_) => SiteKind::CrossAttention,
            None => SiteKind::Attention,
        };
        let site = maker.site(path, kind);
        let device = maker.device;
        let make = if plan.bias { Linear::new } else { Linear::plain };
        let keys = plan.encoder.unwrap_or(plan.width);
        let inner = plan.heads * plan.head;
        let to_out = Linear::new(inner, plan.width, device);
        Self {
            to_q: make(plan.width, inner, device),
            to_k: make(keys, inner, device),
            to_v: make(keys, inner, device),
            to_out: if maker.zero_ends { to_out.from_zero(device) } else { to_out },
            heads: plan.heads,
            site,
        }
    }

    /// Tokens `[batch, tokens, width]` that attend to `encoder`, or to themselves without one.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(
        &self,
        x: Tensor<3>,
        encoder: Option<Tensor<3>>,
        bias: Option<Tensor<4>>,
        pass: &mut Pass,
    ) -> Result<Tensor<3>> {
        let crossed = encoder.is_some();
        let keys = encoder.unwrap_or_else(|| x.clone());
        let q = split_heads(self.to_q.forward(x), self.heads);
        let project = |keys: Tensor<3>| [self.to_k.forward(keys.clone()), self.to_v.forward(keys)];
        let [k, v] = match crossed {
            true => pass.of_sequence(self, keys, project),
            false => project(keys),
        };
        let (k, v) = (split_heads(k, self.heads), split_heads(v, self.heads));
        let hidden = attend(pass, &self.site, [q, k, v], bias)?;
        Ok(self.to_out.forward(merge_heads(hidden)))
    }

    /// Where it stands.
    pub fn site(&self) -> &Site {
        &self.site
    }
}

/// `[batch, c, h, w]` to tokens `[batch, h * w, c]`.
pub fn to_tokens(x: Tensor<4>) -> Tensor<3> {
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels, height * width]).swap_dims(1, 2)
}

/// Tokens `[batch, h * w, c]` to `[batch, c, h, w]`.
pub fn to_image(x: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [batch, _, channels] = x.dims();
    kernels::contiguous(x.swap_dims(1, 2)).reshape([batch, channels, height, width])
}

/// How a [`PixelAttention`] is made.
#[derive(Clone, Copy, Debug)]
pub struct PixelPlan {
    /// Channels of a head; as many heads as fit.
    pub head: usize,
    /// Groups and epsilon of the norm, where there is one.
    pub norm: Option<(usize, f64)>,
    /// What the output is divided by.
    pub scale: f64,
}

/// Self-attention among the pixels of an image, behind a norm and beside a shortcut (the attention
/// block of Ho et al. 2020).
#[derive(Clone, Debug)]
pub struct PixelAttention {
    group_norm: Option<GroupNorm>,
    attention: Attention,
    scale: f64,
    site: Site,
}
parameters!(PixelAttention { group_norm, "" => attention });

impl PixelAttention {
    /// At `path`, over `channels` channels.
    pub fn new(maker: &mut Maker<'_>, path: &str, channels: usize, plan: &PixelPlan) -> Self {
        let site = maker.site(path, SiteKind::Block);
        let norm = plan.norm.map(|(groups, eps)| {
            let norm = GroupNorm::new(groups, channels, eps, maker.device);
            norm.at(maker, &format!("{path}.group_norm"))
        });
        let attention = AttentionPlan {
            width: channels,
            encoder: None,
            heads: channels / plan.head,
            head: plan.head,
            bias: true,
        };
        let attention = Attention::new(maker, path, attention);
        Self { group_norm: norm, attention, scale: plan.scale, site }
    }

    /// `[batch, c, h, w]`, keeping the shape.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        around(pass, &self.site, x, given, |pass, x, _| {
            let [_, _, height, width] = x.dims();
            let normed = match &self.group_norm {
                Some(norm) => norm.run(x.clone(), None, pass)?,
                None => x.clone(),
            };
            let y = self.attention.forward(to_tokens(normed), None, None, pass)?;
            let sum = x + to_image(y, [height, width]);
            Ok(if self.scale == 1.0 { sum } else { sum / self.scale })
        })
    }
}

impl Sited for PixelAttention {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
        list.extend(self.group_norm.as_ref().and_then(GroupNorm::site).cloned());
        list.push(self.attention.site().clone());
    }
}
