//! The reader: from a picture back to the scene, without a network.
//!
//! It works by analysis and synthesis. The background is the palette colour that most pixels are near
//! to; connected pieces of one colour are where objects may be; for each piece every shape is fitted
//! in centre and radius by drawing it; what explains the picture is kept, in the order of depth that
//! explains it best; and the drawing of the scene so read is compared with the picture.

mod assemble;
mod fit;
mod pieces;
mod ssim;

use serde::Serialize;

use super::picture::Picture;
use super::render::Bounds;
use super::scene::{Object, SIDE, Scene};
use assemble::Sight;
use pieces::{Rgb, apart2};

/// The structural similarity from which on an object counts as drawn.
pub const LEAST_SIMILARITY: f64 = 0.80;

/// The pixels around an object's box in which picture and drawing are compared.
const MARGIN: f64 = 2.0;
/// Pictures of a smaller side cannot be read.
const LEAST_SIDE: usize = 32;
/// More pieces than this are no scene.
const MOST_PIECES: usize = 24;
/// How far a smoothed pixel may be from the drawing, and how many pixels may be farther.
const RESIDUE: (f64, usize) = (60.0, 40);

/// What the reader makes of a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reading {
    /// The picture shows a scene.
    Scene {
        /// The scene, its objects in order of depth.
        scene: Scene,
        /// For each object the structural similarity of picture and drawing in the object's box with
        /// 2 pixels of margin. An object counts where it is at least [`LEAST_SIMILARITY`].
        matches: Vec<f64>,
        /// The structural similarity over the whole picture.
        similarity: f64,
    },
    /// The picture shows no scene of this world.
    Unreadable {
        /// Why not.
        why: Why,
    },
}

/// Why a picture cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is not square, or 64 pixels are no multiple of its side, or it has fewer than 32.
    Dimensions,
    /// No background colour fills half of it.
    NoBackground,
    /// It falls into more pieces than a scene can have.
    TooManyPieces,
    /// Nothing in it is an object.
    NoObject,
    /// It has more than three objects.
    TooManyObjects,
    /// A part of it is neither background nor object.
    Unexplained,
}

/// Reads a picture.
pub fn read(picture: &Picture) -> Reading {
    match explain(picture) {
        Ok((scene, matches, similarity)) => Reading::Scene { scene, matches, similarity },
        Err(why) => Reading::Unreadable { why },
    }
}

