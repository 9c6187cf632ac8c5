//! How well the reader reads: drawn pictures that were disturbed, and pictures of something else.

use serde::Serialize;

use super::asked::Asked;
use super::draws::{Draws, Purpose};
use super::picture::Picture;
use super::reader::{Reading, read};
use super::scene::Scene;
use super::score::score_reading;
use super::split::Split;

/// What is done to a picture before it is read, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Disturbance {
    /// The standard deviation of a Gaussian blur, in pixels.
    pub blur: f64,
    /// The length of a shift of all colours, of 255, in a direction drawn for each picture.
    pub shift: f64,
    /// The standard deviation of noise on every value, of 255.
    pub noise: f64,
}

/// How pictures of known scenes were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Legibility {
    /// How many pictures there were.
    pub pictures: u64,
    /// In how many background, number, shapes, colours, size classes and places were all right.
    pub right: u64,
    /// In how many, besides, every object's drawing matched the picture.
    pub counted: u64,
    /// How many were called unreadable.
    pub unreadable: u64,
    /// The mean overlap (intersection over union) of true and read boxes, over right pictures.
    pub box_overlap: f64,
    /// The peak signal-to-noise ratio of the disturbed pictures to the clean ones, in dB; infinite
    /// where nothing was done.
    pub psnr: f64,
}

impl Disturbance {
    /// The disturbances of the published curve, from none to strong.
    pub fn curve() -> Vec<Self> {
        let none = Self::default();
        let blur = |blur| Self { blur, ..none };
        let shift = |shift| Self { shift, ..none };
        let noise = |noise| Self { noise, ..none };
        let blurs = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0].map(blur);
        let shifts = [10.0, 20.0, 30.0, 40.0].map(shift);
        let noises = [2.0, 4.0, 8.0, 16.0, 32.0, 48.0].map(noise);
        // What a small autoencoder does, all three at once.
        let mixed = [
            Self { blur: 0.6, shift: 5.0, noise: 2.0 },
            Self { blur: 0.9, shift: 10.0, noise: 4.0 },
        ];
        [&[none][..], &blurs, &shifts, &noises, &mixed].concat()
    }

    /// Disturbs a picture; the shift's direction and the noise are functions of (seed, index).
    pub fn apply(&self, picture: &Picture, seed: u64, index: u64) -> Picture {
        let mut picture = picture.blurred(self.blur);
        if self.shift > 0.0 {
            let mut draws = Draws::new(seed, index, Purpose::Shift);
            let line = [draws.normal(), draws.normal(), draws.normal()];
            let length = line.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-9);
            picture = picture.shifted(line.map(|v| v / length * self.shift));
        }
        if self.noise > 0.0 { picture.noisy(self.noise, seed, index) } else { picture }
    }
}

/// Draws scenes 0 to `count` of `seed`, a third from each split, disturbs the pictures and reads them.
pub fn legibility(seed: u64, count: u64, disturbance: &Disturbance) -> Legibility {
    let mut sum = Legibility { pictures: count, ..Legibility::default() };
    let (mut overlap, mut boxes, mut error) = (0.0, 0_u32, 0.0);
    for index in 0..count {
        let scene = Scene::sample(seed, index, Split::ALL[(index % 3) as usize]);
        let clean = scene.render();
        let picture = disturbance.apply(&clean, seed, index);
        error += clean.squared_error(&picture).unwrap_or(f64::NAN);
        let reading = read(&picture);
        let score = score_reading(&reading, &Asked::all_of(&scene));
        sum.unreadable += u64::from(score.unreadable.is_some());
        sum.counted += u64::from(score.all_right());
        if !score.all_named_right() {
            continue;
        }
        sum.right += 1;
        if let Reading::Scene { scene: seen, .. } = reading {
            let (truth, seen_truth) = (scene.truth(), seen.truth());
            for (object, bounds) in scene.objects.iter().zip(&truth.boxes) {
                let same = |(o, _): &(&super::scene::Object, _)| {
                    (o.shape, o.colour) == (object.shape, object.colour)
                };
                let twin = seen.objects.iter().zip(&seen_truth.boxes).find(same);
                overlap += twin.map_or(0.0, |(_, b)| b.overlap(bounds));
                boxes += 1;
            }
        }
    }
    sum.box_overlap = overlap / f64::from(boxes.max(1));
    sum.psnr = 10.0 * (255.0 * 255.0 * count as f64 / error).log10();
    sum
}

/// Pictures that show no scene of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    /// Uniform noise on every value.
    UniformNoise,
    /// Normal noise around middle gray, of standard deviation 64.
    NormalNoise,
    /// Normal noise, blurred by 2 pixels: soft blobs of all colours.
    BlurredNoise,
    /// The mean of two pictures of scenes.
    AveragedPair,
    /// The mean of two pictures of scenes that have the same background, the hardest kind.
    AveragedPairOfOneBackground,
}

