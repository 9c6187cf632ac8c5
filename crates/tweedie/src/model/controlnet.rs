//! `ControlNetModel`: the first half of a U-Net, which looks at a picture and says what to add to
//! the skip connections of the whole one.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::conditioning::Conditioning;
use super::config::{Activation, ChannelOrder, Config, ControlNetConfig};
use super::edge::{image, row_times};
use super::embed::lifted;
use super::layers::Conv2d;
use super::ops;
use super::resnet::fits;
use super::site::{Maker, Sited};
use super::unet::{Down, Mid};
use super::unet2d_condition::body;
use crate::denoiser::{Asks, Branch, Cond, Network, Pass, Row, Times, field};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::parameters;
use crate::state::State;
use crate::tap::{Feature, Features, SharedTap, Site, SiteKind, Tap};
use crate::weight::{Parameters, Weight};

/// A picture brought to the size of the latents: convolutions with SiLU between them.
#[derive(Clone, Debug)]
struct Hint {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}
parameters!(Hint { conv_in, blocks, conv_out });

impl Hint {
    fn new(maker: &Maker<'_>, config: &ControlNetConfig) -> Self {
        let device = maker.device;
        let channels = &config.conditioning_embedding_out_channels;
        let mut blocks = Vec::new();
        for pair in channels.windows(2) {
            blocks.push(Conv2d::new(pair[0], pair[0], 3, device));
            blocks.push(Conv2d::new(pair[0], pair[1], 3, device).striding(2, [1; 4]));
        }
        let last = channels[channels.len() - 1];
        Self {
            conv_in: Conv2d::new(config.conditioning_channels, channels[0], 3, device),
            blocks,
            conv_out: Conv2d::new(last, config.block_out_channels[0], 3, device).at_end(maker),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = ops::activate(self.conv_in.forward(x), Activation::Silu);
        for block in &self.blocks {
            x = ops::activate(block.forward(x), Activation::Silu);
        }
        self.conv_out.forward(x)
    }
}

/// A control network (Zhang et al., "Adding conditional control to text-to-image diffusion models",
/// 2023, in the form of diffusers' `ControlNetModel`).
#[derive(Clone, Debug)]
pub struct ControlNet {
    config: ControlNetConfig,
    conv_in: Conv2d,
    conditioning: Conditioning,
    hint: Hint,
    down_blocks: Vec<Down>,
    controlnet_down_blocks: Vec<Conv2d>,
    mid_block: Mid,
    controlnet_mid_block: Conv2d,
}
parameters!(ControlNet {
    conv_in,
    "" => conditioning,
    "controlnet_cond_embedding" => hint,
    down_blocks,
    controlnet_down_blocks,
    mid_block,
    controlnet_mid_block,
});

/// What is added to the skip connections of a U-Net, first to last, and to what comes out of its
/// middle; each `[batch, channels, height, width]`, or of one pixel for all.
#[derive(Clone, Debug)]
pub struct Residuals {
    /// For each skip connection, in the order in which they are made.
    pub down: Vec<Tensor<4>>,
    /// For the middle.
    pub mid: Tensor<4>,
}

impl ControlNet {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: ControlNetConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let unet = config.unet();
        let first = config.block_out_channels[0];
        let mut maker = Maker::new("controlnet", device);
        maker.zero_ends = true;
        // As published, classes as times have SiLU here whatever the other layers have.
        let conditioning = Conditioning::new(&mut maker, &unet, Activation::Silu, "controlnet")?;
        let plan = body(&unet)?;
        let down_blocks = Down::all(&mut maker, &plan, false);
        let Some(mid_block) = Mid::new(&mut maker, &plan, false) else {
            return Err(Error::setting("mid_block_type", "wanted a middle, found none"));
        };
        let point = |channels: usize| Conv2d::new(channels, channels, 1, device).at_end(&maker);
        let mut points = vec![point(first)];
        for (down, level) in down_blocks.iter().zip(&plan.levels) {
            let outputs = down.layers() + usize::from(down.halve().is_some());
            points.extend((0..outputs).map(|_| point(level.channels)));
        }
        let last = plan.levels.last().map_or(first, |level| level.channels);
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, 3, device),
            conditioning,
            hint: Hint::new(&maker, &config),
            down_blocks,
            controlnet_down_blocks: points,
            mid_block,
            controlnet_mid_block: point(last),
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// What it wants to find in a condition, besides the picture.
    pub fn asks(&self) -> Asks {
        Asks { channels: Some(self.config.in_channels), ..self.conditioning.asks() }
    }

