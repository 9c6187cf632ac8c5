//! Encoding and decoding by tiles, for pictures whose activations do not fit into memory.
//!
//! Tiles that are decoded alone and blended, as other programs do it, differ in tone, because every
//! group norm takes its moments over the tile, and the attention in the middle sees the tile alone.
//! Moments that are estimated, from the tiles or from a smaller picture, leave a difference that does
//! not go away with further passes. So here they are exact:
//!
//! - the part at low resolution, the attention included, runs over the whole picture, where it is
//!   small;
//! - the part at high resolution runs block by block. Only the input and the result of one block are
//!   in memory as a whole. The block goes over its tiles three times: for the moments of its first
//!   norm, for those of its second, and for the result;
//! - a tile comes with as much of its surroundings as the block's convolutions see, so that it needs
//!   no blending; resizing before a block is part of the block.
//!
//! Autoencoders with attention at high resolution, which needs the whole picture, run as a whole.
//!
//! The result is that of the whole picture up to rounding. A network of a quarter of the published
//! width took 37 s and 0.99 GB for a picture of 1024 by 1024 pixels as a whole, and 84 s and 0.63 GB by
//! tiles of 256, weights and program included, with pictures at most 1 of 255 apart.

use burn::tensor::{Tensor, TensorData};

use super::{AutoencoderKl, Decoder, Encoder, LOGVAR};
use crate::denoiser::Pass;
use crate::error::{Error, Result};
use crate::model::config::Activation;
use crate::model::edge::numbers;
use crate::model::layers::{Conv2d, GroupNorm};
use crate::model::norms::{Core, Moments, moments};
use crate::model::resnet::{Downsample, Resnet, Staged, Upsample};
use crate::model::site::Given;

/// How far a block sees, with what stands before it, in pixels of its input: at most two of its own
/// convolutions at half the size, and one that halves.
const HALO: usize = 8;

/// What brings a block's input to its size.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Nothing,
    Conv(&'a Conv2d),
    Half(&'a Downsample),
    Double(&'a Upsample),
}

/// What a block does then.
#[derive(Clone, Copy)]
enum Body<'a> {
    Nothing,
    Resnet(&'a Resnet),
    Out(&'a GroupNorm, &'a Conv2d),
}

/// A block that runs by tiles.
#[derive(Clone, Copy)]
struct Block<'a> {
    entry: Entry<'a>,
    body: Body<'a>,
}

impl Block<'_> {
    /// Its result's size over that of its input.
    fn scale(&self) -> (usize, usize) {
        match self.entry {
            Entry::Nothing | Entry::Conv(_) => (1, 1),
            Entry::Half(_) => (1, 2),
            Entry::Double(_) => (2, 1),
        }
    }

    /// A tile, as far as the moments are known.
    fn run(&self, x: Tensor<4>, known: &[Vec<Moments>]) -> Result<Staged> {
        let (given, mut pass) = (Given::default(), Pass::default());
        let x = match self.entry {
            Entry::Nothing => x,
            Entry::Conv(conv) => conv.forward(x),
            Entry::Half(half) => half.forward(x, &given, &mut pass)?,
            Entry::Double(double) => {
                let [_, _, height, width] = x.dims();
                double.forward(x, [2 * height, 2 * width], &given, &mut pass)?
            }
        };
        Ok(match (self.body, known) {
            (Body::Nothing, _) => Staged::Done(x),
            (Body::Resnet(resnet), known) => resnet.staged(x, known),
            (Body::Out(norm, _), []) => Staged::Needs(x, norm.groups()),
            (Body::Out(norm, conv), [first, ..]) => {
                Staged::Done(conv.forward(norm.with_moments(x, first, Activation::Silu)))
            }
        })
    }

    /// The block over a picture `[1, c, h, w]`, by tiles of about `tile` pixels a side of its input
    /// or, where it doubles, of its result.
    fn over(
        &self,
        x: &Tensor<4>,
        tile: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor<4>> {
        let (up, down) = self.scale();
        let tile = tile.div_ceil(up);
        let [_, _, height, width] = x.dims();
        let axes = [spans(height, tile, HALO, down), spans(width, tile, HALO, down)];
        let size = [height * up / down, width * up / down];
        let mut known: Vec<Vec<Moments>> = Vec::new();
        let mut out = Vec::new();
        loop {
            let mut measured: Option<Vec<Moments>> = None;
            for row in &axes[0] {
                for column in &axes[1] {
                    if stop() {
                        return Err(Error::Stopped);
                    }
                    let core = Core::of(row, column);
                    match self.run(cut(x, row, column), &known)? {
                        Staged::Needs(x, groups) => {
                            let here = moments(&core.cut(&x), groups);
                            measured = Some(match measured {
                                None => here,
                                Some(all) => {
                                    all.into_iter().zip(here).map(|(a, b)| a.joined(b)).collect()
                                }
                            });
                        }
                        Staged::Done(made) => {
                            let at = [row.core[0] * up / down, column.core[0] * up / down];
                            put(&mut out, &core.cut(&made), size, at);
                        }
                    }
                }
            }
            match measured {
                Some(measured) => known.push(measured),
                None => break,
            }
        }
        let channels = out.len() / (size[0] * size[1]).max(1);
        let data = TensorData::new(out, [1, channels, size[0], size[1]]);
        Ok(Tensor::from_data(data, &x.device()))
    }
}

/// A tile along one axis: its own part, and with its surroundings.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    core: [usize; 2],
    wide: [usize; 2],
}

