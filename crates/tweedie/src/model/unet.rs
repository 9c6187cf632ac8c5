//! The body of a U-Net, written recursively: one level holds everything inward of it.

use burn::tensor::Tensor;

use super::attention::PixelAttention;
use super::resnet::{Downsample, Resnet, ResnetPlan, Upsample, fits};
use super::site::{Given, Maker, Sited, around};
use super::transformer::{ImageTransformer, TransformerPlan};
use crate::denoiser::Pass;
use crate::error::Result;
use crate::parameters;
use crate::tap::{Site, SiteKind};
use crate::weight::{Parameters, Weight};

/// What mixes the pixels behind a residual block.
#[derive(Clone, Debug)]
enum Mixer {
    Pixels(Box<PixelAttention>),
    Transformer(Box<ImageTransformer>),
}

impl Mixer {
    fn new(
        maker: &mut Maker<'_>,
        path: &str,
        channels: usize,
        plan: &MixerPlan,
        resnet: &ResnetPlan,
    ) -> Self {
        match plan {
            MixerPlan::Pixels { head, norm } => {
                let norm = norm.then_some((resnet.groups, resnet.eps));
                Self::Pixels(Box::new(PixelAttention::new(maker, path, channels, *head, norm)))
            }
            MixerPlan::Transformer(plan) => {
                Self::Transformer(Box::new(ImageTransformer::new(maker, path, channels, plan)))
            }
        }
    }

    fn forward(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        match self {
            Self::Pixels(part) => part.forward(x, given, pass),
            Self::Transformer(part) => part.forward(x, given, pass),
        }
    }
}

impl Sited for Mixer {
    fn sites(&self, list: &mut Vec<Site>) {
        match self {
            Self::Pixels(part) => part.sites(list),
            Self::Transformer(part) => part.sites(list),
        }
    }
}

impl Parameters for Mixer {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Pixels(part) => part.each(path, visit),
            Self::Transformer(part) => part.each(path, visit),
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Pixels(part) => part.each_mut(path, visit),
            Self::Transformer(part) => part.each_mut(path, visit),
        }
    }
}

/// What mixes the pixels behind each residual block of a level.
#[derive(Clone, Copy, Debug)]
pub enum MixerPlan {
    /// Self-attention.
    Pixels {
        /// Channels of a head.
        head: usize,
        /// Whether it has a norm.
        norm: bool,
    },
    /// A transformer with cross-attention.
    Transformer(TransformerPlan),
}

/// One level of the network.
#[derive(Clone, Debug)]
pub struct LevelPlan {
    /// Its channels.
    pub channels: usize,
    /// Residual blocks on the way down; one more on the way up.
    pub layers: usize,
    /// What follows each of them on the way down.
    pub down: Option<MixerPlan>,
    /// What follows each of them on the way up.
    pub up: Option<MixerPlan>,
}

/// The body of a U-Net.
#[derive(Clone, Debug)]
pub struct BodyPlan {
    /// The levels, finest first.
    pub levels: Vec<LevelPlan>,
    /// Whether there is a middle.
    pub mid: bool,
    /// What stands between the two residual blocks of the middle.
    pub mid_mixer: Option<MixerPlan>,
    /// Padding of the convolutions that halve the size: 1 or 0.
    pub downsample_padding: usize,
    /// The residual blocks.
    pub resnet: ResnetPlan,
}

#[derive(Clone, Debug)]
struct Down {
    resnets: Vec<Resnet>,
    attentions: Vec<Mixer>,
    downsamplers: Vec<Downsample>,
    span: Site,
}
parameters!(Down { resnets, attentions, downsamplers });

#[derive(Clone, Debug)]
struct Mid {
    resnets: Vec<Resnet>,
    attentions: Vec<Mixer>,
    span: Site,
}
parameters!(Mid { resnets, attentions });

#[derive(Clone, Debug)]
struct Up {
    resnets: Vec<Resnet>,
    attentions: Vec<Mixer>,
    upsamplers: Vec<Upsample>,
}
parameters!(Up { resnets, attentions, upsamplers });

/// Everything between the first and the last convolution of a U-Net.
///
/// Level `d` takes its input, runs its residual blocks, hands a halved image to level `d + 1` and
/// joins what comes back with its own images on the way up. Each level with all inside it is a
/// [`SiteKind::Span`] of depth `d`; the middle is the innermost.
#[derive(Clone, Debug)]
pub struct Body {
    down_blocks: Vec<Down>,
    mid_block: Option<Mid>,
    up_blocks: Vec<Up>,
}
parameters!(Body { down_blocks, mid_block, up_blocks });

