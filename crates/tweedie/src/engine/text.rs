//! From prompts to what a network attends to: tokens, windows, encoders, weights.
//!
//! A prompt is cut into pieces of one weight ([`crate::prompt`]), their tokens are laid out in
//! windows of the length that the encoder reads, each window is encoded alone, and the windows of a
//! prompt stand one behind the other. A prompt without markup that fits into one window comes out
//! bit for bit as the encoder alone makes it.

use burn::tensor::{Tensor, TensorData};

use crate::denoiser::Pass;
use crate::error::{Error, Result};
use crate::hub::{ClipTokenizer, Embedding};
use crate::model::ClipText;
use crate::prompt::{
    Chunk, Chunking, Emphasis, Item, Part, Piece, Slot, chunks, parse, tags, words,
};
use crate::spec::Spec;

/// How far back a comma is looked for when a window is full, in tokens: A1111's default.
const COMMA_BACK: usize = 20;

/// A tokenizer and the encoder that reads its tokens.
#[derive(Clone, Debug)]
pub struct TextPart {
    /// The component that the encoder is: `text_encoder` or `text_encoder_2`.
    pub name: &'static str,
    /// Words to tokens.
    pub tokenizer: ClipTokenizer,
    /// Tokens to embeddings.
    pub encoder: ClipText,
}

/// The text side of a model.
#[derive(Clone, Debug)]
pub struct Text {
    /// One encoder, or several whose outputs stand side by side.
    pub parts: Vec<TextPart>,
    /// Whether the network attends to what comes out of a layer as it is, by default the last but
    /// one, rather than to what comes out of the last layer and the final norm.
    pub inner: bool,
    /// Whether an empty negative prompt stands for zeros rather than for its encoding.
    pub zeros_for_empty: bool,
    /// Words with vectors of their own.
    pub learned: Vec<Learned>,
}

/// A word that stands for learned vectors.
#[derive(Clone, Debug)]
pub struct Learned {
    /// What it is called in a prompt.
    pub names: Vec<String>,
    /// The hash of its vectors.
    pub hash: String,
    /// Its vectors for each encoder, `[vectors, width]`.
    vectors: Vec<Tensor<2>>,
}

/// How prompts are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How weights act.
    pub emphasis: Emphasis,
    /// Which layer is taken, counted from the last, which is 1; the model's own where nothing is
    /// said.
    pub clip_skip: Option<usize>,
}

impl Reading {
    /// As a spec asks for.
    pub fn of(spec: &Spec) -> Self {
        Self { emphasis: spec.emphasis, clip_skip: spec.clip_skip }
    }
}

/// A prompt as encoders see it.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// A vector a token, `[1, tokens, width]`; the outputs of several encoders side by side.
    pub context: Tensor<3>,
    /// The pooled vector of the last encoder for the first window, `[1, width]`, projected where
    /// the encoder has a projection.
    pub pooled: Tensor<2>,
}

impl EncodedPrompt {
    /// Zeros of the same shape.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        Self { context: self.context.zeros_like(), pooled: self.pooled.zeros_like() }
    }
}

impl Text {
    /// Lets a word stand for learned vectors. Where two have one name, the longest-standing one
    /// keeps it.
    ///
    /// # Errors
    ///
    /// The vectors are of other widths than the encoders': the error names the file, the tensor,
    /// what was found and what was wanted.
    pub fn learn(&mut self, embedding: &Embedding) -> Result<()> {
        let encoders: Vec<(&str, usize)> =
            self.parts.iter().map(|p| (p.name, p.encoder.config().hidden_size)).collect();
        let fitted = embedding.fit(&encoders)?;
        let vectors = fitted.iter().zip(&self.parts).map(|(set, part)| {
            let data = TensorData::new(set.values.clone(), [set.count(), set.width]);
            Tensor::from_data(data, part.encoder.device())
        });
        self.learned.push(Learned {
            names: embedding.names.clone(),
            hash: embedding.hash.clone(),
            vectors: vectors.collect(),
        });
        Ok(())
    }