/// An axis of `side` cut into tiles of about `tile`, all of them multiples of `unit`, with `halo`
/// around.
fn spans(side: usize, tile: usize, halo: usize, unit: usize) -> Vec<Span> {
    let count = side.div_ceil(tile.max(unit)).max(1);
    let each = side.div_ceil(count).next_multiple_of(unit).max(unit);
    let span = |start: usize| {
        let core = [start, (start + each).min(side)];
        Span { core, wide: [core[0].saturating_sub(halo), (core[1] + halo).min(side)] }
    };
    (0..side).step_by(each).map(span).collect()
}

impl Core {
    fn of(row: &Span, column: &Span) -> Self {
        Self {
            rows: row.core.map(|v| v - row.wide[0]),
            columns: column.core.map(|v| v - column.wide[0]),
            tile: [row.wide[1] - row.wide[0], column.wide[1] - column.wide[0]],
        }
    }
}

fn cut(x: &Tensor<4>, row: &Span, column: &Span) -> Tensor<4> {
    let ([top, bottom], [left, right]) = (row.wide, column.wide);
    x.clone().narrow(2, top, bottom - top).narrow(3, left, right - left)
}

/// Puts a tile's numbers where they belong in a picture of this size.
fn put(out: &mut Vec<f32>, tile: &Tensor<4>, [height, width]: [usize; 2], [top, left]: [usize; 2]) {
    let [_, channels, rows, columns] = tile.dims();
    out.resize(channels * height * width, 0.0);
    let values: Vec<f32> = tile.clone().into_data_as::<f32>().iter::<f32>().collect();
    for (i, line) in values.chunks_exact(columns.max(1)).enumerate() {
        let (channel, row) = (i / rows, i % rows);
        let start = (channel * height + top + row) * width + left;
        out[start..start + columns].copy_from_slice(line);
    }
}

