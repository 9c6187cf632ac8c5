//! The residual block, and the layers that halve and double an image.

use burn::tensor::Tensor;
use tweedie_kernels as kernels;

use super::layers::{Conv2d, GroupNorm, Linear};
use super::ops;
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::Pass;
use crate::error::{Error, Result};
use crate::parameters;
use crate::tap::{Site, SiteKind};

use super::config::TimeScaleShift;

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
}

/// Two convolutions, each behind a norm and SiLU, beside a shortcut; the time enters between them
/// (diffusers' `ResnetBlock2D`; Ho et al. 2020, with scale and shift Dhariwal and Nichol 2021).
#[derive(Clone, Debug)]
pub struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    shift: TimeScaleShift,
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
        Self {
            norm1: GroupNorm::new(plan.groups, inputs, plan.eps, device),
            conv1: Conv2d::new(inputs, outputs, 3, device),
            time_emb_proj: plan.time.map(|time| Linear::new(time, entry, device)),
            norm2: GroupNorm::new(plan.groups, outputs, plan.eps, device),
            conv2: Conv2d::new(outputs, outputs, 3, device).at_end(maker),
            conv_shortcut: (inputs != outputs).then(|| Conv2d::new(inputs, outputs, 1, device)),
            shift: plan.shift,
            site,
        }
    }

    /// `[batch, in, h, w]` to `[batch, out, h, w]`; a skip is put behind the channels of `x`.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        around(pass, &self.site, x, given, |_, x, given| Ok(self.compute(x, given)))
    }

    fn compute(&self, x: Tensor<4>, given: &Given) -> Tensor<4> {
        let x = match &given.skip {
            Some(skip) => Tensor::cat(vec![x, skip.clone()], 1),
            None => x,
        };
        let hidden = self.conv1.forward(self.norm1.silu(x.clone()));
        let time = match (&self.time_emb_proj, &given.time) {
            (Some(entry), Some(time)) => Some(entry.vectors(kernels::silu(time.clone()))),
            _ => None,
        };
        let hidden = match (time, self.shift) {
            (None, _) => self.norm2.silu(hidden),
            (Some(time), TimeScaleShift::Default) => {
                let [batch, channels] = time.dims();
                self.norm2.silu(hidden + time.reshape([batch, channels, 1, 1]))
            }
            (Some(time), TimeScaleShift::ScaleShift) => {
                let [batch, both] = time.dims();
                let half = both / 2;
                let time = time.reshape([batch, both, 1, 1]);
                let scale = time.clone().narrow(1, 0, half) + 1.0;
                let shift = time.narrow(1, half, half);
                kernels::silu(self.norm2.forward(hidden) * scale + shift)
            }
        };
        let hidden = self.conv2.forward(hidden);
        let x = match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        x + hidden
    }
}

impl Sited for Resnet {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
    }
}

/// A convolution that halves height and width (diffusers' `Downsample2D`).
#[derive(Clone, Debug)]
pub struct Downsample {
    conv: Conv2d,
    padding: usize,
}
parameters!(Downsample { conv });

impl Downsample {
    /// `padding` is 1 on all sides, or 0 for one pixel at the right and the bottom.
    pub fn new(maker: &Maker<'_>, channels: usize, padding: usize) -> Self {
        let sides = if padding == 0 { [0, 1, 0, 1] } else { [padding; 4] };
        let conv = Conv2d::new(channels, channels, 3, maker.device).striding(2, sides);
        Self { conv, padding }
    }

    /// `[batch, c, h, w]` at half the size.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x)
    }

    /// The side that comes out; `None` where the side is too small.
    pub fn side(&self, side: usize) -> Option<usize> {
        let padded = if self.padding == 0 { side + 1 } else { side + 2 * self.padding };
        (padded >= 3).then(|| (padded - 3) / 2 + 1)
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

/// Nearest-neighbour enlargement, then a convolution (diffusers' `Upsample2D`).
#[derive(Clone, Debug)]
pub struct Upsample {
    conv: Conv2d,
}
parameters!(Upsample { conv });

impl Upsample {
    /// Keeps the channels.
    pub fn new(maker: &Maker<'_>, channels: usize) -> Self {
        Self { conv: Conv2d::new(channels, channels, 3, maker.device) }
    }

    /// `[batch, c, h, w]` at the size `[height, width]`.
    pub fn forward(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        self.conv.forward(ops::resize_nearest(x, size))
    }
}
