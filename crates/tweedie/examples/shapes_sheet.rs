//! Draws a contact sheet of the shapes world and prints the captions.
//!
//! `cargo run --release -p tweedie --example shapes_sheet -- [OUT.png] [train|test|held-out] [SEED]`

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use tweedie::data::shapes::{Caption, SIDE, Scene, Split};

const COLUMNS: u32 = 10;
const ROWS: u32 = 6;
const GAP: u32 = 4;
const SCALE: u32 = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().map_or_else(|| PathBuf::from("shapes.png"), PathBuf::from);
    let split = match arguments.next().as_deref() {
        None | Some("train") => Split::Train,
        Some("test") => Split::Test,
        Some("held-out") => Split::HeldOut,
        Some(other) => return Err(format!("no split is called `{other}`").into()),
    };
    let seed = arguments.next().map_or(Ok(1), |s| s.parse())?;
    let cell = SIDE as u32 + GAP;
    let paper = image::Rgb([255, 255, 255]);
    let mut sheet = image::RgbImage::from_pixel(COLUMNS * cell + GAP, ROWS * cell + GAP, paper);
    let mut captions = String::new();
    for index in 0..u64::from(COLUMNS * ROWS) {
        let scene = Scene::sample(seed, index, split);
        let (row, column) = (index as u32 / COLUMNS, index as u32 % COLUMNS);
        let (x, y) = (GAP + column * cell, GAP + row * cell);
        image::imageops::replace(&mut sheet, &scene.render().to_image(), x.into(), y.into());
        let caption = Caption::sample(&scene, seed, index);
        writeln!(captions, "{index:3}  {}", caption.text)?;
    }
    let (width, height) = (sheet.width() * SCALE, sheet.height() * SCALE);
    let nearest = image::imageops::FilterType::Nearest;
    image::imageops::resize(&sheet, width, height, nearest).save(&out)?;
    std::io::stdout().write_all(captions.as_bytes())?;
    Ok(())
}