impl AutoencoderKl {
    /// As [`AutoencoderKl::decode`], the part at high resolution by tiles of about `tile` pixels a
    /// side. `stop` is asked before every tile; `true` ends it with [`Error::Stopped`].
    ///
    /// # Errors
    ///
    /// As [`AutoencoderKl::decode`]; [`Error::Setting`] for a tile of no size.
    pub fn decode_tiled(
        &self,
        z: &Tensor<4>,
        tile: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor<4>> {
        check(tile)?;
        let z = numbers("latents for the decoder", z, self.config.latent_channels, self.weight())?;
        if self.decoder.up_blocks.iter().skip(1).any(|up| !up.stack.attentions.is_empty()) {
            return self.decode(&z);
        }
        let mut images = Vec::with_capacity(z.dims()[0]);
        for row in 0..z.dims()[0] {
            let z = z.clone().narrow(0, row, 1);
            let z = match &self.post_quant_conv {
                Some(layer) => layer.forward(z),
                None => z,
            };
            let mut x = self.decoder.low(z)?;
            for block in self.decoder.high() {
                x = block.over(&x, tile, stop)?;
            }
            images.push(x);
        }
        Ok(Tensor::cat(images, 0))
    }

    /// As [`AutoencoderKl::encode`], the part at high resolution by tiles of about `tile` pixels a
    /// side; sides that cannot be halved evenly are encoded as a whole. `stop` as for
    /// [`AutoencoderKl::decode_tiled`].
    ///
    /// # Errors
    ///
    /// As [`AutoencoderKl::encode`]; [`Error::Setting`] for a tile of no size.
    pub fn encode_tiled(
        &self,
        x: &Tensor<4>,
        tile: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        check(tile)?;
        let x = numbers("image for the encoder", x, self.config.in_channels, self.weight())?;
        let [rows, _, height, width] = x.dims();
        self.encoder.fits([height, width])?;
        let unit = self.encoder.shrinkage();
        let halved = self.encoder.down_blocks.iter().filter(|d| !d.downsamplers.is_empty());
        let attends = halved.into_iter().any(|down| !down.stack.attentions.is_empty());
        if attends || height % unit != 0 || width % unit != 0 {
            return self.encode(&x);
        }
        let mut all = Vec::with_capacity(rows);
        for row in 0..rows {
            let mut x = x.clone().narrow(0, row, 1);
            for block in self.encoder.high() {
                x = block.over(&x, tile, stop)?;
            }
            all.push(self.encoder.low(x)?);
        }
        let moments = Tensor::cat(all, 0);
        let moments = match &self.quant_conv {
            Some(layer) => layer.forward(moments),
            None => moments,
        };
        let latent = self.config.latent_channels;
        let mean = moments.clone().narrow(1, 0, latent);
        let logvar = moments.narrow(1, latent, latent).clamp(LOGVAR[0], LOGVAR[1]);
        Ok((mean, logvar))
    }
}

fn check(tile: usize) -> Result<()> {
    if tile > 0 {
        return Ok(());
    }
    Err(Error::setting("vae tile", "0 pixels a side"))
}

impl Decoder {
    /// The part at the resolution of the latents.
    fn low(&self, z: Tensor<4>) -> Result<Tensor<4>> {
        let mut pass = Pass::default();
        let mut x = self.mid_block.forward(self.conv_in.forward(z), &mut pass)?;
        if let Some(up) = self.up_blocks.first() {
            x = up.stack.forward(x, &mut pass)?;
        }
        Ok(x)
    }

    /// The blocks from the first doubling on.
    fn high(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut entry = Entry::Nothing;
        for (i, up) in self.up_blocks.iter().enumerate() {
            for resnet in up.stack.resnets.iter().filter(|_| i > 0) {
                blocks.push(Block { entry, body: Body::Resnet(resnet) });
                entry = Entry::Nothing;
            }
            for double in &up.upsamplers {
                entry = Entry::Double(double);
            }
        }
        blocks.push(Block { entry, body: Body::Out(&self.conv_norm_out, &self.conv_out) });
        blocks
    }
}

impl Encoder {
    /// The blocks up to the last halving.
    fn high(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut entry = Entry::Conv(&self.conv_in);
        for down in self.down_blocks.iter().filter(|d| !d.downsamplers.is_empty()) {
            for resnet in &down.stack.resnets {
                blocks.push(Block { entry, body: Body::Resnet(resnet) });
                entry = Entry::Nothing;
            }
            for half in &down.downsamplers {
                entry = Entry::Half(half);
            }
        }
        blocks.push(Block { entry, body: Body::Nothing });
        blocks
    }

    /// The part behind them.
    fn low(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        let (mut x, mut pass) = (x, Pass::default());
        for down in self.down_blocks.iter().filter(|d| d.downsamplers.is_empty()) {
            x = down.stack.forward(x, &mut pass)?;
        }
        let x = self.mid_block.forward(x, &mut pass)?;
        Ok(self.conv_out.forward(self.conv_norm_out.silu(x)))
    }

