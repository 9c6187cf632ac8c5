//! The body of a U-Net, written recursively: one level holds everything inward of it.

use burn::tensor::Tensor;

use super::attention::{PixelAttention, PixelPlan};
use super::resnet::{Downsample, Resampling, Resnet, ResnetPlan, Upsample, fits};
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
    fn new(maker: &mut Maker<'_>, path: &str, channels: usize, plan: &MixerPlan) -> Self {
        match plan {
            MixerPlan::Pixels(plan) => {
                Self::Pixels(Box::new(PixelAttention::new(maker, path, channels, plan)))
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

/// What mixes the pixels behind a residual block.
#[derive(Clone, Copy, Debug)]
pub enum MixerPlan {
    /// Self-attention.
    Pixels(PixelPlan),
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
    /// What follows each of them on the way down: as many, or none.
    pub down: Vec<MixerPlan>,
    /// What follows each of them on the way up: as many, or none.
    pub up: Vec<MixerPlan>,
    /// The residual blocks on the way down.
    pub down_resnet: ResnetPlan,
    /// The residual blocks on the way up.
    pub up_resnet: ResnetPlan,
    /// How the size is halved behind it.
    pub halves: Resampling,
    /// How the size is doubled behind it.
    pub doubles: Resampling,
}

/// The middle of a U-Net.
#[derive(Clone, Copy, Debug)]
pub struct MidPlan {
    /// Whether a second residual block follows.
    pub second: bool,
    /// What stands between the two.
    pub mixer: Option<MixerPlan>,
    /// What the outputs of the residual blocks are divided by.
    pub scale: f64,
}

/// The body of a U-Net.
#[derive(Clone, Debug)]
pub struct BodyPlan {
    /// The levels, finest first.
    pub levels: Vec<LevelPlan>,
    /// The middle, if there is one.
    pub mid: Option<MidPlan>,
    /// Padding of the convolutions that halve the size: 1 or 0.
    pub downsample_padding: usize,
    /// The residual blocks of the middle.
    pub resnet: ResnetPlan,
}

#[derive(Clone, Debug)]
pub(super) struct Down {
    resnets: Vec<Resnet>,
    attentions: Vec<Mixer>,
    downsamplers: Vec<Downsample>,
    span: Option<Site>,
}
parameters!(Down { resnets, attentions, downsamplers });

#[derive(Clone, Debug)]
pub(super) struct Mid {
    resnets: Vec<Resnet>,
    attentions: Vec<Mixer>,
    span: Option<Site>,
}
parameters!(Mid { resnets, attentions });

#[derive(Clone, Debug)]
struct Up {
    resnets: Vec<Resnet>,
    attentions: Vec<Mixer>,
    upsamplers: Vec<Upsample>,
}
parameters!(Up { resnets, attentions, upsamplers });

impl Down {
    /// Every level of the way down; each announces itself with all inside it where `spans`.
    pub(super) fn all(maker: &mut Maker<'_>, plan: &BodyPlan, spans: bool) -> Vec<Self> {
        let count = plan.levels.len();
        let mut downs = Vec::with_capacity(count);
        let mut inputs = plan.levels.first().map_or(0, |level| level.channels);
        for (i, level) in plan.levels.iter().enumerate() {
            let path = format!("down_blocks.{i}");
            let span = spans.then(|| maker.site(&path, SiteKind::Span));
            let channels = level.channels;
            let (resnets, attentions) = stack(maker, &path, level.layers, &level.down, |j| {
                (if j == 0 { inputs } else { channels }, channels, &level.down_resnet)
            });
            let at = format!("{path}.downsamplers.0");
            let halve = (i + 1 < count).then(|| match level.halves {
                Resampling::Convolution => {
                    Downsample::new(maker, channels, plan.downsample_padding)
                }
                Resampling::Residual => {
                    Downsample::residual(maker, &at, channels, &level.down_resnet)
                }
            });
            downs.push(Self {
                resnets,
                attentions,
                downsamplers: halve.into_iter().collect(),
                span,
            });
            inputs = channels;
        }
        downs
    }

    /// The residual blocks with what follows each; every output is kept behind `skips`.
    pub(super) fn blocks(
        &self,
        x: Tensor<4>,
        given: &Given,
        pass: &mut Pass,
        skips: &mut Vec<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let mut hidden = x;
        for (i, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(hidden, given, pass)?;
            if let Some(mixer) = self.attentions.get(i) {
                hidden = mixer.forward(hidden, given, pass)?;
            }
            skips.push(hidden.clone());
        }
        Ok(hidden)
    }

    /// The layer that halves the size behind this level.
    pub(super) fn halve(&self) -> Option<&Downsample> {
        self.downsamplers.first()
    }

    /// How many residual blocks there are.
    pub(super) fn layers(&self) -> usize {
        self.resnets.len()
    }
}

impl Mid {
    /// The middle, which announces itself where `spans`.
    pub(super) fn new(maker: &mut Maker<'_>, plan: &BodyPlan, spans: bool) -> Option<Self> {
        let mid = plan.mid.as_ref()?;
        let channels = plan.levels.last().map_or(0, |level| level.channels);
        let span = spans.then(|| maker.site("mid_block", SiteKind::Span));
        let resnet_plan = ResnetPlan { scale: mid.scale, ..plan.resnet };
        let resnet = |maker: &mut Maker<'_>, j: usize| {
            let path = format!("mid_block.resnets.{j}");
            Resnet::new(maker, &path, channels, channels, &resnet_plan)
        };
        let mut resnets = vec![resnet(maker, 0)];
        let mixer = mid
            .mixer
            .as_ref()
            .map(|mixer| Mixer::new(maker, "mid_block.attentions.0", channels, mixer));
        if mid.second {
            resnets.push(resnet(maker, 1));
        }
        Some(Self { resnets, attentions: mixer.into_iter().collect(), span })
    }

    pub(super) fn forward(
        &self,
        x: Tensor<4>,
        given: &Given,
        pass: &mut Pass,
    ) -> Result<Tensor<4>> {
        let compute = |pass: &mut Pass, x: Tensor<4>, given: &Given| {
            let mut hidden = x;
            for (i, resnet) in self.resnets.iter().enumerate() {
                hidden = resnet.forward(hidden, given, pass)?;
                if let Some(mixer) = self.attentions.get(i) {
                    hidden = mixer.forward(hidden, given, pass)?;
                }
            }
            Ok(hidden)
        };
        match &self.span {
            Some(span) => around(pass, span, x, given, compute),
            None => compute(pass, x, given),
        }
    }
}

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
        let down_blocks = Down::all(maker, plan, true);
        let mid_block = Mid::new(maker, plan, true);
        let mut inputs = plan.levels.last().map_or(0, |level| level.channels);
        let mut up_blocks = Vec::with_capacity(count);
        for (i, level) in plan.levels.iter().rev().enumerate() {
            let path = format!("up_blocks.{i}");
            let depth = count - 1 - i;
            let channels = level.channels;
            // The last residual block joins the input of the level on its way down.
            let entry = plan.levels[depth.saturating_sub(1)].channels;
            let layers = level.layers + 1;
            let (resnets, attentions) = stack(maker, &path, layers, &level.up, |j| {
                let skip = if j + 1 == layers { entry } else { channels };
                (if j == 0 { inputs } else { channels } + skip, channels, &level.up_resnet)
            });
            let at = format!("{path}.upsamplers.0");
            let double = (depth > 0).then(|| match level.doubles {
                Resampling::Convolution => Upsample::new(maker, channels),
                Resampling::Residual => Upsample::residual(maker, &at, channels, &level.up_resnet),
            });
            up_blocks.push(Up { resnets, attentions, upsamplers: double.into_iter().collect() });
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
        let compute = |pass: &mut Pass, x: Tensor<4>, given: &Given| {
            let [_, _, height, width] = x.dims();
            let mut skips = vec![x.clone()];
            let mut hidden = down.blocks(x, given, pass, &mut skips)?;
            hidden = match down.halve() {
                Some(halve) => {
                    let halved = halve.forward(hidden, given, pass)?;
                    self.level(depth + 1, halved, [height, width], given, pass)?
                }
                None => match &self.mid_block {
                    Some(mid) => mid.forward(hidden, given, pass)?,
                    None => hidden,
                },
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
            match up.upsamplers.first() {
                Some(double) => double.forward(hidden, size, given, pass),
                None => Ok(hidden),
            }
        };
        match &down.span {
            Some(span) => around(pass, span, x, given, compute),
            None => compute(pass, x, given),
        }
    }
}

/// Residual blocks, each with what follows it; `make` gives the channels of block `j`.
fn stack<'p>(
    maker: &mut Maker<'_>,
    path: &str,
    layers: usize,
    plans: &[MixerPlan],
    make: impl Fn(usize) -> (usize, usize, &'p ResnetPlan),
) -> (Vec<Resnet>, Vec<Mixer>) {
    let (mut resnets, mut mixers) = (Vec::new(), Vec::new());
    for j in 0..layers {
        let (inputs, outputs, plan) = make(j);
        let at = format!("{path}.resnets.{j}");
        resnets.push(Resnet::new(maker, &at, inputs, outputs, plan));
        if let Some(mixer) = plans.get(j) {
            let at = format!("{path}.attentions.{j}");
            mixers.push(Mixer::new(maker, &at, outputs, mixer));
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

impl Sited for Down {
    fn sites(&self, list: &mut Vec<Site>) {
        list.extend(self.span.clone());
        stack_sites(&self.resnets, &self.attentions, list);
        self.downsamplers.sites(list);
    }
}

impl Sited for Mid {
    fn sites(&self, list: &mut Vec<Site>) {
        list.extend(self.span.clone());
        stack_sites(&self.resnets, &self.attentions, list);
    }
}

impl Sited for Body {
    fn sites(&self, list: &mut Vec<Site>) {
        self.down_blocks.sites(list);
        if let Some(mid) = &self.mid_block {
            mid.sites(list);
        }
        for up in &self.up_blocks {
            stack_sites(&up.resnets, &up.attentions, list);
            up.upsamplers.sites(list);
        }
    }
}