    /// Encodes prompts. All come out with as many windows as the longest needs; shorter ones are
    /// filled up with windows of an empty prompt, as A1111 fills them up.
    ///
    /// Each prompt goes through the encoders alone, so that it depends on the others by that count
    /// only.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for markup that is wrong and for a layer that is not there; what the
    /// encoders say.
    pub fn encode(&self, prompts: &[&str], reading: Reading) -> Result<Vec<EncodedPrompt>> {
        let mut laid: Vec<(&str, Vec<Vec<Chunk>>)> = Vec::new();
        for prompt in prompts {
            if laid.iter().all(|(known, _)| known != prompt) {
                let windows =
                    self.parts.iter().map(|p| p.windows(prompt, reading.emphasis, &self.learned));
                laid.push((prompt, windows.collect::<Result<_>>()?));
            }
        }
        let count = laid.iter().flat_map(|(_, parts)| parts.iter().map(Vec::len)).max();
        let empty = (0..self.parts.len()).map(|i| self.window(i, &Chunk::default(), reading));
        let empty = empty.collect::<Result<Vec<_>>>()?;
        let mut known = Vec::with_capacity(laid.len());
        for (prompt, windows) in &laid {
            known.push((*prompt, self.encode_one(windows, &empty, count.unwrap_or(1), reading)?));
        }
        let find = |prompt: &&str| known.iter().find(|(k, _)| k == prompt).map(|(_, e)| e.clone());
        Ok(prompts.iter().filter_map(find).collect())
    }

    /// For each token of `to`, in as many windows as the longest of `all` has, the token of `from` that
    /// it stands for: tokens that both have in the same order, as many as possible (Hertz et al. 2022,
    /// section 3, word swap and new phrases).
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for markup that is wrong.
    pub fn words(
        &self,
        from: &str,
        to: &str,
        all: &[&str],
        reading: Reading,
    ) -> Result<Vec<Option<usize>>> {
        let Some(part) = self.parts.first() else { return Ok(Vec::new()) };
        let windows = |prompt: &str| part.windows(prompt, reading.emphasis, &self.learned);
        let mut count = 1;
        for prompt in all {
            count = count.max(windows(prompt)?.len());
        }
        let tokens = |prompt: &str| -> Result<Vec<i64>> {
            let mut windows = windows(prompt)?;
            windows.resize(count, Chunk::default());
            Ok(windows.iter().flat_map(|window| part.ids(window)).collect())
        };
        Ok(aligned(&tokens(from)?, &tokens(to)?))
    }

    fn encode_one(
        &self,
        windows: &[Vec<Chunk>],
        empty: &[EncodedPrompt],
        count: usize,
        reading: Reading,
    ) -> Result<EncodedPrompt> {
        let (mut contexts, mut pooled) = (Vec::new(), None);
        for (index, (windows, empty)) in windows.iter().zip(empty).enumerate() {
            let mut row = Vec::with_capacity(count);
            for (i, chunk) in windows.iter().enumerate() {
                let plain = self.window(index, chunk, reading)?;
                if i == 0 {
                    pooled = Some(plain.pooled);
                }
                row.push(weighed(plain.context, chunk, &empty.context, reading.emphasis));
            }
            row.resize(count, empty.context.clone());
            contexts.push(Tensor::cat(row, 1));
        }
        let none = || Error::unsupported("a prompt", "a text encoder");
        Ok(EncodedPrompt {
            context: if contexts.len() == 1 {
                contexts.pop().ok_or_else(none)?
            } else {
                Tensor::cat(contexts, 2)
            },
            pooled: pooled.ok_or_else(none)?,
        })
    }

    /// One window through one encoder, weights left out.
    fn window(&self, index: usize, chunk: &Chunk, reading: Reading) -> Result<EncodedPrompt> {
        let part = &self.parts[index];
        let layers = part.encoder.config().num_hidden_layers;
        let own = if self.inner { 2 } else { 1 };
        let from_last = reading.clip_skip.unwrap_or(own.min(layers));
        if !(1..=layers).contains(&from_last) {
            let why = format!(
                "{from_last}, wanted 1 (the last layer) to {layers} (the first of the text encoder)"
            );
            return Err(Error::setting("clip_skip", why));
        }
        let ids = [part.ids(chunk)];
        let mut embedded = part.encoder.embed(&ids)?;
        for (at, slot) in chunk.slots.iter().enumerate() {
            let Slot::Vector { index: word, vector } = *slot else { continue };
            let vectors = &self.learned[word].vectors[index];
            let width = vectors.dims()[1];
            let vector = vectors.clone().slice([vector..vector + 1, 0..width]).unsqueeze::<3>();
            // The start stands before the text.
            embedded = embedded.slice_assign([0..1, at + 1..at + 2, 0..width], vector);
        }
        let pass = &mut Pass::default();
        let encoded = part.encoder.encode_embedded(embedded, &ids, from_last - 1, pass)?;
        let context = if self.inner { encoded.inner } else { encoded.hidden };
        let pooled = encoded.projected.unwrap_or(encoded.pooled);
        Ok(EncodedPrompt { context, pooled })
    }
}