    /// How many times smaller the tiled part makes a picture.
    fn shrinkage(&self) -> usize {
        1 << self.down_blocks.iter().map(|down| down.downsamplers.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::config::{AutoencoderKlConfig, Config};
    use crate::random::Key;
    use crate::weight::Parameters;

    /// Four levels, as the published ones; a network with drawn weights is livelier than a trained
    /// one, and its tiles differ more.
    fn network() -> AutoencoderKl {
        let (down, up) = (["DownEncoderBlock2D"; 4], ["UpDecoderBlock2D"; 4]);
        let settings = serde_json::json!({
            "latent_channels": 4, "block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4,
            "down_block_types": down, "layers_per_block": 1,
            "up_block_types": up, "sample_size": 64,
        });
        let mut all = serde_json::to_value(AutoencoderKlConfig::default()).unwrap();
        for (key, value) in settings.as_object().unwrap() {
            all[key] = value.clone();
        }
        let config: AutoencoderKlConfig = serde_json::from_value(all).unwrap();
        config.validate().unwrap();
        let mut network = AutoencoderKl::new(config, &Device::flex()).unwrap();
        let mut index = 0;
        network.each_mut("", &mut |path, weight| {
            index += 1;
            let mut generator = Key::new(3, 0, index).generator();
            let fan = weight.shape().iter().skip(1).product::<usize>().max(1) as f64;
            let (scale, shift) = match weight.shape().len() {
                1 if path.contains("norm") && path.ends_with("weight") => (0.1, 1.0),
                1 => (0.1, 0.0),
                _ => (fan.sqrt().recip(), 0.0),
            };
            let draw = |_| (shift + scale * generator.normal()) as f32;
            weight.set_vec((0..weight.count()).map(draw).collect()).unwrap();
        });
        network
    }

    /// Something with large shapes: tones that differ from one side to the other.
    fn image(channels: usize, height: usize, width: usize) -> Tensor<4> {
        let mut generator = Key::new(4, 0, 0).generator();
        let mut values = Vec::new();
        for c in 0..channels {
            for y in 0..height {
                for x in 0..width {
                    let wave = (x as f64 * 3.0 / width as f64 + c as f64).sin()
                        - (y as f64 * 5.0 / height as f64).cos();
                    values.push((0.6 * wave + 0.15 * generator.normal()) as f32);
                }
            }
        }
        let data = TensorData::new(values, [1, channels, height, width]);
        Tensor::from_data(data, &Device::flex())
    }

    fn apart(a: &Tensor<4>, b: &Tensor<4>) -> f64 {
        let host =
            |t: &Tensor<4>| t.clone().into_data_as::<f64>().iter::<f64>().collect::<Vec<_>>();
        let (a, b) = (host(a), host(b));
        let size = a.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        a.iter().zip(&b).fold(0.0_f64, |m, (x, y)| m.max((x - y).abs())) / size
    }

    #[test]
    fn tiles_make_the_picture_of_the_whole() {
        let network = network();
        let z = image(4, 12, 17);
        let whole = network.decode(&z).unwrap();
        let tiled = network.decode_tiled(&z, 32, &mut || false).unwrap();
        assert_eq!(tiled.dims(), whole.dims());
        let decoded = apart(&whole, &tiled);
        let picture = image(3, 96, 136);
        let (whole, _) = network.encode(&picture).unwrap();
        let (tiled, _) = network.encode_tiled(&picture, 32, &mut || false).unwrap();
        let encoded = apart(&whole, &tiled);
        assert!(decoded < 2e-5 && encoded < 2e-5, "{decoded} {encoded}");
    }

    #[test]
    fn one_tile_is_the_whole_up_to_rounding() {
        let network = network();
        let z = image(4, 6, 5);
        let apart = apart(
            &network.decode(&z).unwrap(),
            &network.decode_tiled(&z, 4096, &mut || false).unwrap(),
        );
        assert!(apart < 2e-5, "{apart}");
    }

    #[test]
    fn tiling_can_be_stopped() {
        let network = network();
        let mut left = 3;
        let mut stop = || {
            left -= 1;
            left == 0
        };
        let result = network.decode_tiled(&image(4, 8, 8), 16, &mut stop);
        assert!(matches!(result, Err(Error::Stopped)));
        assert!(network.decode_tiled(&image(4, 8, 8), 0, &mut || false).is_err());
    }

    #[test]
    fn spans_cover_an_axis_once() {
        for (side, tile, halo, unit) in [(17, 5, 3, 1), (96, 32, 8, 2), (8, 64, 8, 2), (1, 1, 0, 1)]
        {
            let spans = spans(side, tile, halo, unit);
            assert_eq!(spans[0].core[0], 0);
            assert_eq!(spans.last().unwrap().core[1], side);
            assert!(spans.windows(2).all(|pair| pair[0].core[1] == pair[1].core[0]));
            assert!(spans.iter().all(|s| s.core[0] % unit == 0 && s.wide[0] <= s.core[0]));
        }
    }
}