    /// Every site, in order.
    pub fn sites(&self) -> Vec<Site> {
        let mut list = Vec::new();
        self.conditioning.sites(&mut list);
        self.down_blocks.sites(&mut list);
        self.mid_block.sites(&mut list);
        list
    }

    /// What to add for a state, a time, a condition and a picture `[batch, channels, height,
    /// width]`, which is larger than the state by [`ControlNetConfig::downsampling`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] or [`Error::Unsupported`] where something does not fit; what a tap says.
    pub fn forward(
        &self,
        x: &State,
        time: &Times,
        cond: &Cond,
        picture: &Tensor<4>,
        pass: &mut Pass,
    ) -> Result<Residuals> {
        let image = image(x, self.config.in_channels, cond, self.conv_in.weight(), 0.0)?;
        let [batch, _, height, width] = image.x.dims();
        fits("controlnet", self.down_blocks.iter().filter_map(Down::halve), [height, width])?;
        let times = row_times(time, batch, "controlnet")?;
        let given = self.conditioning.given(times, cond, &image, pass)?;
        let picture = self.picture(image.with(picture), [batch, height, width])?;
        let mut hidden = self.conv_in.forward(image.x.clone()) + self.hint.forward(picture);
        let mut skips = vec![hidden.clone()];
        for down in &self.down_blocks {
            hidden = down.blocks(hidden, &given, pass, &mut skips)?;
            if let Some(halve) = down.halve() {
                hidden = halve.forward(hidden, &given, pass)?;
                skips.push(hidden.clone());
            }
        }
        let hidden = self.mid_block.forward(hidden, &given, pass)?;
        let pooled = |x: Tensor<4>| match self.config.global_pool_conditions {
            true => x.mean_dim(3).mean_dim(2),
            false => x,
        };
        let points = self.controlnet_down_blocks.iter();
        let down = skips.into_iter().zip(points).map(|(x, point)| pooled(point.forward(x)));
        Ok(Residuals {
            down: down.collect(),
            mid: pooled(self.controlnet_mid_block.forward(hidden)),
        })
    }

    /// Checks the picture, and brings its colours into order.
    fn picture(&self, x: Tensor<4>, [batch, height, width]: [usize; 3]) -> Result<Tensor<4>> {
        let channels = self.config.conditioning_channels;
        // Each halving rounds up.
        let halvings = self.config.conditioning_embedding_out_channels.len() - 1;
        let small = |side: usize| (0..halvings).fold(side, |side, _| side.div_ceil(2));
        let [rows, found, tall, wide] = x.dims();
        if [rows, found] != [batch, channels] || [small(tall), small(wide)] != [height, width] {
            let times = self.config.downsampling();
            return Err(Error::Shape {
                what: "picture for the control network".into(),
                wanted: vec![batch, channels, height * times, width * times],
                found: x.dims().to_vec(),
            });
        }
        Ok(match self.config.controlnet_conditioning_channel_order {
            ChannelOrder::Rgb => x,
            ChannelOrder::Bgr => x.flip([1]),
        })
    }
}

/// A control network and how much of it is wanted.
#[derive(Clone, Debug)]
pub struct Control {
    /// The network.
    pub network: Arc<ControlNet>,
    /// What its outputs are multiplied by.
    pub scale: f64,
    /// The part of a run in which it acts: from the first to the second of these, both 0 to 1.
    pub during: [f64; 2],
    /// Whether only rows with the condition get it, less at the finer levels ("guess mode" of Zhang
    /// et al.).
    pub guess: bool,
}

impl Control {
    /// All of it, all the time.
    pub fn new(network: Arc<ControlNet>) -> Self {
        Self { network, scale: 1.0, during: [0.0, 1.0], guess: false }
    }

