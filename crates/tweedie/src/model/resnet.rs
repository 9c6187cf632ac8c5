//! The residual block, and the layers that halve and double an image.

use burn::tensor::Tensor;
use tweedie_kernels as kernels;

use super::config::{Activation, TimeScaleShift};
use super::layers::{Conv2d, GroupNorm, Linear};
use super::norms::Moments;
use super::ops;
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::Pass;
use crate::error::{Error, Result};
use crate::parameters;
use crate::tap::{Site, SiteKind};
use crate::weight::{Parameters, Weight};

/// What residual blocks are made from, apart from their channels.
#[derive(Clone, Copy, Debug)]
pub struct ResnetPlan {
    /// Features of the embedded time; `None` where there is none.
    pub time: Option<usize>,
    /// Groups of the norms.
    pub groups: usize,
    /// Epsilon of the norms.
    pub eps: f64,
    /// How the time enters.
    pub shift: TimeScaleShift,
    /// The activation.
    pub activation: Activation,
    /// Whether the embedded time goes through the activation first.
    pub activates_time: bool,
    /// What the output is divided by.
    pub scale: f64,
}

/// How a residual block changes the size of its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resample {
    Keep,
    /// The mean of two by two pixels.
    Halve,
    /// The nearest pixel.
    Enlarge,
}

/// Two convolutions, each behind a norm and an activation, beside a shortcut; the time enters
/// between them (diffusers' `ResnetBlock2D`; Ho et al. 2020, with scale and shift Dhariwal and
/// Nichol 2021).
#[derive(Clone, Debug)]
pub struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    plan: ResnetPlan,
    resample: Resample,
    site: Site,
}
parameters!(Resnet { norm1, conv1, time_emb_proj, norm2, conv2, conv_shortcut });

impl Resnet {
    /// At `path`, from `inputs` to `outputs` channels.
    pub fn new(
        maker: &mut Maker<'_>,
        path: &str,
        inputs: usize,
        outputs: usize,
        plan: &ResnetPlan,
    ) -> Self {
        let site = maker.site(path, SiteKind::Block);
        let device = maker.device;
        let entry = match plan.shift {
            TimeScaleShift::Default => outputs,
            TimeScaleShift::ScaleShift => 2 * outputs,
        };
        let norm = |maker: &mut Maker<'_>, name: &str, channels: usize| {
            let norm = GroupNorm::new(plan.groups, channels, plan.eps, device);
            norm.at(maker, &format!("{path}.{name}"))
        };
        Self {
            norm1: norm(maker, "norm1", inputs),
            conv1: Conv2d::new(inputs, outputs, 3, device),
            time_emb_proj: plan.time.map(|time| Linear::new(time, entry, device)),
            norm2: norm(maker, "norm2", outputs),
            conv2: Conv2d::new(outputs, outputs, 3, device).at_end(maker),
            conv_shortcut: (inputs != outputs).then(|| Conv2d::new(inputs, outputs, 1, device)),
            plan: *plan,
            resample: Resample::Keep,
            site,
        }
    }

    /// `[batch, in, h, w]` to `[batch, out, h, w]`; a skip is put behind the channels of `x`.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        self.forward_to(None, x, given, pass)
    }

    /// As [`Resnet::forward`], enlarged to a size.
    fn forward_to(
        &self,
        size: Option<[usize; 2]>,
        x: Tensor<4>,
        given: &Given,
        pass: &mut Pass,
    ) -> Result<Tensor<4>> {
        around(pass, &self.site, x, given, |pass, x, given| self.compute(size, x, given, pass))
    }

    fn compute(
        &self,
        size: Option<[usize; 2]>,
        x: Tensor<4>,
        given: &Given,
        pass: &mut Pass,
    ) -> Result<Tensor<4>> {
        let act = self.plan.activation;
        let x = match &given.skip {
            Some(skip) => Tensor::cat(vec![x, skip.clone()], 1),
            None => x,
        };
        let hidden = self.norm1.run(x.clone(), Some(act), pass)?;
        let (x, hidden) = (self.resampled(x, size), self.resampled(hidden, size));
        let hidden = self.conv1.forward(hidden);
        let time = match (&self.time_emb_proj, &given.time) {
            (Some(entry), Some(time)) => {
                Some(pass.of_rows(entry, time.clone(), |time| match self.plan.activates_time {
                    true => entry.vectors(ops::activate(time, act)),
                    false => entry.vectors(time),
                }))
            }
            _ => None,
        };
        let hidden = match (time, self.plan.shift) {
            (None, _) => self.norm2.run(hidden, Some(act), pass)?,
            (Some(time), TimeScaleShift::Default) => {
                let [batch, channels] = time.dims();
                let hidden = hidden + time.reshape([batch, channels, 1, 1]);
                self.norm2.run(hidden, Some(act), pass)?
            }
            (Some(time), TimeScaleShift::ScaleShift) => {
                let [batch, both] = time.dims();
                let half = both / 2;
                let time = time.reshape([batch, both, 1, 1]);
                let scale = time.clone().narrow(1, 0, half) + 1.0;
                let shift = time.narrow(1, half, half);
                ops::activate(self.norm2.run(hidden, None, pass)? * scale + shift, act)
            }
        };
        let hidden = self.conv2.forward(hidden);
        let x = match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        let sum = kernels::add(hidden, x);
        Ok(if self.plan.scale == 1.0 { sum } else { sum / self.plan.scale })
    }

    fn resampled(&self, x: Tensor<4>, size: Option<[usize; 2]>) -> Tensor<4> {
        match (self.resample, size) {
            (Resample::Keep, _) => x,
            (Resample::Halve, _) => ops::halve(x),
            (Resample::Enlarge, size) => {
                let [_, _, height, width] = x.dims();
                ops::resize_nearest(x, size.unwrap_or([2 * height, 2 * width]))
            }
        }
    }
}

