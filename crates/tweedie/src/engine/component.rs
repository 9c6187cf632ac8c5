//! The parts of a model folder as networks with their weights, each by the class that its files
//! name.

use std::sync::Arc;

use burn::tensor::Device;
use serde_json::{Map, Value};

use crate::denoiser::Network;
use crate::error::{Error, Result};
use crate::hub::folder::Component;
use crate::hub::{Wanted, config};
use crate::model::config::{
    AutoencoderKlConfig, ClipTextConfig, Config, DitConfig, UNet2DConditionConfig, UNet2DConfig,
};
use crate::model::{AutoencoderKl, ClipText, DiT, UNet2D, UNet2DCondition};
use crate::weight::{self, Parameters, Plan};

/// The denoising network of a component, loaded and prepared.
///
/// # Errors
///
/// A class that is no denoising network here, settings that are wrong or not supported, weights
/// that do not fit.
pub(super) fn denoising(component: &Component, device: &Device) -> Result<Arc<dyn Network>> {
    fn of<C: Config, N: Network + 'static>(
        component: &Component,
        device: &Device,
        make: impl Fn(C, &Device) -> Result<N>,
    ) -> Result<Arc<dyn Network>> {
        Ok(Arc::new(loaded(make(config::read(component)?, device)?, component)?))
    }
    match component.class.as_str() {
        UNet2DConfig::CLASS => of(component, device, UNet2D::new),
        UNet2DConditionConfig::CLASS => of(component, device, UNet2DCondition::new),
        DitConfig::CLASS => of(component, device, DiT::new),
        other => Err(Error::unknown("network class", other, crate::model::ModelConfig::CLASSES)),
    }
}

/// The autoencoder of a component, loaded and prepared.
///
/// # Errors
///
/// As for [`denoising`].
pub(super) fn autoencoder(component: &Component, device: &Device) -> Result<AutoencoderKl> {
    let config: AutoencoderKlConfig = config::read(component)?;
    loaded(AutoencoderKl::new(config, device)?, component)
}

/// The text encoder of a component, loaded and prepared.
///
/// # Errors
///
/// As for [`denoising`].
pub(super) fn text_encoder(component: &Component, device: &Device) -> Result<ClipText> {
    let config: ClipTextConfig = config::read(component)?;
    loaded(ClipText::new(config, device)?, component)
}

/// The tensors that a network of this class and these settings wants, for inspection; `None` for
/// classes that are not known here.
pub fn wanted(class: &str, config: &Map<String, Value>) -> Option<Result<Vec<Wanted>>> {
    fn of<C: Config, T: Parameters>(
        config: &Map<String, Value>,
        make: impl Fn(C, &Device) -> Result<T>,
    ) -> Result<Vec<Wanted>> {
        let config: C = config::parse(std::path::Path::new("config.json"), config)?;
        let mut wanted = Vec::new();
        make(config, &Device::flex())?.each("", &mut |path, weight| {
            wanted.push(Wanted::new(path, weight.shape().to_vec()));
        });
        Ok(wanted)
    }
    Some(match class {
        UNet2DConfig::CLASS => of(config, UNet2D::new),
        UNet2DConditionConfig::CLASS => of(config, UNet2DCondition::new),
        DitConfig::CLASS => of(config, DiT::new),
        AutoencoderKlConfig::CLASS => of(config, AutoencoderKl::new),
        ClipTextConfig::CLASS => of(config, ClipText::new),
        _ => return None,
    })
}

/// Loads and prepares a network.
fn loaded<T: Parameters>(mut network: T, component: &Component) -> Result<T> {
    let tensors = component.tensors()?;
    let misfit = weight::misfit(&network, &tensors);
    if !misfit.is_empty() {
        return Err(Error::format(tensors.name(), "", misfit.summary()));
    }
    weight::load(&mut network, &tensors)?;
    weight::prepare(&mut network, &Plan { expand: true });
    Ok(network)
}
