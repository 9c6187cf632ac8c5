//! Layers: weights with the one operation that they are for, named as PyTorch names them.

use burn::tensor::{Device, Tensor, TensorData};
use tweedie_kernels::{self as kernels, Epilogue};

use super::config::Activation;
use super::norms::Moments;
use super::ops;
use super::site::{Given, Maker, around};
use crate::denoiser::Pass;
use crate::error::Result;
use crate::parameters;
use crate::tap::{Site, SiteKind};
use crate::weight::{Initial, Weight};

/// PyTorch's default start of linear and convolution layers.
fn spread(fan_in: usize) -> Initial {
    Initial::Uniform(1.0 / (fan_in as f64).sqrt())
}

/// `x w^T + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Weight>,
}
parameters!(Linear { weight, bias });

impl Linear {
    /// With a bias.
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        let bias = Weight::new([outputs], spread(inputs), device);
        Self { bias: Some(bias), ..Self::plain(inputs, outputs, device) }
    }

    /// Without a bias.
    pub fn plain(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: Weight::new([outputs, inputs], spread(inputs), device), bias: None }
    }

    /// The same layer starting from normal weights of this deviation and a bias of zero.
    #[must_use]
    pub fn from_normal(mut self, std: f64, device: &Device) -> Self {
        self.weight = Weight::new(self.weight.shape(), Initial::Normal(std), device);
        self.bias = self.bias.map(|b| Weight::new(b.shape(), Initial::Zeros, device));
        self
    }

    /// The same layer starting from zero.
    #[must_use]
    pub fn from_zero(mut self, device: &Device) -> Self {
        self.weight = Weight::new(self.weight.shape(), Initial::Zeros, device);
        self.bias = self.bias.map(|b| Weight::new(b.shape(), Initial::Zeros, device));
        self
    }

    /// Tokens `[batch, tokens, in]` to `[batch, tokens, out]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_then(x, Epilogue::Plain)
    }

    /// As [`Linear::forward`], and what follows in the same pass over the outputs.
    pub fn forward_then(&self, x: Tensor<3>, epilogue: Epilogue) -> Tensor<3> {
        ops::linear(x, &self.weight, self.bias.as_ref(), epilogue)
    }

    /// One vector a row: `[batch, in]` to `[batch, out]`.
    pub fn vectors(&self, x: Tensor<2>) -> Tensor<2> {
        let [batch, inputs] = x.dims();
        let y = self.forward(x.reshape([batch, 1, inputs]));
        let outputs = y.dims()[2];
        y.reshape([batch, outputs])
    }

    /// The weight of the layer, `[out, in]`.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }
}

/// A two-dimensional convolution.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Option<Weight>,
    stride: usize,
    padding: [usize; 4],
}
parameters!(Conv2d { weight, bias });

impl Conv2d {
    /// A kernel of odd side `kernel` that keeps the size.
    pub fn new(inputs: usize, outputs: usize, kernel: usize, device: &Device) -> Self {
        let fan = inputs * kernel * kernel;
        Self {
            weight: Weight::new([outputs, inputs, kernel, kernel], spread(fan), device),
            bias: Some(Weight::new([outputs], spread(fan), device)),
            stride: 1,
            padding: [kernel / 2; 4],
        }
    }

    /// The same with another stride and padding (top, bottom, left, right).
    #[must_use]
    pub fn striding(self, stride: usize, padding: [usize; 4]) -> Self {
        Self { stride, padding, ..self }
    }

    /// The same layer starting from zero, where the maker wants that of the ends of residual
    /// branches.
    #[must_use]
    pub fn at_end(mut self, maker: &Maker<'_>) -> Self {
        if maker.zero_ends {
            self.weight = Weight::new(self.weight.shape(), Initial::Zeros, maker.device);
            self.bias = self.bias.map(|b| Weight::new(b.shape(), Initial::Zeros, maker.device));
        }
        self
    }

    /// `[batch, in, h, w]` to `[batch, out, oh, ow]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv2d(x, &self.weight, self.bias.as_ref(), self.stride, self.padding)
    }

    /// As [`Conv2d::forward`] of `x` at the size `[height, width]`, by its nearest pixels.
    pub fn enlarged(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let factor = size[0] / height.max(1);
        if [height * factor, width * factor] != size {
            return self.forward(ops::resize_nearest(x, size));
        }
        let bias = self.bias.as_ref();
        ops::enlarged_conv2d(x, factor, &self.weight, bias, self.stride, self.padding)
    }

    /// The same layer without a bias.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { bias: None, ..self }
    }

    /// The weight of the layer.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }
}

/// Group normalisation of images, with weight and bias.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Weight,
    bias: Weight,
    groups: usize,
    eps: f64,
    site: Option<Site>,
}
parameters!(GroupNorm { weight, bias });

