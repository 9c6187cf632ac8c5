//! The feed-forward layers of transformers over patches.

use burn::tensor::Tensor;
use tweedie_kernels::{Activation, Epilogue};

use super::config::FeedForward;
use super::layers::Linear;
use super::site::{Given, Maker, around};
use crate::denoiser::Pass;
use crate::error::Result;
use crate::parameters;
use crate::tap::{Site, SiteKind};

/// Two linear layers with an activation or a gate between them, four times as wide inside.
#[derive(Clone, Debug)]
pub(super) struct Ff {
    entry: Linear,
    exit: Linear,
    kind: FeedForward,
    site: Site,
}
parameters!(Ff { "net.0.proj" => entry, "net.2" => exit });

impl Ff {
    /// At `path`, over `width` features.
    pub(super) fn new(maker: &mut Maker<'_>, path: &str, width: usize, kind: FeedForward) -> Self {
        let gated = matches!(kind, FeedForward::Geglu | FeedForward::Swiglu);
        let inner = 4 * width;
        Self {
            entry: Linear::new(width, if gated { 2 * inner } else { inner }, maker.device),
            exit: Linear::new(inner, width, maker.device),
            kind,
            site: maker.site(path, SiteKind::Ff),
        }
    }

    /// Tokens, keeping the shape.
    ///
    /// # Errors
    ///
    /// What a tap says.
    pub(super) fn forward(&self, x: Tensor<3>, pass: &mut Pass) -> Result<Tensor<3>> {
        around(pass, &self.site, x, &Given::default(), |_, x, _| {
            let epilogue = match self.kind {
                FeedForward::Gelu => Epilogue::Activated(Activation::Gelu),
                FeedForward::GeluApproximate => Epilogue::Activated(Activation::GeluTanh),
                FeedForward::GegluApproximate => Epilogue::Activated(Activation::QuickGelu),
                FeedForward::LinearSilu => Epilogue::Activated(Activation::Silu),
                FeedForward::Geglu => Epilogue::Gated(Activation::Gelu),
                FeedForward::Swiglu => Epilogue::Gated(Activation::Silu),
            };
            Ok(self.exit.forward(self.entry.forward_then(x, epilogue)))
        })
    }

    /// Where it stands.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }
}
