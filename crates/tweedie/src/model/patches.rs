//! Images as patches: how many there are, where they are, and back to an image.

use burn::tensor::{Tensor, TensorData};

use crate::error::{Error, Result};

/// Rows and columns of patches of an image.
///
/// # Errors
///
/// [`Error::Shape`] where its sides do not divide into patches.
pub(super) fn grid(image: &Tensor<4>, patch: usize) -> Result<[usize; 2]> {
    let [batch, channels, height, width] = image.dims();
    if height.is_multiple_of(patch) && width.is_multiple_of(patch) {
        return Ok([height / patch, width / patch]);
    }
    let wanted =
        vec![batch, channels, height.next_multiple_of(patch), width.next_multiple_of(patch)];
    Err(Error::Shape {
        what: format!("image in patches of {patch} pixels"),
        wanted,
        found: vec![batch, channels, height, width],
    })
}

/// The sines and cosines of the patches' places, `[1, patches, width]`: the first half of the
/// features tells the column, the second the row. Places are brought to a grid of `base` patches a
/// side, the one that the network was made for.
pub(super) fn positions(
    [rows, columns]: [usize; 2],
    width: usize,
    base: f64,
    beside: &Tensor<4>,
) -> Tensor<3> {
    // Rounded to f32 where the published code does.
    let places = |n: usize| -> Vec<f64> {
        (0..n).map(|i| f64::from(i as f32 / (n as f64 / base) as f32)).collect()
    };
    let (down, across) = (places(rows), places(columns));
    let quarter = width / 4;
    let omega: Vec<f64> =
        (0..quarter).map(|i| 10000_f64.powf(-(i as f64) / quarter as f64)).collect();
    let mut values = Vec::with_capacity(rows * columns * width);
    for y in &down {
        for x in &across {
            for place in [x, y] {
                values.extend(omega.iter().map(|o| (place * o).sin() as f32));
                values.extend(omega.iter().map(|o| (place * o).cos() as f32));
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [1, rows * columns, width]), &beside.device())
}

/// Tokens `[batch, patches, patch * patch * channels]` to an image.
pub(super) fn joined(x: Tensor<3>, [rows, columns]: [usize; 2], patch: usize) -> Tensor<4> {
    let [batch, _, features] = x.dims();
    let channels = features / (patch * patch);
    x.reshape([batch, rows, columns, patch, patch, channels]).permute([0, 5, 1, 3, 2, 4]).reshape([
        batch,
        channels,
        rows * patch,
        columns * patch,
    ])
}