/// How far a block over a tile got with the moments that it was given.
#[derive(Debug)]
pub enum Staged {
    /// The next norm needs those of this, in so many groups.
    Needs(Tensor<4>, usize),
    /// The result.
    Done(Tensor<4>),
}

impl Resnet {
    /// The block over a tile `[1, in, h, w]`, without a time, as far as the moments of its norms over
    /// the whole image are known.
    pub fn staged(&self, x: Tensor<4>, known: &[Vec<Moments>]) -> Staged {
        let [first, rest @ ..] = known else { return Staged::Needs(x, self.norm1.groups()) };
        let act = self.plan.activation;
        let hidden = self.conv1.forward(self.norm1.with_moments(x.clone(), first, act));
        let [second, ..] = rest else { return Staged::Needs(hidden, self.norm2.groups()) };
        let hidden = self.conv2.forward(self.norm2.with_moments(hidden, second, act));
        let x = match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        Staged::Done(kernels::add(hidden, x) / self.plan.scale)
    }
}

impl Sited for Resnet {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
        list.extend([&self.norm1, &self.norm2].into_iter().filter_map(GroupNorm::site).cloned());
    }
}

/// How the size of an image is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resampling {
    /// By a convolution.
    #[default]
    Convolution,
    /// By a residual block that changes the size inside.
    Residual,
}

/// A layer that halves height and width: a convolution (diffusers' `Downsample2D`) or a residual
/// block over means of pixels.
#[derive(Clone, Debug)]
pub enum Downsample {
    /// A convolution with its padding: 0 stands for one pixel at the right and the bottom.
    Convolution(Halving),
    /// A residual block.
    Residual(Box<Resnet>),
}

/// The convolution of a [`Downsample`].
#[derive(Clone, Debug)]
pub struct Halving {
    conv: Conv2d,
    padding: usize,
}
parameters!(Halving { conv });

impl Downsample {
    /// A convolution; `padding` is 1 on all sides, or 0 for one pixel at the right and the bottom.
    pub fn new(maker: &Maker<'_>, channels: usize, padding: usize) -> Self {
        let sides = if padding == 0 { [0, 1, 0, 1] } else { [padding; 4] };
        let conv = Conv2d::new(channels, channels, 3, maker.device).striding(2, sides);
        Self::Convolution(Halving { conv, padding })
    }