impl TextPart {
    /// The windows of a prompt.
    fn windows(&self, prompt: &str, emphasis: Emphasis, learned: &[Learned]) -> Result<Vec<Chunk>> {
        let (names, owners): (Vec<&str>, Vec<usize>) = learned
            .iter()
            .enumerate()
            .flat_map(|(i, word)| word.names.iter().map(move |name| (name.as_str(), i)))
            .unzip();
        let (text, _) = tags(prompt)?;
        let pieces = match emphasis {
            Emphasis::Off => vec![Piece::Text { text, weight: 1.0 }],
            _ => parse(&text)?,
        };
        let mut items = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Break => items.push((Item::Break, 1.0)),
                Piece::Text { text, weight } => {
                    for part in words(&text, &names) {
                        match part {
                            Part::Text(text) => {
                                let ids = self.tokenizer.ids(text)?;
                                items.extend(ids.into_iter().map(|id| (Item::Token(id), weight)));
                            }
                            Part::Word(name) => {
                                let index = owners[name];
                                let vectors = learned[index].vectors[0].dims()[0];
                                items.push((Item::Learned { index, vectors }, weight));
                            }
                        }
                    }
                }
            }
        }
        let comma = self.tokenizer.ids(",")?.first().copied();
        Ok(chunks(&items, Chunking { room: self.room(), comma, back: COMMA_BACK }))
    }

    /// Positions of a window without its start and end.
    fn room(&self) -> usize {
        self.tokenizer.length().saturating_sub(2)
    }

    /// The tokens of a window: start, text, end, padding.
    fn ids(&self, chunk: &Chunk) -> Vec<i64> {
        let [start, end, pad] = self.tokenizer.special().map(i64::from);
        let text = chunk.slots.iter().map(|slot| match slot {
            Slot::Token(id) => i64::from(*id),
            // A learned vector takes the place of this one's.
            Slot::Vector { .. } => 0,
        });
        let mut ids: Vec<i64> = std::iter::once(start).chain(text).chain([end]).collect();
        ids.resize(self.tokenizer.length().max(ids.len()), pad);
        ids
    }
}

/// The longest common subsequence of two texts: for each token of `to` its place in `from`.
fn aligned(from: &[i64], to: &[i64]) -> Vec<Option<usize>> {
    let width = to.len() + 1;
    // Entry (i, j) is the length of the longest one of `from[i..]` and `to[j..]`.
    let mut lengths = vec![0_usize; (from.len() + 1) * width];
    for i in (0..from.len()).rev() {
        for j in (0..to.len()).rev() {
            lengths[i * width + j] = if from[i] == to[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut words) = (0, vec![None; to.len()]);
    let mut j = 0;
    while i < from.len() && j < to.len() {
        if from[i] == to[j] {
            words[j] = Some(i);
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    words
}

/// A window with its weights.
fn weighed(context: Tensor<3>, chunk: &Chunk, empty: &Tensor<3>, emphasis: Emphasis) -> Tensor<3> {
    if chunk.weights.iter().all(|w| *w == 1.0) {
        return context;
    }
    let (shape, device) = (context.dims(), context.device());
    // Start, end and padding weigh 1.
    let mut weights = vec![1.0; shape[1]];
    weights[1..=chunk.weights.len()].copy_from_slice(&chunk.weights);
    let numbers = |t: Tensor<3>| t.into_data_as::<f32>().iter::<f32>().collect::<Vec<f32>>();
    let mut values = numbers(context);
    let empty = if emphasis.needs_empty() { numbers(empty.clone()) } else { Vec::new() };
    emphasis.apply(&mut values, &weights, &empty);
    Tensor::from_data(TensorData::new(values, shape), &device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_stay_find_themselves() {
        // "a red circle . ." to "a large blue circle ."
        let (from, to) = ([1, 2, 3, 9, 9], [1, 4, 5, 3, 9]);
        assert_eq!(aligned(&from, &to), [Some(0), None, None, Some(2), Some(3)]);
        assert_eq!(aligned(&from, &from), [0, 1, 2, 3, 4].map(Some));
        assert_eq!(aligned(&[], &to), [None; 5]);
    }
}
