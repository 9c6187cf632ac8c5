//! The reader: from a picture back to the scene, without a network.
//!
//! It works by analysis and synthesis. The background is the palette colour that most pixels are near
//! to; connected pieces of one colour are where objects may be; for each piece every shape is fitted
//! in centre and radius by drawing it; what explains the picture is kept, in the order of depth that
//! explains it best; and the drawing of the scene so read is compared with the picture.

mod fit;
mod pieces;
mod ssim;

use serde::Serialize;

use super::picture::Picture;
use super::render::{Bounds, paint_as};
use super::scene::{Object, SIDE, Scene};
use fit::Target;
use pieces::{Ground, Piece, Rgb, apart2};

/// The structural similarity from which on an object counts as drawn.
pub const LEAST_SIMILARITY: f64 = 0.80;

/// How far an object's colour may be from its palette colour.
const COLOUR_SHIFT: f64 = 42.0;
/// More pieces than this are no scene.
const MOST_PIECES: usize = 24;
/// The part of an object's contrast that drawing it must explain.
const LEAST_GAIN: f64 = 0.5;
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
    /// It is not 64 by 64 pixels.
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

/// An object with the colour that it has in this picture.
#[derive(Clone, Copy)]
struct Found {
    object: Object,
    rgb: Rgb,
}

fn explain(picture: &Picture) -> Result<(Scene, Vec<f64>, f64), Why> {
    if (picture.width(), picture.height()) != (SIDE, SIDE) {
        return Err(Why::Dimensions);
    }
    let pixels: Vec<Rgb> =
        picture.data().chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(f64::from)).collect();
    let smooth = pieces::smooth(&pixels);
    let ground = pieces::ground(&smooth).ok_or(Why::NoBackground)?;
    let pieces = pieces::pieces(&smooth, &ground);
    if pieces.len() > MOST_PIECES {
        return Err(Why::TooManyPieces);
    }
    let found = assemble(&pixels, &ground, &pieces)?;
    let drawn = draw(&ground, &found);
    let far = |(p, q): (&Rgb, &Rgb)| apart2(*p, *q) > RESIDUE.0 * RESIDUE.0;
    let residue = smooth.iter().zip(&pieces::smooth(&drawn)).filter(|pair| far(*pair)).count();
    if residue > RESIDUE.1 {
        return Err(Why::Unexplained);
    }
    let objects = found.iter().map(|f| f.object).collect();
    let scene = Scene { background: ground.background, objects };
    let render = scene.render();
    let render: Vec<Rgb> =
        render.data().chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(f64::from)).collect();
    let box_of = |o: &Object| Bounds::around(o, 2.0);
    let matches =
        scene.objects.iter().map(|o| ssim::similarity(&pixels, &render, box_of(o))).collect();
    let whole = Bounds { left: 0, top: 0, right: SIDE, bottom: SIDE };
    let similarity = ssim::similarity(&pixels, &render, whole);
    Ok((scene, matches, similarity))
}

/// Keeps the objects that explain the picture, in the order of depth that explains it best.
fn assemble(pixels: &[Rgb], ground: &Ground, pieces: &[Piece]) -> Result<Vec<Found>, Why> {
    let mut found: Vec<Found> = Vec::new();
    let mut left = difference(pixels, &draw(ground, &found));
    for (i, piece) in pieces.iter().enumerate() {
        if apart2(piece.rgb, piece.colour.rgb().map(f64::from)) > COLOUR_SHIFT * COLOUR_SHIFT {
            continue;
        }
        let target = Target::new(pixels, ground, pieces, i);
        let candidates = target.candidates(piece);
        let Some((_, object)) = candidates.first() else { continue };
        let candidate = Found { object: *object, rgb: piece.rgb };
        let mut with = found.clone();
        with.push(candidate);
        let (order, then) = best_order(pixels, ground, &with);
        let contrast = apart2(piece.rgb, ground.rgb) * area(object);
        if left - then >= LEAST_GAIN * contrast {
            if found.len() == 3 {
                return Err(Why::TooManyObjects);
            }
            (found, left) = (order, then);
        }
    }
    if found.is_empty() { Err(Why::NoObject) } else { Ok(found) }
}

/// The number of pixels that an object covers.
fn area(object: &Object) -> f64 {
    super::render::cover(object).iter().sum()
}

/// The picture of what was found, in the colours that it was found in.
fn draw(ground: &Ground, found: &[Found]) -> Vec<Rgb> {
    let mut canvas = vec![ground.rgb; SIDE * SIDE];
    for f in found {
        paint_as(&mut canvas, &f.object, f.rgb);
    }
    canvas
}

/// The squared difference of two pictures.
fn difference(a: &[Rgb], b: &[Rgb]) -> f64 {
    a.iter().zip(b).map(|(p, q)| apart2(*p, *q)).sum()
}

/// The order of depth that leaves the least difference: the last of `found` is tried at every depth.
fn best_order(pixels: &[Rgb], ground: &Ground, found: &[Found]) -> (Vec<Found>, f64) {
    let mut best = (found.to_vec(), difference(pixels, &draw(ground, found)));
    let mut order = found.to_vec();
    for i in (1..order.len()).rev() {
        order.swap(i, i - 1);
        let left = difference(pixels, &draw(ground, &order));
        if left < best.1 {
            best = (order.clone(), left);
        }
    }
    best
}