impl Foreign {
    /// All kinds.
    pub const ALL: &'static [Self] = &[
        Self::UniformNoise,
        Self::NormalNoise,
        Self::BlurredNoise,
        Self::AveragedPair,
        Self::AveragedPairOfOneBackground,
    ];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::UniformNoise => "uniform noise",
            Self::NormalNoise => "normal noise",
            Self::BlurredNoise => "blurred noise",
            Self::AveragedPair => "averaged pairs of scenes",
            Self::AveragedPairOfOneBackground => "averaged pairs with one background",
        }
    }

    /// Picture number `index` of `seed`.
    pub fn picture(self, seed: u64, index: u64) -> Picture {
        let gray = Picture::plain(64, 64, [128; 3]);
        let scene = |k: u64| Scene::sample(seed, 2 * index + k, Split::Train);
        let mean = |a: Scene, b: Scene| a.render().average(&b.render()).unwrap_or(gray.clone());
        match self {
            Self::UniformNoise => {
                let mut draws = Draws::new(seed, index, Purpose::Noise);
                let data = (0..64 * 64 * 3).map(|_| draws.below(256) as u8).collect();
                Picture::from_rgb(64, 64, data).unwrap_or(gray)
            }
            Self::NormalNoise => gray.noisy(64.0, seed, index),
            Self::BlurredNoise => gray.noisy(128.0, seed, index).blurred(2.0),
            Self::AveragedPair => mean(scene(0), scene(1)),
            Self::AveragedPairOfOneBackground => {
                let (a, b) = (scene(0), scene(1));
                let background = a.background;
                mean(a, Scene { background, ..b })
            }
        }
    }
}

/// The number of pictures that the reader calls unreadable.
pub fn unreadable<'a>(pictures: impl IntoIterator<Item = &'a Picture>) -> u64 {
    let refused = |p: &&Picture| matches!(read(p), Reading::Unreadable { .. });
    pictures.into_iter().filter(refused).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clean_picture_is_read() {
        let clean = legibility(101, 2400, &Disturbance::default());
        assert_eq!((clean.right, clean.counted, clean.unreadable), (2400, 2400, 0));
        assert!(clean.box_overlap > 0.99 && clean.psnr.is_infinite(), "{clean:?}");
    }

    #[test]
    fn pictures_of_half_the_side_are_read() {
        let (mut right, mut counted) = (0, 0);
        for index in 0..600 {
            let scene = Scene::sample(104, index, Split::ALL[(index % 3) as usize]);
            let picture = scene.render_at(32).unwrap();
            let score = score_reading(&read(&picture), &Asked::all_of(&scene));
            right += u32::from(score.all_named_right());
            counted += u32::from(score.all_right());
        }
        println!("{right} {counted}");
        assert!(right >= 597 && counted >= 594, "{right} {counted} of 600");
    }

    #[test]
    fn reading_fades_with_blur_and_noise() {
        let right = |disturbance| legibility(102, 150, &disturbance).right;
        let blur = |blur| right(Disturbance { blur, ..Disturbance::default() });
        let noise = |noise| right(Disturbance { noise, ..Disturbance::default() });
        assert!(blur(0.75) >= 149 && blur(1.5) >= 130 && blur(1.5) > blur(2.5));
        assert!(noise(8.0) >= 149 && noise(24.0) >= 145 && noise(24.0) > noise(60.0));
        assert!(right(Disturbance { shift: 15.0, ..Disturbance::default() }) >= 148);
        let soft = Disturbance { blur: 0.6, shift: 5.0, noise: 2.0 };
        let soft = legibility(103, 150, &soft);
        assert!(soft.counted >= 148 && soft.psnr > 26.0, "{soft:?}");
    }

    #[test]
    fn what_is_no_scene_is_unreadable() {
        for &kind in Foreign::ALL {
            let pictures: Vec<Picture> = (0..500).map(|i| kind.picture(7, i)).collect();
            let refused = unreadable(&pictures);
            assert!(refused >= 495, "{kind:?} {refused} of 500");
        }
    }

    #[test]
    fn fashion_mnist_is_unreadable() {
        let folder = crate::data_or_skip!("fashion-mnist");
        let idx = crate::data::idx::read(&folder.join("t10k-images-idx3-ubyte.gz")).unwrap();
        for negative in [false, true] {
            let pictures: Vec<Picture> =
                idx.data.chunks_exact(28 * 28).take(1000).map(|p| enlarged(p, negative)).collect();
            let refused = unreadable(&pictures);
            assert!(refused >= 990, "negative {negative}: {refused} of 1000");
        }
    }

    /// A gray picture of 28x28 as one of 64x64 in colour.
    fn enlarged(gray: &[u8], negative: bool) -> Picture {
        let tone = |v: &u8| [if negative { 255 - v } else { *v }; 3];
        let image =
            image::RgbImage::from_raw(28, 28, gray.iter().flat_map(tone).collect()).unwrap();
        let filter = image::imageops::FilterType::Triangle;
        Picture::from_image(&image::imageops::resize(&image, 64, 64, filter))
    }
}
