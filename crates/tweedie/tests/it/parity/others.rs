//! The autoencoder, the text encoder and the diffusion transformer.

use burn::tensor::{Device, Tensor};
use tweedie::denoiser::Pass;
use tweedie::model::config::AutoencoderTinyConfig;
use tweedie::model::{AutoencoderKl, AutoencoderTiny, ClipText, DiT, PixArt};
use tweedie::tap::SharedTap;
use tweedie::weight::draw;

use super::fixture::{Fixture, Recorder, rows};
use super::unets::same_numbers;

fn autoencoder(case: &str) {
    let fixture = Fixture::open(case);
    assert_eq!(fixture.class(), "AutoencoderKL");
    let network = AutoencoderKl::new(fixture.config(), &fixture.device).unwrap();
    let network = fixture.load(network);
    let (mean, logvar) = network.encode(&fixture.tensor("input.x")).unwrap();
    let image = network.decode(&fixture.tensor("input.z")).unwrap();
    let errors = [
        fixture.check("mean", &mean),
        fixture.check("logvar", &logvar),
        fixture.check("y", &image),
    ];
    println!("{case}: {errors:?} of the largest output");
    let back = network.of_unit(network.to_unit(mean.clone()));
    fixture.check("mean", &back);
}

#[test]
fn autoencoder_kl_as_published() {
    autoencoder("autoencoder_kl_plain");
}

#[test]
fn autoencoder_kl_without_its_extras_as_published() {
    autoencoder("autoencoder_kl_bare");
}

fn clip_text(case: &str) {
    let fixture = Fixture::open(case);
    assert_eq!(fixture.class(), "CLIPTextModel");
    let network = ClipText::new(fixture.config(), &fixture.device).unwrap();
    let network = fixture.load(network);
    let tokens = fixture.shape("input.ids")[1];
    let ids: Vec<Vec<i64>> =
        fixture.integers("input.ids").chunks(tokens).map(<[i64]>::to_vec).collect();
    let encoded = network.encode(&ids, 0).unwrap();
    let skipped = |skip| network.encode(&ids, skip).unwrap().hidden;
    let errors = [
        fixture.check("hidden", &encoded.hidden),
        fixture.check("pooled", &encoded.pooled),
        fixture.check("skip1", &skipped(1)),
        fixture.check("skip2", &skipped(2)),
    ];
    println!("{case}: {errors:?} of the largest output");
    assert!(network.encode(&ids, 4).is_err());
    assert!(network.encode(&[vec![38, 40]], 0).is_err());
    assert!(network.encode(&[vec![1; 13]], 0).is_err());
    assert!(network.encode(&[vec![1; 3], vec![1; 2]], 0).is_err());
    assert!(network.encode(&[], 0).is_err());
}

#[test]
fn clip_text_as_published() {
    clip_text("clip_text_quick");
}

#[test]
fn clip_text_of_old_settings_as_published() {
    clip_text("clip_text_gelu_old_eos");
}

fn dit(case: &str) {
    let fixture = Fixture::open(case);
    assert_eq!(fixture.class(), "DiTTransformer2DModel");
    let network = DiT::new(fixture.config(), &fixture.device).unwrap();
    same_numbers(&fixture, &fixture.load(network));
}

#[test]
fn dit_as_published() {
    dit("dit_plain");
}

#[test]
fn dit_at_another_size_as_published() {
    dit("dit_larger");
}

fn pixart(case: &str) {
    let fixture = Fixture::open(case);
    assert_eq!(fixture.class(), "PixArtTransformer2DModel");
    let network = PixArt::new(fixture.config(), &fixture.device).unwrap();
    same_numbers(&fixture, &fixture.load(network));
}

#[test]
fn pixart_as_published() {
    pixart("pixart_plain");
}

#[test]
fn pixart_at_another_size_under_a_mask_as_published() {
    pixart("pixart_larger_masked");
}

#[test]
fn the_tiny_autoencoder_announces_its_sites() {
    let config = AutoencoderTinyConfig {
        encoder_block_out_channels: vec![4; 2],
        num_encoder_blocks: vec![1, 2],
        decoder_block_out_channels: vec![3; 2],
        num_decoder_blocks: vec![2, 0],
        scaling_factor: 2.0,
        shift_factor: 0.5,
        ..AutoencoderTinyConfig::default()
    };
    let mut network = AutoencoderTiny::new(config, &Device::flex()).unwrap();
    draw(&mut network, 1).unwrap();
    let x = Tensor::<4>::ones([2, 3, 8, 6], &Device::flex());
    let z = network.encode(&x).unwrap();
    assert_eq!((z.dims(), network.config().downsampling()), ([2, 4, 4, 3], 2));
    let image = network.decode(&z).unwrap();
    assert_eq!(image.dims(), x.dims());
    let (encoder, decoder) = network.sites();
    assert_eq!((encoder.len(), decoder.len()), (3, 2));
    for (sites, encodes) in [(encoder, true), (decoder, false)] {
        let recorder = Recorder::shared(false);
        let mut pass = Pass::new(rows(2), vec![SharedTap::of(&recorder)]);
        let (tapped, plain) = match encodes {
            true => (network.encode_in(&x, &mut pass).unwrap(), z.clone()),
            false => (network.decode_in(&z, &mut pass).unwrap(), image.clone()),
        };
        assert_eq!(tapped.into_data_as::<f32>(), plain.into_data_as::<f32>());
        assert_eq!(recorder.lock().unwrap().entered, sites);
    }
    let unit: Vec<f32> = network.to_unit(z.clone()).into_data_as::<f32>().iter::<f32>().collect();
    let plain: Vec<f32> = z.clone().into_data_as::<f32>().iter::<f32>().collect();
    assert!((unit[5] - (plain[5] - 0.5) * 2.0).abs() < 1e-6);
    let back = network.of_unit(network.to_unit(z)).into_data_as::<f32>();
    assert!(back.iter::<f32>().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!(network.encode(&Tensor::zeros([1, 4, 8, 8], &Device::flex())).is_err());
}