    /// How much of it a row gets.
    fn share(&self, row: &Row) -> f64 {
        let steps = row.steps.max(1) as f64;
        let (now, next) = (row.step as f64 / steps, (row.step + 1) as f64 / steps);
        let acts = now >= self.during[0] && next <= self.during[1];
        let pools = self.network.config.global_pool_conditions;
        let spared = (self.guess || pools) && row.branch == Branch::Uncond;
        if acts && !spared { self.scale } else { 0.0 }
    }
}

/// A U-Net under control networks: what they say is added up and enters where the U-Net announces
/// its skip connections and its middle. The picture of control network `i` is the condition's field
/// [`field::control`]`(i)`.
pub struct Controlled {
    network: Arc<dyn Network>,
    controls: Vec<Control>,
    /// The block that takes in each skip connection, and which it is.
    places: Arc<BTreeMap<Arc<str>, usize>>,
}

impl Controlled {
    /// Puts a U-Net under control networks.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where their skip connections are not as many as the U-Net's.
    pub fn new(network: Arc<dyn Network>, controls: Vec<Control>) -> Result<Self> {
        let sites = network.sites();
        let takes_skip = |site: &&Site| {
            let parts: Vec<&str> = site.path.split('.').collect();
            site.kind == SiteKind::Block && matches!(parts[..], ["up_blocks", _, "resnets", _])
        };
        let takers: Vec<&Site> = sites.iter().filter(takes_skip).collect();
        let count = takers.len();
        let places = takers.into_iter().enumerate();
        let places: BTreeMap<_, _> =
            places.map(|(i, site)| (site.path.clone(), count - 1 - i)).collect();
        let middle = sites.iter().any(is_middle);
        for control in &controls {
            let wanted = control.network.controlnet_down_blocks.len();
            if wanted != count || !middle {
                let needs = format!(
                    "a U-Net with a middle and {wanted} skip connections, this has {count}"
                );
                return Err(Error::unsupported("controlnet", needs));
            }
        }
        Ok(Self { network, controls, places: Arc::new(places) })
    }

    /// The sum of what the control networks say; `None` where no row gets any of it.
    fn residuals(
        &self,
        x: &State,
        time: &Times,
        cond: &Cond,
        rows: &[Row],
    ) -> Result<Option<Residuals>> {
        let mut sum: Option<Residuals> = None;
        for (i, control) in self.controls.iter().enumerate() {
            let shares: Vec<f64> = rows.iter().map(|row| control.share(row)).collect();
            if shares.iter().all(|share| *share == 0.0) {
                continue;
            }
            let name = field::control(i);
            let Some(picture) = cond.fields.get(name.as_str()) else {
                let needs = format!("a picture in the field `{name}` of the condition");
                return Err(Error::unsupported("controlnet", needs));
            };
            let mut own = cond.clone();
            if control.network.config.in_channels == x.shape().get(1).copied().unwrap_or(0) {
                own.fields.remove(field::BESIDE);
            }
            // Taps act on the U-Net alone.
            let picture = picture.view::<4>()?;
            let said = control.network.forward(x, time, &own, &picture, &mut Pass::default())?;
            let said = said.scaled(&shares, control.guess && !control.pools());
            sum = Some(match sum {
                None => said,
                Some(sum) => sum.plus(said),
            });
        }
        Ok(sum)
    }
}

impl Control {
    fn pools(&self) -> bool {
        self.network.config.global_pool_conditions
    }
}

impl Residuals {
    /// Each row times its share; the finer the level the less, from a tenth on, where `fading`.
    fn scaled(self, shares: &[f64], fading: bool) -> Self {
        let count = self.down.len();
        let factor = |i: usize| match fading {
            true => 10_f64.powf(i as f64 / count as f64 - 1.0),
            false => 1.0,
        };
        let times = |x: Tensor<4>, factor: f64| {
            let rows: Vec<f64> = shares.iter().map(|share| share * factor).collect();
            let data = TensorData::new(rows, [shares.len(), 1, 1, 1]);
            let rows = Tensor::<4>::from_data(data, (&x.device(), DType::F32));
            let rows = lifted(rows, &x);
            x * rows
        };
        Self {
            down: self.down.into_iter().enumerate().map(|(i, x)| times(x, factor(i))).collect(),
            mid: times(self.mid, 1.0),
        }
    }

