//! What a mask keeps, put back into the result.

use crate::data::Images;
use crate::engine::inputs::Inputs;
use crate::engine::task::canvas;
use crate::error::Result;
use crate::media;
use crate::spec::Spec;

/// Puts the picture that a run started from over its results where the mask keeps it: black whole,
/// grey in part, as `(mask result + (255 - mask) picture) / 255` of each pixel.
///
/// # Errors
///
/// What resizing says.
pub(super) fn put_back(spec: &Spec, inputs: &Inputs, results: &mut Images) -> Result<()> {
    let Some(init) = inputs.init.as_ref().filter(|_| spec.task.keep) else { return Ok(()) };
    let sides = spec.task.extend.unwrap_or_default();
    let [left, top, right, bottom] = sides;
    let (height, width) = (results.height, results.width);
    let inner = [height - top - bottom, width - left - right];
    let init = media::extended(&media::resized(init, inner[0], inner[1])?, sides)?;
    let init = media::with_channels(&init, results.channels)?;
    let mask = canvas(inputs.mask.as_ref(), inner, sides)?;
    let (pixels, picture) = (height * width, height * width * results.channels);
    for result in results.data.chunks_exact_mut(picture.max(1)) {
        for (i, pixel) in result.iter_mut().enumerate() {
            let weight = u32::from(mask.data[i % pixels]);
            let sum = weight * u32::from(*pixel) + (255 - weight) * u32::from(init.data[i]);
            *pixel = ((sum + 127) / 255) as u8;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{SourceFile, Task};

    fn grey(channels: usize, data: Vec<u8>) -> Images {
        Images::new([1, channels, 2, data.len() / channels / 2], data).unwrap()
    }

    #[test]
    fn what_is_black_comes_back_and_grey_is_mixed() {
        let file = || Some(SourceFile { name: "a.png".into(), hash: "0f".repeat(32) });
        let task = Task { init: file(), mask: file(), keep: true, ..Task::default() };
        let mut spec = Spec { task, ..Spec::default() };
        let inputs = Inputs {
            init: Some(grey(1, vec![10, 20, 30, 40])),
            mask: Some(grey(1, vec![0, 255, 51, 0])),
            ..Inputs::default()
        };
        let mut results = Images::new([2, 1, 2, 2], vec![110; 8]).unwrap();
        put_back(&spec, &inputs, &mut results).unwrap();
        assert_eq!(results.data, [10, 110, 46, 40, 10, 110, 46, 40]);
        // Beyond the picture nothing is put back.
        (spec.task.mask, spec.task.extend) = (None, Some([1, 0, 0, 0]));
        let inputs = Inputs { mask: None, ..inputs };
        let mut results = Images::new([1, 1, 2, 3], vec![99; 6]).unwrap();
        put_back(&spec, &inputs, &mut results).unwrap();
        assert_eq!(results.data, [99, 10, 20, 99, 30, 40]);
        spec.task.keep = false;
        let mut results = Images::new([1, 1, 2, 3], vec![99; 6]).unwrap();
        put_back(&spec, &inputs, &mut results).unwrap();
        assert_eq!(results.data, [99; 6]);
    }
}
