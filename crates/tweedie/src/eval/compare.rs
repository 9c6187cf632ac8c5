//! All distribution measures at once, each beside its noise floor.

use super::frechet::{Moments, between};
use super::kernel::{KernelOptions, kernel};
use super::precision_recall::{K, precision_recall};
use super::{Better, Features, Measure, Report, STREAM};
use crate::random::Key;
use crate::{Error, Result};

/// How two sets are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompareOptions {
    /// What the report says is measured.
    pub title: String,
    /// What the report calls the features.
    pub features: String,
    /// The most samples on each side; all that there are.
    pub samples: Option<usize>,
    /// The neighbours that define a ball for precision and recall; 3.
    pub k: usize,
    /// Into how many blocks the kernel distance deals the samples; 10.
    pub blocks: usize,
    /// What the dealing of the real samples depends on; 0.
    pub seed: u64,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self {
            title: String::new(),
            features: String::new(),
            samples: None,
            k: K,
            blocks: KernelOptions::default().blocks,
            seed: 0,
        }
    }
}

/// Compares generated with real samples.
///
/// The real samples are dealt at random into two disjoint sets of `m` samples each, `m` being as
/// many as there are generated ones or half of the real ones, whichever is less. One set is what
/// the generated samples are compared with. The other takes the place of the generated ones once:
/// what it scores is the noise floor, the best that can be told apart with so many samples. Both
/// comparisons thus have the same bias.
///
/// # Errors
/// [`Error::Shape`] if the features differ in width; [`Error::Setting`] if there are too few
/// samples for the settings.
pub fn compare(generated: &Features, real: &Features, options: &CompareOptions) -> Result<Report> {
    generated.comparable(real, 1)?;
    let m = generated.len().min(real.len() / 2).min(options.samples.unwrap_or(usize::MAX));
    if m <= options.k || m < 2 * options.blocks {
        let why = format!(
            "{m} on each side (of {} generated and {} real), wanted more than {} and at least {}",
            generated.len(),
            real.len(),
            options.k,
            2 * options.blocks
        );
        return Err(Error::setting("samples", why));
    }
    let deal = |n, index| Key::new(options.seed, STREAM + 3, index).generator().permutation(n);
    let order = deal(real.len(), 0);
    let reference = real.select(&order[..m])?;
    let held_out = real.select(&order[m..2 * m])?;
    // All generated samples are used where they can be; which ones matters only where they cannot.
    let some = (generated.len() > m).then(|| generated.select(&deal(generated.len(), 1)[..m]));
    let some = some.transpose()?;
    let sample = some.as_ref().unwrap_or(generated);

    let moments = Moments::of(&reference)?;
    let distance = between(&moments, &Moments::of(sample)?)?;
    let floor = between(&moments, &Moments::of(&held_out)?)?;
    let near = KernelOptions { blocks: options.blocks, seed: options.seed };
    let kernel_distance = kernel(&reference, sample, &near)?;
    let kernel_floor = kernel(&reference, &held_out, &near)?;
    let pr = precision_recall(&reference, sample, options.k)?;
    let pr_floor = precision_recall(&reference, &held_out, options.k)?;

    let mut notes = Vec::new();
    if generated.len() > m {
        notes.push(format!("{m} of {} generated samples were used", generated.len()));
    }
    if moments.rank() < real.width() {
        notes.push(format!(
            "the real features vary in {} of {} directions",
            moments.rank(),
            real.width()
        ));
    }
    let higher =
        |name: &str, value, floor| Measure::new(name, value, Better::Higher).with_floor(floor);
    Ok(Report {
        title: options.title.clone(),
        features: options.features.clone(),
        samples: m,
        measures: vec![
            Measure::new("frechet distance", distance.distance, Better::Lower)
                .with_floor(floor.distance),
            Measure::new("kernel distance", kernel_distance.distance, Better::Lower)
                .with_standard_error(kernel_distance.standard_error)
                .with_floor(kernel_floor.distance),
            higher("precision", pr.precision, pr_floor.precision),
            higher("recall", pr.recall, pr_floor.recall),
            higher("density", pr.density, pr_floor.density),
            higher("coverage", pr.coverage, pr_floor.coverage),
        ],
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clusters in 6 dimensions, and noise of a given size on top.
    fn clusters(n: usize, seed: u64, noise: f64) -> Features {
        let mut g = Key::new(seed, 0, 0).generator();
        let mut data = Vec::new();
        for _ in 0..n {
            let c = g.below(3) as f64;
            for j in 0..6 {
                let centre = 4.0 * (c * f64::from(j + 1)).sin();
                data.push((centre + g.normal() + noise * g.normal()) as f32);
            }
        }
        Features::new(n, 6, data).unwrap()
    }

    #[test]
    fn a_perfect_generator_reaches_the_noise_floor() {
        let r =
            compare(&clusters(700, 1, 0.0), &clusters(1500, 2, 0.0), &CompareOptions::default());
        let r = r.unwrap();
        assert_eq!((r.samples, r.notes.len()), (700, 0));
        for m in &r.measures {
            let floor = m.noise_floor.unwrap();
            match m.name.as_str() {
                "frechet distance" => assert!(m.value < 2.0 * floor, "{m:?}"),
                "kernel distance" => {
                    assert!((m.value - floor).abs() < 4.0 * m.standard_error.unwrap());
                }
                _ => assert!((m.value - floor).abs() < 0.06, "{m:?}"),
            }
        }
    }

    #[test]
    fn every_measure_falls_as_the_samples_are_spoilt() {
        let real = clusters(1200, 2, 0.0);
        let mut last: Option<Report> = None;
        for noise in [0.0, 1.0, 2.0, 4.0, 8.0] {
            let r = compare(&clusters(600, 1, noise), &real, &CompareOptions::default()).unwrap();
            if let Some(last) = &last {
                for (now, before) in r.measures.iter().zip(&last.measures) {
                    let (worse, better) = match now.better {
                        Better::Lower => (now.value, before.value),
                        Better::Higher => (before.value, now.value),
                    };
                    // Recall first rises with the wide balls of noisy samples, as is known of it.
                    assert!(
                        now.name == "recall" || worse > better,
                        "{noise}: {now:?} after {before:?}"
                    );
                }
            }
            last = Some(r);
        }
    }

    #[test]
    fn both_comparisons_have_the_same_number_of_samples() {
        let options = CompareOptions { samples: Some(100), ..CompareOptions::default() };
        let r = compare(&clusters(300, 1, 0.0), &clusters(300, 2, 0.0), &options).unwrap();
        assert_eq!(
            (r.samples, r.notes[0].as_str()),
            (100, "100 of 300 generated samples were used")
        );
        let r = compare(&clusters(300, 1, 0.0), &clusters(300, 2, 0.0), &CompareOptions::default());
        assert_eq!(r.unwrap().samples, 150);
        assert!(compare(&clusters(19, 1, 0.0), &clusters(300, 2, 0.0), &options).is_err());
    }
}