    /// A residual block at `path`.
    pub fn residual(maker: &mut Maker<'_>, path: &str, channels: usize, plan: &ResnetPlan) -> Self {
        let resnet = Resnet::new(maker, path, channels, channels, plan);
        Self::Residual(Box::new(Resnet { resample: Resample::Halve, ..resnet }))
    }

    /// `[batch, c, h, w]` at half the size.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        match self {
            Self::Convolution(halving) => Ok(halving.conv.forward(x)),
            Self::Residual(resnet) => resnet.forward(x, given, pass),
        }
    }

    /// The side that comes out; `None` where the side is too small.
    pub fn side(&self, side: usize) -> Option<usize> {
        match self {
            Self::Convolution(Halving { padding, .. }) => {
                let padded = if *padding == 0 { side + 1 } else { side + 2 * padding };
                (padded >= 3).then(|| (padded - 3) / 2 + 1)
            }
            Self::Residual(_) => (side >= 2).then_some(side / 2),
        }
    }
}

impl Sited for Downsample {
    fn sites(&self, list: &mut Vec<Site>) {
        if let Self::Residual(resnet) = self {
            resnet.sites(list);
        }
    }
}

impl Parameters for Downsample {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Convolution(part) => part.each(path, visit),
            Self::Residual(part) => part.each(path, visit),
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Convolution(part) => part.each_mut(path, visit),
            Self::Residual(part) => part.each_mut(path, visit),
        }
    }
}

/// Checks that an image of this height and width can be halved by all of these.
///
/// # Errors
///
/// [`Error::Unsupported`], which names `part` and the size.
pub fn fits<'a>(
    part: &str,
    layers: impl IntoIterator<Item = &'a Downsample>,
    size: [usize; 2],
) -> Result<()> {
    let mut sides = size;
    for halve in layers {
        let [Some(height), Some(width)] = sides.map(|side| halve.side(side)) else {
            let [height, width] = size;
            let needs = format!("an image larger than {height} by {width} pixels");
            return Err(Error::unsupported(part, needs));
        };
        sides = [height, width];
    }
    Ok(())
}

/// A layer that enlarges an image by its nearest pixels: before a convolution (diffusers'
/// `Upsample2D`) or inside a residual block.
#[derive(Clone, Debug)]
pub enum Upsample {
    /// Before a convolution.
    Convolution(Doubling),
    /// A residual block.
    Residual(Box<Resnet>),
}

/// The convolution of an [`Upsample`].
#[derive(Clone, Debug)]
pub struct Doubling {
    conv: Conv2d,
}
parameters!(Doubling { conv });

impl Upsample {
    /// A convolution that keeps the channels.
    pub fn new(maker: &Maker<'_>, channels: usize) -> Self {
        Self::Convolution(Doubling { conv: Conv2d::new(channels, channels, 3, maker.device) })
    }

    /// A residual block at `path`.
    pub fn residual(maker: &mut Maker<'_>, path: &str, channels: usize, plan: &ResnetPlan) -> Self {
        let resnet = Resnet::new(maker, path, channels, channels, plan);
        Self::Residual(Box::new(Resnet { resample: Resample::Enlarge, ..resnet }))
    }

    /// `[batch, c, h, w]` at the size `[height, width]`.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(
        &self,
        x: Tensor<4>,
        size: [usize; 2],
        given: &Given,
        pass: &mut Pass,
    ) -> Result<Tensor<4>> {
        match self {
            Self::Convolution(part) => Ok(part.conv.enlarged(x, size)),
            Self::Residual(resnet) => resnet.forward_to(Some(size), x, given, pass),
        }
    }
}

impl Sited for Upsample {
    fn sites(&self, list: &mut Vec<Site>) {
        if let Self::Residual(resnet) = self {
            resnet.sites(list);
        }
    }
}

impl Parameters for Upsample {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Convolution(part) => part.each(path, visit),
            Self::Residual(part) => part.each(path, visit),
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Convolution(part) => part.each_mut(path, visit),
            Self::Residual(part) => part.each_mut(path, visit),
        }
    }
}