impl GroupNorm {
    /// Over `groups` groups of `channels` channels.
    pub fn new(groups: usize, channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Weight::new([channels], Initial::Ones, device),
            bias: Weight::new([channels], Initial::Zeros, device),
            groups,
            eps,
            site: None,
        }
    }

    /// The same, announced at `path`.
    #[must_use]
    pub fn at(mut self, maker: &mut Maker<'_>, path: &str) -> Self {
        self.site = Some(maker.site(path, SiteKind::Norm));
        self
    }

    /// Where it stands, where it is announced.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_ref()
    }

    /// `[batch, c, h, w]` normalised, announced, and through an activation if there is one.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn run(
        &self,
        x: Tensor<4>,
        activation: Option<Activation>,
        pass: &mut Pass,
    ) -> Result<Tensor<4>> {
        let normed = match &self.site {
            Some(site) if pass.wants(site) => {
                around(pass, site, x, &Given::default(), |_, x, _| Ok(self.forward(x)))?
            }
            _ if activation == Some(Activation::Silu) => return Ok(self.silu(x)),
            _ => self.forward(x),
        };
        Ok(match activation {
            Some(by) => ops::activate(normed, by),
            None => normed,
        })
    }

    /// `[batch, c, h, w]` normalised.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::group_norm(x, self.groups, [&self.weight, &self.bias], self.eps, false)
    }

    /// As [`GroupNorm::forward`], then SiLU.
    pub fn silu(&self, x: Tensor<4>) -> Tensor<4> {
        ops::group_norm(x, self.groups, [&self.weight, &self.bias], self.eps, true)
    }

    /// Its groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// One image `[1, c, h, w]` normalised with given moments, one a group, in place of its own, then
    /// the activation.
    pub fn with_moments(&self, x: Tensor<4>, moments: &[Moments], by: Activation) -> Tensor<4> {
        let channels = x.dims()[1];
        let each = channels / self.groups.max(1);
        let of = |f: &dyn Fn(Moments) -> f64| {
            let values = moments.iter().flat_map(|m| std::iter::repeat_n(f(*m) as f32, each));
            let data = TensorData::new(values.collect::<Vec<f32>>(), [1, channels, 1, 1]);
            Tensor::<4>::from_data(data, &x.device())
        };
        let mean = of(&Moments::mean);
        let spread = of(&|m: Moments| (m.variance() + self.eps).sqrt().recip());
        let shape = [1, channels, 1, 1];
        let scale = self.weight.tensor::<1, 4>(&x).reshape(shape) * spread;
        let shift = self.bias.tensor::<1, 4>(&x).reshape(shape) - mean * scale.clone();
        ops::activate(x * scale + shift, by)
    }
}

/// Layer normalisation of tokens.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Option<Weight>,
    bias: Option<Weight>,
    eps: f64,
    site: Option<Site>,
}
parameters!(LayerNorm { weight, bias });

impl LayerNorm {
    /// Over `channels` channels, with weight and bias.
    pub fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Some(Weight::new([channels], Initial::Ones, device)),
            bias: Some(Weight::new([channels], Initial::Zeros, device)),
            ..Self::bare(eps)
        }
    }

    /// Without weight and bias.
    pub fn bare(eps: f64) -> Self {
        Self { weight: None, bias: None, eps, site: None }
    }

    /// The same, announced at `path`.
    #[must_use]
    pub fn at(mut self, maker: &mut Maker<'_>, path: &str) -> Self {
        self.site = Some(maker.site(path, SiteKind::Norm));
        self
    }

    /// Where it stands, where it is announced.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_ref()
    }

    /// `[batch, tokens, c]` normalised, announced.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn run(&self, x: Tensor<3>, pass: &mut Pass) -> Result<Tensor<3>> {
        match &self.site {
            Some(site) => around(pass, site, x, &Given::default(), |_, x, _| Ok(self.forward(x))),
            None => Ok(self.forward(x)),
        }
    }

    /// As [`LayerNorm::run`], then `normed * (1 + scale) + shift` with a shift and a scale
    /// `[batch, c]` (adaptive layer normalisation): in one pass where no tap asks for what lies between.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn modulated(
        &self,
        x: Tensor<3>,
        shift: Tensor<2>,
        scale: Tensor<2>,
        pass: &mut Pass,
    ) -> Result<Tensor<3>> {
        let watched = self.site.as_ref().is_some_and(|site| pass.wants(site));
        if self.weight.is_none() && !watched {
            return Ok(kernels::layer_norm_modulated(x, shift, scale, self.eps));
        }
        let [batch, channels] = shift.dims();
        let row = |x: Tensor<2>| x.reshape([batch, 1, channels]);
        Ok(self.run(x, pass)? * (row(scale) + 1.0) + row(shift))
    }

    /// `[batch, tokens, c]` normalised.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let affine = self.weight.as_ref().zip(self.bias.as_ref()).map(|(w, b)| [w, b]);
        ops::layer_norm(x, affine, self.eps)
    }
}

/// A table of vectors.
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Weight,
}
parameters!(Embedding { weight });

impl Embedding {
    /// `rows` vectors of `channels` numbers, starting from normal numbers of deviation `std`
    /// (PyTorch's default is 1).
    pub fn new(rows: usize, channels: usize, std: f64, device: &Device) -> Self {
        Self { weight: Weight::new([rows, channels], Initial::Normal(std), device) }
    }

    /// How many vectors there are.
    pub fn rows(&self) -> usize {
        self.weight.shape()[0]
    }

    /// The given rows, `[rows, channels]`; each must be below [`Embedding::rows`].
    pub fn forward(&self, rows: &[i64]) -> Tensor<2> {
        ops::embedding(&self.weight, rows)
    }

    /// The table.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }
}
