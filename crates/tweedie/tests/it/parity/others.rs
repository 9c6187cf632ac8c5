//! The autoencoder, the text encoder and the diffusion transformer.

use tweedie::model::{AutoencoderKl, ClipText, DiT};

use super::fixture::Fixture;
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