fn explain(picture: &Picture) -> Result<(Scene, Vec<f64>, f64), Why> {
    let side = picture.width();
    if picture.height() != side || side < LEAST_SIDE || !SIDE.is_multiple_of(side) {
        return Err(Why::Dimensions);
    }
    let picture = &picture.enlarged(SIDE / side);
    let pixels: Vec<Rgb> =
        picture.data().chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(f64::from)).collect();
    let smooth = pieces::smooth(&pixels);
    let ground = pieces::ground(&smooth).ok_or(Why::NoBackground)?;
    let pieces = pieces::pieces(&smooth, &ground);
    if pieces.len() > MOST_PIECES {
        return Err(Why::TooManyPieces);
    }
    let sight = Sight { pixels: &pixels, ground, pieces: &pieces };
    let found = sight.assemble()?;
    let drawn = sight.draw(&found);
    let far = |(p, q): (&Rgb, &Rgb)| apart2(*p, *q) > RESIDUE.0 * RESIDUE.0;
    let residue = smooth.iter().zip(&pieces::smooth(&drawn)).filter(|pair| far(*pair)).count();
    if residue > RESIDUE.1 {
        return Err(Why::Unexplained);
    }
    let objects = found.iter().map(|f| f.object).collect();
    let scene = Scene { background: ground.background, objects };
    // A small picture is compared with a drawing that has been as small.
    let render = scene.render_at(side).map_err(|_| Why::Dimensions)?.enlarged(SIDE / side);
    let render: Vec<Rgb> =
        render.data().chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(f64::from)).collect();
    let box_of = |o: &Object| Bounds::of_object(o, MARGIN);
    let matches =
        scene.objects.iter().map(|o| ssim::similarity(&pixels, &render, box_of(o))).collect();
    let whole = Bounds { left: 0, top: 0, right: SIDE, bottom: SIDE };
    let similarity = ssim::similarity(&pixels, &render, whole);
    Ok((scene, matches, similarity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shapes::render::cover;
    use crate::data::shapes::{Background, Colour, Shape, Split};

    fn object(shape: Shape, colour: Colour, x: f64, y: f64, radius: f64) -> Object {
        Object { shape, colour, x, y, radius }
    }

    fn why(picture: &Picture) -> Option<Why> {
        match read(picture) {
            Reading::Scene { .. } => None,
            Reading::Unreadable { why } => Some(why),
        }
    }

    fn seen(picture: &Picture) -> (Scene, Vec<f64>) {
        match read(picture) {
            Reading::Scene { scene, matches, .. } => (scene, matches),
            Reading::Unreadable { why } => panic!("unreadable: {why:?}"),
        }
    }

    #[test]
    fn centres_and_radii_are_read_to_a_tenth_of_a_pixel() {
        for (i, &shape) in Shape::ALL.iter().enumerate() {
            for (k, radius) in [7.2, 7.9, 10.5, 11.3].into_iter().enumerate() {
                let at = 20.0 + 3.37 * i as f64;
                let truth = object(shape, Colour::ALL[(i + k) % 8], at, 50.0 - at / 2.0, radius);
                let background = Background::ALL[(i + 2 * k) % 6];
                let (scene, matches) = seen(&Scene { background, objects: vec![truth] }.render());
                let read = scene.objects[0];
                assert_eq!((read.shape, read.colour), (shape, truth.colour));
                let off = [read.x - truth.x, read.y - truth.y, read.radius - truth.radius];
                assert!(off.iter().all(|d| d.abs() < 0.1), "{shape} {off:?}");
                assert!(matches[0] > 0.98 && scene.background == background);
            }
        }
    }

    #[test]
    fn the_order_of_depth_is_read() {
        let (mut overlapping, mut right) = (0, 0);
        for index in 0..1500 {
            let scene = Scene::sample_with(41, index, Split::Train, 2);
            let covers: Vec<_> = scene.objects.iter().map(cover).collect();
            let shared = covers[0].iter().zip(&covers[1]).filter(|(a, b)| **a > 0.5 && **b > 0.5);
            if shared.count() < 6 {
                continue;
            }
            overlapping += 1;
            let kinds =
                |s: &Scene| s.objects.iter().map(|o| (o.shape, o.colour)).collect::<Vec<_>>();
            right += i32::from(kinds(&seen(&scene.render()).0) == kinds(&scene));
        }
        assert!(overlapping >= 50 && right == overlapping, "{right} of {overlapping}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let plain = Picture::plain(SIDE, SIDE, Background::White.rgb());
        assert_eq!(why(&plain), Some(Why::NoObject));
        assert_eq!(why(&Picture::plain(SIDE, SIDE, [0, 255, 0])), Some(Why::NoBackground));
        assert_eq!(why(&Picture::plain(63, 64, [0; 3])), Some(Why::Dimensions));
        assert_eq!(why(&Picture::plain(16, 16, [0; 3])), Some(Why::Dimensions));
        assert_eq!(why(&Picture::plain(0, 0, [0; 3])), Some(Why::Dimensions));
        let four = [(14.0, 14.0), (50.0, 14.0), (14.0, 50.0), (50.0, 50.0)];
        let four = four.map(|(x, y)| object(Shape::Star, Colour::Red, x, y, 10.6)).to_vec();
        let mut scene = Scene { background: Background::White, objects: four };
        assert_eq!(why(&scene.render()), Some(Why::TooManyObjects));
        scene.objects.pop();
        assert_eq!(why(&scene.render()), None);
        // At half its strength an object is a ghost, and at no strength it is not there.
        let ghost = scene.render().average(&plain).unwrap();
        assert!(why(&ghost).is_some());
        // A blot that is no shape of the world.
        let mut data = scene.render().into_data();
        for y in 40..62 {
            data[(y * SIDE + 40) * 3..(y * SIDE + 62) * 3].fill(100);
        }
        let blot = Picture::from_rgb(SIDE, SIDE, data).unwrap();
        assert_eq!(why(&blot), Some(Why::Unexplained));
    }

    #[test]
    fn any_bytes_can_be_read() {
        // Coarse blocks of palette colours make many pieces; nothing may panic.
        let colours: Vec<[u8; 3]> = Colour::ALL.iter().map(|c| c.rgb()).collect();
        for seed in 0..200_usize {
            let block = 1 + seed % 13;
            let pixel = |p: usize| {
                let cell = (p % SIDE / block) * 7919 + (p / SIDE / block) * 104_729 + seed * 31;
                let hash = cell.wrapping_mul(2_654_435_761) >> 7;
                if hash.is_multiple_of(3) {
                    colours[hash % 8]
                } else {
                    Background::ALL[seed % 6].rgb()
                }
            };
            let data = (0..SIDE * SIDE).flat_map(pixel).collect();
            let picture = Picture::from_rgb(SIDE, SIDE, data).unwrap();
            assert_eq!(read(&picture), read(&picture));
        }
    }
}
