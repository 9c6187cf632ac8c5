//! How a network announces its sites, and what its blocks are given beside the hidden state.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};

use crate::denoiser::Pass;
use crate::error::Result;
use crate::tap::{Features, Site, SiteKind};

/// What the parts of a network are made with: the device, and the counters of the sites.
///
/// Parts are made in the order in which they run, so that a site's depth counts from the input.
#[derive(Debug)]
pub struct Maker<'a> {
    /// Where the weights live.
    pub device: &'a Device,
    /// Whether the last layer of each residual branch starts at zero, so that a fresh network
    /// passes its input on (Ho et al. 2020; Dhariwal and Nichol 2021).
    pub zero_ends: bool,
    network: &'static str,
    counts: BTreeMap<SiteKind, usize>,
}

impl<'a> Maker<'a> {
    /// For the sites of `network`.
    pub fn new(network: &'static str, device: &'a Device) -> Self {
        Self { device, zero_ends: false, network, counts: BTreeMap::new() }
    }

    /// The next site of its kind, at this path.
    pub fn site(&mut self, path: &str, kind: SiteKind) -> Site {
        let count = self.counts.entry(kind).or_default();
        let depth = *count;
        *count += 1;
        Site::new(self.network, path, kind, depth)
    }
}

/// What a block is given beside the hidden state; all of it has the batch first.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The embedded time, classes included, `[batch, channels]`.
    pub time: Option<Tensor<2>>,
    /// The sequence that is attended to, `[batch, tokens, channels]`.
    pub encoder: Option<Tensor<3>>,
    /// What is added to the scores of attention to it, `[batch, 1, 1, tokens]`.
    pub bias: Option<Tensor<4>>,
    /// What came over from the way down, `[batch, channels, height, width]`.
    pub skip: Option<Tensor<4>>,
}

impl Given {
    /// The same with a skip connection.
    #[must_use]
    pub fn with_skip(&self, skip: Tensor<4>) -> Self {
        Self { skip: Some(skip), ..self.clone() }
    }

    fn onto(&self, mut features: Features) -> Features {
        if let Some(time) = &self.time {
            features = features.with("time", time.clone());
        }
        if let Some(encoder) = &self.encoder {
            features = features.with("encoder", encoder.clone());
        }
        if let Some(bias) = &self.bias {
            features = features.with("bias", bias.clone());
        }
        if let Some(skip) = &self.skip {
            features = features.with("skip", skip.clone());
        }
        features
    }

    fn out_of(features: &mut Features) -> Result<Self> {
        fn one<const D: usize>(features: &mut Features, name: &str) -> Result<Option<Tensor<D>>> {
            if features.has(name) { features.take(name).map(Some) } else { Ok(None) }
        }
        Ok(Self {
            time: one(features, "time")?,
            encoder: one(features, "encoder")?,
            bias: one(features, "bias")?,
            skip: one(features, "skip")?,
        })
    }
}

/// Announces a block and runs it: `f` gets the hidden state and the rest for the rows that are
/// computed, which may be fewer than came in.
///
/// # Errors
///
/// What `f` or a tap says.
pub fn around<const D: usize>(
    pass: &mut Pass,
    site: &Site,
    hidden: Tensor<D>,
    given: &Given,
    mut f: impl FnMut(&mut Pass, Tensor<D>, &Given) -> Result<Tensor<D>>,
) -> Result<Tensor<D>> {
    if !pass.wants(site) {
        return f(pass, hidden, given);
    }
    let input = given.onto(Features::hidden(hidden));
    let mut output = pass.at(site, input, |pass, mut input| {
        let hidden = input.take("hidden")?;
        let given = Given::out_of(&mut input)?;
        Ok(Features::hidden(f(pass, hidden, &given)?))
    })?;
    output.take("hidden")
}

/// A part that holds sites.
pub trait Sited {
    /// Adds them in the order in which they are announced.
    fn sites(&self, list: &mut Vec<Site>);
}

impl<T: Sited> Sited for Vec<T> {
    fn sites(&self, list: &mut Vec<Site>) {
        for part in self {
            part.sites(list);
        }
    }
}
