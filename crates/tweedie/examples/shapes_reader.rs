//! Measures the reader of the shapes world and prints the tables of docs/shapes.md.
//!
//! `cargo run --release -p tweedie --example shapes_reader -- [COUNT] [CLEAN_COUNT] [SEED]`

use std::io::Write;
use std::time::Instant;

use tweedie::data::shapes::quality::{Disturbance, Foreign, legibility, unreadable};
use tweedie::data::shapes::{Picture, SIDE, Scene, Split, read};
use tweedie::data::{idx, root};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let count = numbers.next().unwrap_or(Ok(20))?;
    let clean = numbers.next().unwrap_or(Ok(300))?;
    let seed = numbers.next().unwrap_or(Ok(1))?;
    let mut out = std::io::stdout().lock();

    writeln!(out, "| blur | shift | noise | PSNR | right | counted | unreadable | box overlap |")?;
    writeln!(out, "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for d in Disturbance::curve() {
        let number = if d == Disturbance::default() { clean } else { count };
        let got = legibility(seed, number, &d);
        let share = |part: u64| 100.0 * part as f64 / number as f64;
        let psnr = if got.psnr.is_finite() { format!("{:.1} dB", got.psnr) } else { "-".into() };
        let (right, counted) = (share(got.right), share(got.counted));
        let (unreadable, overlap) = (share(got.unreadable), got.box_overlap);
        writeln!(
            out,
            "| {} | {} | {} | {psnr} | {right:.2} % | {counted:.2} % | {unreadable:.2} % | {overlap:.3} |",
            d.blur, d.shift, d.noise
        )?;
    }

    writeln!(out, "\n| pictures | number | unreadable |\n| --- | ---: | ---: |")?;
    let mut refuse = |name: &str, pictures: &[Picture]| {
        let share = 100.0 * unreadable(pictures) as f64 / pictures.len().max(1) as f64;
        writeln!(out, "| {name} | {} | {share:.2} % |", pictures.len())
    };
    for &kind in Foreign::ALL {
        let pictures: Vec<Picture> = (0..count).map(|i| kind.picture(seed, i)).collect();
        refuse(kind.name(), &pictures)?;
    }
    match root::find("fashion-mnist") {
        None => writeln!(out, "skipped: {}", root::absent("fashion-mnist"))?,
        Some(folder) => {
            let idx = idx::read(&folder.join("t10k-images-idx3-ubyte.gz"))?;
            for (name, flip) in [("Fashion-MNIST", 0), ("Fashion-MNIST, negative", 255)] {
                let garments = idx.data.chunks_exact(28 * 28).take(count as usize);
                let pictures: Option<Vec<Picture>> = garments.map(|g| enlarged(g, flip)).collect();
                refuse(name, &pictures.unwrap_or_default())?;
            }
        }
    }

    let render = |index| Scene::sample(seed, index, Split::Test).render();
    let pictures: Vec<Picture> = (0..count).map(render).collect();
    let start = Instant::now();
    let readings = pictures.iter().map(read).collect::<Vec<_>>().len();
    let each = start.elapsed().as_secs_f64() * 1e3 / readings.max(1) as f64;
    writeln!(out, "\nreading takes {each:.2} ms a picture")?;
    Ok(())
}

/// A gray picture of 28x28, each value's bits flipped by `flip`, as one of 64x64 in colour.
fn enlarged(gray: &[u8], flip: u8) -> Option<Picture> {
    let rgb = gray.iter().flat_map(|v| [v ^ flip; 3]).collect();
    let image = image::RgbImage::from_raw(28, 28, rgb)?;
    let filter = image::imageops::FilterType::Triangle;
    let side = SIDE as u32;
    Some(Picture::from_image(&image::imageops::resize(&image, side, side, filter)))
}