    fn plus(self, other: Self) -> Self {
        let down = self.down.into_iter().zip(other.down).map(|(a, b)| a + b);
        Self { down: down.collect(), mid: self.mid + other.mid }
    }
}

fn is_middle(site: &Site) -> bool {
    site.kind == SiteKind::Span && &*site.path == "mid_block"
}

impl Parameters for Controlled {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.network.each(path, visit);
    }

    /// Visits nothing: the weights are shared with others.
    fn each_mut(&mut self, _path: &str, _visit: &mut dyn FnMut(&str, &mut Weight)) {}
}

impl Network for Controlled {
    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State> {
        // Without rows of its own the call is one step of one run.
        let rows = match pass.rows.len() == x.batch() {
            true => pass.rows.clone(),
            false => Pass::single(x.batch(), Level::new(0.0, 1.0, 0.0)).rows,
        };
        let Some(residuals) = self.residuals(x, time, cond, &rows)? else {
            return self.network.forward(x, time, cond, pass);
        };
        let tap = Injection {
            rows: rows.iter().map(|row| (row.request, row.branch)).collect(),
            places: self.places.clone(),
            residuals,
        };
        pass.over_rows(rows, |pass| {
            pass.lend(SharedTap::new(tap), |pass| self.network.forward(x, time, cond, pass))
        })
    }

    fn sites(&self) -> Vec<Site> {
        self.network.sites()
    }

    fn asks(&self) -> Asks {
        self.network.asks()
    }

    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.network.sample_shape()
    }
}

/// Adds to skip connections as they enter their blocks, and to what comes out of the middle.
#[derive(Debug)]
struct Injection {
    /// Which row of the residuals belongs to which row of the call.
    rows: Vec<(u64, Branch)>,
    places: Arc<BTreeMap<Arc<str>, usize>>,
    residuals: Residuals,
}

impl Injection {
    /// `to` with the residual of the given rows.
    fn added(&self, residual: &Tensor<4>, rows: &[Row], to: &Feature) -> Result<Feature> {
        let mut at = Vec::with_capacity(rows.len());
        for row in rows {
            let place = self.rows.iter().position(|r| *r == (row.request, row.branch));
            let Some(place) = place else {
                return Err(Error::unsupported("controlnet", "the rows that the call began with"));
            };
            at.push(place as i64);
        }
        let to: Tensor<4> = to.view()?;
        let whole = at.iter().enumerate().all(|(i, &row)| i as i64 == row);
        let part = if whole && at.len() == self.rows.len() {
            residual.clone()
        } else {
            let index = TensorData::new(at, [rows.len()]);
            residual.clone().select(0, Tensor::<1, Int>::from_data(index, &residual.device()))
        };
        let (wanted, found) = (to.dims(), part.dims());
        if wanted.iter().zip(found).any(|(w, f)| f != *w && f != 1) {
            return Err(Error::Shape {
                what: "what a control network adds".into(),
                wanted: wanted.to_vec(),
                found: found.to_vec(),
            });
        }
        let part = lifted(part, &to);
        let to = lifted(to, &part);
        Ok(Feature::new(to + part))
    }
}

impl Tap for Injection {
    fn wants(&self, site: &Site) -> bool {
        is_middle(site) || (site.kind == SiteKind::Block && self.places.contains_key(&site.path))
    }

    fn before(&mut self, site: &Site, rows: &[Row], mut input: Features) -> Result<Features> {
        if let Some(&place) = self.places.get(&site.path)
            && site.kind == SiteKind::Block
        {
            let skip = self.added(&self.residuals.down[place], rows, input.get("skip")?)?;
            input.set("skip", skip);
        }
        Ok(input)
    }

    fn after(&mut self, site: &Site, rows: &[Row], mut output: Features) -> Result<Features> {
        if is_middle(site) {
            let hidden = self.added(&self.residuals.mid, rows, output.get("hidden")?)?;
            output.set("hidden", hidden);
        }
        Ok(output)
    }
}
