//! Measures what the reader of the shapes world still reads after a scene has gone through an
//! autoencoder: the most that any model over its latents can reach.
//!
//! `cargo run --release -p tweedie --example shapes_autoencoder -- [FOLDER] [COUNT]`

use std::io::Write;

use burn::tensor::{Device, Tensor, TensorData};
use tweedie::data::shapes::{Caption, Picture, SIDE, Scene, Split, score};
use tweedie::hub::{Folder, config};
use tweedie::model::AutoencoderKl;
use tweedie::model::config::AutoencoderKlConfig;
use tweedie::weight;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "builtin:shapes-vae".to_owned());
    let count: u64 = arguments.next().map_or(Ok(5), |n| n.parse())?;
    let device = Device::flex();
    let component = Folder::resolve(&folder)?.component("")?;
    let settings: AutoencoderKlConfig = config::read(&component)?;
    let mut network = AutoencoderKl::new(settings, &device)?;
    weight::load(&mut network, &component.tensors()?)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "| objects | everything right | shape of an object | PSNR |")?;
    writeln!(out, "| ---: | ---: | ---: | ---: |")?;
    for objects in 1..=3 {
        let (mut right, mut shapes, mut seen, mut decibels) = (0, 0, 0, 0.0);
        for index in 0..count {
            let scene = Scene::sample_with(99, index, Split::Test, objects);
            let pixels = scene.render().to_f32_chw();
            let data = TensorData::new(pixels.clone(), [1, 3, SIDE, SIDE]);
            let (mean, _) = network.encode(&Tensor::from_data(data, &device))?;
            let decoded = network.decode(&mean)?.into_data_as::<f32>();
            let decoded: Vec<f32> = decoded.iter::<f32>().collect();
            let square = |(a, b): (&f32, &f32)| f64::from(a - b.clamp(-1.0, 1.0)).powi(2);
            let error = pixels.iter().zip(&decoded).map(square).sum::<f64>() / pixels.len() as f64;
            decibels += 10.0 * (4.0 / error).log10();
            let asked = Caption::sample(&scene, 99, index).asked;
            let found = score(&Picture::from_f32_chw(SIDE, SIDE, &decoded)?, &asked);
            right += u64::from(found.all_right());
            seen += found.objects.len();
            shapes += found.objects.iter().filter(|object| object.shape).count();
        }
        let share = |part: f64, whole: f64| 100.0 * part / whole.max(1.0);
        writeln!(
            out,
            "| {objects} | {:.1} % | {:.1} % | {:.1} dB |",
            share(right as f64, count as f64),
            share(shapes as f64, seen as f64),
            decibels / count.max(1) as f64,
        )?;
    }
    Ok(())
}