impl Body {
    /// Builds every part in the order in which it runs.
    pub fn new(maker: &mut Maker<'_>, plan: &BodyPlan) -> Self {
        let count = plan.levels.len();
        let mut down_blocks = Vec::with_capacity(count);
        let mut inputs = plan.levels.first().map_or(0, |level| level.channels);
        for (i, level) in plan.levels.iter().enumerate() {
            let path = format!("down_blocks.{i}");
            let span = maker.site(&path, SiteKind::Span);
            let (resnets, attentions) = stack(maker, &path, level.layers, level.down, |j| {
                (if j == 0 { inputs } else { level.channels }, level.channels, &plan.resnet)
            });
            let halve = || Downsample::new(maker, level.channels, plan.downsample_padding);
            let downsamplers = if i + 1 < count { vec![halve()] } else { Vec::new() };
            down_blocks.push(Down { resnets, attentions, downsamplers, span });
            inputs = level.channels;
        }
        let mid_block = plan.mid.then(|| {
            let span = maker.site("mid_block", SiteKind::Span);
            let resnet = |maker: &mut Maker<'_>, j: usize| {
                let path = format!("mid_block.resnets.{j}");
                Resnet::new(maker, &path, inputs, inputs, &plan.resnet)
            };
            let first = resnet(maker, 0);
            let mixer = plan.mid_mixer.as_ref().map(|mixer| {
                Mixer::new(maker, "mid_block.attentions.0", inputs, mixer, &plan.resnet)
            });
            let last = resnet(maker, 1);
            Mid { resnets: vec![first, last], attentions: mixer.into_iter().collect(), span }
        });
        let mut up_blocks = Vec::with_capacity(count);
        for (i, level) in plan.levels.iter().rev().enumerate() {
            let path = format!("up_blocks.{i}");
            let depth = count - 1 - i;
            let channels = level.channels;
            // The last residual block joins the input of the level on its way down.
            let entry = plan.levels[depth.saturating_sub(1)].channels;
            let layers = level.layers + 1;
            let (resnets, attentions) = stack(maker, &path, layers, level.up, |j| {
                let skip = if j + 1 == layers { entry } else { channels };
                (if j == 0 { inputs } else { channels } + skip, channels, &plan.resnet)
            });
            let upsamplers =
                if depth > 0 { vec![Upsample::new(maker, channels)] } else { Vec::new() };
            up_blocks.push(Up { resnets, attentions, upsamplers });
            inputs = channels;
        }
        Self { down_blocks, mid_block, up_blocks }
    }

    /// `[batch, c, h, w]`, keeping the shape, with `c` the channels of the first level.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub fn forward(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        self.level(0, x, [0; 2], given, pass)
    }

    /// Checks that an image of this height and width can be halved as often as needed.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Unsupported`].
    pub fn fits(&self, size: [usize; 2]) -> Result<()> {
        let halve = self.down_blocks.iter().flat_map(|down| &down.downsamplers);
        fits("unet", halve, size)
    }

    /// Level `depth` and all inside it; `size` is that of the level around it, to which the result
    /// is enlarged.
    fn level(
        &self,
        depth: usize,
        x: Tensor<4>,
        size: [usize; 2],
        given: &Given,
        pass: &mut Pass,
    ) -> Result<Tensor<4>> {
        let down = &self.down_blocks[depth];
        let up = &self.up_blocks[self.up_blocks.len() - 1 - depth];
        around(pass, &down.span, x, given, |pass, x, given| {
            let [_, _, height, width] = x.dims();
            let mut skips = vec![x.clone()];
            let mut hidden = x;
            for (i, resnet) in down.resnets.iter().enumerate() {
                hidden = resnet.forward(hidden, given, pass)?;
                if let Some(mixer) = down.attentions.get(i) {
                    hidden = mixer.forward(hidden, given, pass)?;
                }
                skips.push(hidden.clone());
            }
            hidden = match down.downsamplers.first() {
                Some(halve) => {
                    self.level(depth + 1, halve.forward(hidden), [height, width], given, pass)?
                }
                None => self.middle(hidden, given, pass)?,
            };
            for (i, resnet) in up.resnets.iter().enumerate() {
                hidden = match skips.pop() {
                    Some(skip) => resnet.forward(hidden, &given.with_skip(skip), pass)?,
                    None => resnet.forward(hidden, given, pass)?,
                };
                if let Some(mixer) = up.attentions.get(i) {
                    hidden = mixer.forward(hidden, given, pass)?;
                }
            }
            Ok(match up.upsamplers.first() {
                Some(double) => double.forward(hidden, size),
                None => hidden,
            })
        })
    }

    fn middle(&self, x: Tensor<4>, given: &Given, pass: &mut Pass) -> Result<Tensor<4>> {
        let Some(mid) = &self.mid_block else { return Ok(x) };
        around(pass, &mid.span, x, given, |pass, x, given| {
            let mut hidden = x;
            for (i, resnet) in mid.resnets.iter().enumerate() {
                hidden = resnet.forward(hidden, given, pass)?;
                if let Some(mixer) = mid.attentions.get(i) {
                    hidden = mixer.forward(hidden, given, pass)?;
                }
            }
            Ok(hidden)
        })
    }
}

/// Residual blocks, each with what follows it; `make` gives the channels of block `j`.
fn stack<'p>(
    maker: &mut Maker<'_>,
    path: &str,
    layers: usize,
    mixer: Option<MixerPlan>,
    make: impl Fn(usize) -> (usize, usize, &'p ResnetPlan),
) -> (Vec<Resnet>, Vec<Mixer>) {
    let (mut resnets, mut mixers) = (Vec::new(), Vec::new());
    for j in 0..layers {
        let (inputs, outputs, plan) = make(j);
        let at = format!("{path}.resnets.{j}");
        resnets.push(Resnet::new(maker, &at, inputs, outputs, plan));
        if let Some(mixer) = &mixer {
            let at = format!("{path}.attentions.{j}");
            mixers.push(Mixer::new(maker, &at, outputs, mixer, plan));
        }
    }
    (resnets, mixers)
}

/// Adds the sites of residual blocks and what follows them.
fn stack_sites(resnets: &[Resnet], mixers: &[Mixer], list: &mut Vec<Site>) {
    for (i, resnet) in resnets.iter().enumerate() {
        resnet.sites(list);
        if let Some(mixer) = mixers.get(i) {
            mixer.sites(list);
        }
    }
}

impl Sited for Body {
    fn sites(&self, list: &mut Vec<Site>) {
        for down in &self.down_blocks {
            list.push(down.span.clone());
            stack_sites(&down.resnets, &down.attentions, list);
        }
        if let Some(mid) = &self.mid_block {
            list.push(mid.span.clone());
            stack_sites(&mid.resnets, &mid.attentions, list);
        }
        for up in &self.up_blocks {
            stack_sites(&up.resnets, &up.attentions, list);
        }
    }
}
