//! The parts of a model folder as networks with their weights, each by the class that its files
//! name.

use std::sync::Arc;

use burn::tensor::Device;
use serde_json::{Map, Value};

use crate::denoiser::Network;
use crate::error::{Error, Result};
use crate::hub::folder::{Component, Folder};
use crate::hub::{Wanted, config};
use crate::model::classifier::Classifier;
use crate::model::config::{
    AutoencoderKlConfig, AutoencoderTinyConfig, ClipTextConfig, Config, ControlNetConfig,
    DitConfig, PixArtConfig, Transformer2DConfig, UNet2DConditionConfig, UNet2DConfig,
};
use crate::model::experts::{Experts, ExpertsConfig};
use crate::model::{
    Autoencoder, AutoencoderKl, AutoencoderTiny, ClipText, ControlNet, DiT, PixArt, UNet2D,
    UNet2DCondition,
};
use crate::reward::Classifies;
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
        let network = make(config::read(component)?, device)?;
        Ok(Arc::new(loaded_in(network, component, component.int8)?))
    }
    match component.class.as_str() {
        UNet2DConfig::CLASS => of(component, device, UNet2D::new),
        UNet2DConditionConfig::CLASS => of(component, device, UNet2DCondition::new),
        DitConfig::CLASS => of(component, device, DiT::new),
        PixArtConfig::CLASS => of(component, device, PixArt::new),
        Transformer2DConfig::CLASS => of(component, device, transformer),
        other => Err(Error::unknown("network class", other, crate::model::ModelConfig::CLASSES)),
    }
}

/// A diffusion transformer in the settings of the class that it was first published under.
fn transformer(config: Transformer2DConfig, device: &Device) -> Result<DiT> {
    DiT::new(config.dit()?, device)
}

/// A classifier of pictures, loaded.
///
/// # Errors
///
/// As for [`denoising`].
pub(super) fn classifier(folder: &Folder, device: &Device) -> Result<Classifier> {
    let component = folder.component("")?;
    let mut network = Classifier::new(config::read(&component)?, device)?;
    weight::load(&mut network, &component.tensors()?)?;
    Ok(network)
}

/// What tells classes apart in a folder: a classifier, or experts for noise levels.
///
/// # Errors
///
/// As for [`denoising`].
pub(super) fn classifies(folder: &Folder, device: &Device) -> Result<Arc<dyn Classifies>> {
    let component = folder.component("")?;
    match component.class.as_str() {
        ExpertsConfig::CLASS => {
            let mut network = Experts::new(config::read(&component)?, device)?;
            weight::load(&mut network, &component.tensors()?)?;
            Ok(Arc::new(network))
        }
        _ => Ok(Arc::new(classifier(folder, device)?)),
    }
}

/// The autoencoder of a component, loaded and prepared.
///
/// # Errors
///
/// As for [`denoising`].
pub(super) fn autoencoder(component: &Component, device: &Device) -> Result<Autoencoder> {
    match component.class.as_str() {
        AutoencoderTinyConfig::CLASS => {
            let network = AutoencoderTiny::new(config::read(component)?, device)?;
            Ok(Autoencoder::Tiny(Box::new(loaded(network, component)?)))
        }
        // Of another class, the settings say so themselves.
        _ => {
            let network = AutoencoderKl::new(config::read(component)?, device)?;
            Ok(Autoencoder::Kl(Box::new(loaded(network, component)?)))
        }
    }
}

/// The text encoder of a component, loaded and prepared.
///
/// # Errors
///
/// As for [`denoising`].
pub(super) fn text_encoder(component: &Component, device: &Device) -> Result<ClipText> {
    let config: ClipTextConfig = config::read(component)?;
    let network = match component.class.as_str() {
        ClipTextConfig::WITH_PROJECTION => ClipText::with_projection(config, device)?,
        _ => ClipText::new(config, device)?,
    };
    loaded(network, component)
}

/// Opens a control network: the folder of one, or the component `controlnet` of a model folder.
///
/// # Errors
///
/// There is no such folder or component, or those of opening a model.
pub fn open_control(name: &str, device: &Device) -> Result<ControlNet> {
    let folder = Folder::resolve(name)?;
    let part = if folder.index().is_none() { "" } else { "controlnet" };
    control(&folder.component(part)?, device)
}

/// The control network of a component, loaded and prepared.
///
/// # Errors
///
/// As for [`denoising`].
pub(super) fn control(component: &Component, device: &Device) -> Result<ControlNet> {
    loaded(ControlNet::new(config::read(component)?, device)?, component)
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
        PixArtConfig::CLASS => of(config, PixArt::new),
        AutoencoderKlConfig::CLASS => of(config, AutoencoderKl::new),
        AutoencoderTinyConfig::CLASS => of(config, AutoencoderTiny::new),
        ControlNetConfig::CLASS => of(config, ControlNet::new),
        Transformer2DConfig::CLASS => of(config, transformer),
        ClipTextConfig::CLASS => of(config, ClipText::new),
        ClipTextConfig::WITH_PROJECTION => of(config, ClipText::with_projection),
        _ => return None,
    })
}

/// Up to so many bytes of 16-bit weights are widened once and kept; the weights of larger networks are
/// widened each time that they are used, so that a model takes the memory of its file.
pub(super) const EXPANDED: usize = 64 << 20;

/// Loads and prepares a network.
fn loaded<T: Parameters>(network: T, component: &Component) -> Result<T> {
    loaded_in(network, component, false)
}

/// As [`loaded`], with linear layers in 8 bits where `int8`.
fn loaded_in<T: Parameters>(mut network: T, component: &Component, int8: bool) -> Result<T> {
    let tensors = component.tensors()?;
    let misfit = weight::misfit(&network, &tensors);
    if !misfit.is_empty() {
        return Err(Error::format(tensors.name(), "", misfit.summary()));
    }
    weight::load(&mut network, &tensors)?;
    // What was converted has been read once and is not needed in its file any more; what stays in the
    // file is read again when it is used.
    tensors.release();
    let mut narrow = 0;
    network
        .each("", &mut |_, weight| narrow += if weight.is_narrow() { weight.bytes() } else { 0 });
    weight::prepare(&mut network, &Plan { expand: narrow <= EXPANDED, pack: true, int8 });
    Ok(network)
}
