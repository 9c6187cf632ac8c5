//! Both U-Nets.

use burn::tensor::Tensor;
use tweedie::denoiser::{Network, Pass};
use tweedie::model::{UNet2D, UNet2DCondition};
use tweedie::tap::{SharedTap, SiteKind};

use super::fixture::{Fixture, Recorder, rows};

/// Runs the network with and without a tap that records, and checks the output and everything that
/// the file holds of the inside.
pub(crate) fn same_numbers(fixture: &Fixture, network: &dyn Network) {
    let (x, times, cond) = (fixture.x(), fixture.times(), fixture.cond());
    let recorder = Recorder::shared(false);
    let mut pass = Pass::new(rows(x.batch()), vec![SharedTap::of(&recorder)]);
    let tapped = network.forward(&x, &times, &cond, &mut pass).unwrap();
    let plain = network.forward(&x, &times, &cond, &mut Pass::default()).unwrap();
    assert_eq!(plain.to_rows(), tapped.to_rows(), "{}: a tap that only listens", fixture.case);
    let error = fixture.check("y", &plain.view::<4>().unwrap());
    println!("{}: {error:.1e} of the largest output", fixture.case);
    let recorder = recorder.lock().unwrap();
    for path in fixture.recorded() {
        let at = |(site, _): &(&_, &_)| matches_block(site, &path);
        let (_, outputs) = recorder.seen.iter().find(at).unwrap();
        let hidden = outputs[0].get("hidden").unwrap();
        if hidden.shape().len() == 4 {
            fixture.check(&format!("at.{path}"), &hidden.view::<4>().unwrap());
        } else {
            let hidden: Tensor<3> = hidden.view().unwrap();
            fixture.check(&format!("at.{path}"), &hidden);
        }
    }
    assert!(!fixture.recorded().is_empty());
}

fn matches_block(site: &tweedie::tap::Site, path: &str) -> bool {
    site.kind == SiteKind::Block && &*site.path == path
}

fn unet2d(case: &str) {
    let fixture = Fixture::open(case);
    assert_eq!(fixture.class(), "UNet2DModel");
    let network = UNet2D::new(fixture.config(), &fixture.device).unwrap();
    same_numbers(&fixture, &fixture.load(network));
}

fn unet2d_condition(case: &str) {
    let fixture = Fixture::open(case);
    assert_eq!(fixture.class(), "UNet2DConditionModel");
    let network = UNet2DCondition::new(fixture.config(), &fixture.device).unwrap();
    same_numbers(&fixture, &fixture.load(network));
}

#[test]
fn unet2d_with_attention_as_published() {
    unet2d("unet2d_plain");
}

#[test]
fn unet2d_with_scale_shift_and_classes_as_published() {
    unet2d("unet2d_scale_shift_classes");
}

#[test]
fn unet2d_as_the_first_ddpm_as_published() {
    unet2d("unet2d_ddpm");
}

#[test]
fn unet2d_without_attention_in_the_middle_as_published() {
    unet2d("unet2d_identity_no_attention");
}

#[test]
fn unet2d_condition_as_published() {
    unet2d_condition("unet2d_condition_plain");
}

#[test]
fn unet2d_condition_at_odd_sizes_with_a_mask_as_published() {
    unet2d_condition("unet2d_condition_odd_masked");
}

#[test]
fn unet2d_condition_with_linear_projections_as_published() {
    unet2d_condition("unet2d_condition_linear_deep");
}

#[test]
fn unet2d_condition_with_text_and_sizes_as_published() {
    unet2d_condition("unet2d_condition_text_time");
}
