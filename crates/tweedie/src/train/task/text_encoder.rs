//! Training a text encoder alone: from a caption's hidden states a small reader answers questions
//! about the scene.
//!
//! Stable Diffusion takes a text encoder that was trained before; this is that training in
//! miniature, without pictures: what CLIP's image tower is there (Radford et al., "Learning
//! transferable visual models from natural language supervision", 2021), the exact attributes of the
//! scene are here. The reader attends to the tokens as a U-Net's cross-attention does, so that what it
//! finds there the U-Net finds too. Only the encoder is exported.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData, activation};
use tweedie_kernels as kernels;

use super::Task;
use super::captions::Captions;
use super::questions::{ANSWERS, ASKED, QUESTIONS, Question, groups};
use super::scenes::SceneSettings;
use super::text_latent::TextSettings;
use crate::data::shapes::Scene;
use crate::error::Result;
use crate::hub::{Dtype, ModelFolder, outputs};
use crate::model::ClipText;
use crate::model::attention::{merge_heads, split_heads};
use crate::model::layers::{LayerNorm, Linear};
use crate::parameters;
use crate::train::config::Config;
use crate::train::draws::{self, Use};
use crate::train::objective::Place;
use crate::weight::{Parameters, Weight, join};

const HEADS: usize = 4;

/// Answers questions from a text's hidden states: one cross-attention, one hidden layer.
#[derive(Clone, Debug)]
struct Reader {
    question: Linear,
    norm1: LayerNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    norm3: LayerNorm,
    answer: Linear,
}
parameters!(Reader { question, norm1, to_q, to_k, to_v, to_out, norm2, fc1, fc2, norm3, answer });

impl Reader {
    fn new(width: usize, device: &Device) -> Self {
        let norm = || LayerNorm::new(width, 1e-5, device);
        let square = || Linear::plain(width, width, device);
        Self {
            question: Linear::new(ASKED, width, device),
            norm1: norm(),
            to_q: square(),
            to_k: square(),
            to_v: square(),
            to_out: Linear::new(width, width, device),
            norm2: norm(),
            fc1: Linear::new(width, 4 * width, device),
            fc2: Linear::new(4 * width, width, device),
            norm3: norm(),
            answer: Linear::new(width, ANSWERS, device),
        }
    }

    /// Questions `[batch, questions, ASKED]` on texts `[batch, tokens, width]`, to logits
    /// `[batch, questions, ANSWERS]`.
    fn forward(&self, questions: Tensor<3>, hidden: &Tensor<3>) -> Tensor<3> {
        let x = self.question.forward(questions);
        let scale = ((x.dims()[2] / HEADS) as f64).sqrt().recip();
        let q = split_heads(self.to_q.forward(self.norm1.forward(x.clone())), HEADS);
        let k = split_heads(self.to_k.forward(hidden.clone()), HEADS);
        let v = split_heads(self.to_v.forward(hidden.clone()), HEADS);
        let found = merge_heads(kernels::attention(q, k, v, None, scale));
        let x = x + self.to_out.forward(found);
        let inner = kernels::gelu(self.fc1.forward(self.norm2.forward(x.clone())));
        let x = x + self.fc2.forward(inner);
        self.answer.forward(self.norm3.forward(x))
    }
}

/// A text encoder in training.
pub struct TextEncoder {
    text: ClipText,
    reader: Reader,
    captions: Captions,
    scenes: SceneSettings,
    device: Device,
}

impl Parameters for TextEncoder {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.text.each(&join(path, "text_encoder"), visit);
        self.reader.each(&join(path, "reader"), visit);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        self.text.each_mut(&join(path, "text_encoder"), visit);
        self.reader.each_mut(&join(path, "reader"), visit);
    }
}

impl TextEncoder {
    /// From the sections `data`, `text` and `text_encoder`.
    ///
    /// # Errors
    ///
    /// What the sections say.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        config.only(&["data", "text", "text_encoder"])?;
        let scenes: SceneSettings = config.section("data")?;
        scenes.validate()?;
        let settings: TextSettings = config.section("text")?;
        let captions = Captions::new(settings.length)?;
        let text = captions.encoder(config, device)?;
        let reader = Reader::new(text.config().hidden_size, device);
        Ok(Self { text, reader, captions, scenes, device: device.clone() })
    }

    /// The logits of equally many questions a text, `[texts, questions, ANSWERS]`.
    fn ask(&self, texts: &[String], questions: &[Question]) -> Result<Tensor<3>> {
        let each = questions.len() / texts.len().max(1);
        let numbers: Vec<f32> = questions.iter().flat_map(Question::numbers).collect();
        let asked = TensorData::new(numbers, [texts.len(), each, ASKED]);
        let hidden = self.text.encode(&self.captions.tokens(texts)?, 0)?.hidden;
        let asked = Tensor::from_data(asked, &hidden.device());
        Ok(self.reader.forward(asked, &hidden))
    }

    /// The share of right answers to which shape has a colour (or the other way round), over the
    /// scenes `first`, `first + 2`, ... that are measured on.
    fn accuracy(&self, first: usize, by_colour: bool) -> Result<f64> {
        let (mut right, mut count) = (0, 0);
        for i in (first..self.scenes.test).step_by(2) {
            let scene = self.scenes.held(i);
            let questions = Question::bound(&scene, by_colour);
            if questions.is_empty() {
                continue;
            }
            let text = self.scenes.caption(&scene, i as u64).text;
            let logits = self.ask(&[text], &questions)?.into_data_as::<f32>();
            let logits: Vec<f32> = logits.iter::<f32>().collect();
            let pairs = questions.iter().zip(logits.chunks(ANSWERS));
            right += pairs.filter(|(question, logits)| question.is_right(logits)).count();
            count += questions.len();
        }
        Ok(right as f64 / f64::from(count.max(1) as u32))
    }
}

impl Task for TextEncoder {
    fn examples(&self) -> usize {
        self.scenes.scenes
    }

    fn loss(&mut self, examples: &[usize], place: Place) -> Result<Tensor<1>> {
        let mut texts = Vec::with_capacity(examples.len());
        let mut questions = Vec::with_capacity(examples.len() * QUESTIONS);
        for (i, &example) in examples.iter().enumerate() {
            let draws = |what| draws::generator(place.seed, what, place.step, place.first + i);
            let scene: Scene = self.scenes.train(example);
            texts.push(self.scenes.caption(&scene, draws(Use::Caption).bits()).text);
            questions.extend(Question::draw(&scene, &mut draws(Use::Question)));
        }
        let logits = self.ask(&texts, &questions)?;
        let truth: Vec<f32> = questions.iter().flat_map(Question::truth).collect();
        let asked = truth.iter().sum::<f32>().max(1.0);
        let truth = Tensor::<3>::from_data(TensorData::new(truth, logits.dims()), &logits.device());
        let part = |range: std::ops::Range<usize>| {
            let logits = logits.clone().narrow(2, range.start, range.len());
            let truth = truth.clone().narrow(2, range.start, range.len());
            (activation::log_softmax(logits, 2) * truth).sum()
        };
        let sum = groups().map(part).reduce(|a, b| a + b);
        // There are six groups.
        let sum = sum.unwrap_or_else(|| Tensor::zeros([1], &self.device));
        Ok(sum.neg() / f64::from(asked))
    }

    /// How often an object's shape is told from its colour and its colour from its shape, in scenes
    /// that training never sees, and in those with combinations that it never sees.
    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        let mut measures = Vec::new();
        for (name, first) in [("", 0), ("_held_out", 1)] {
            measures.push((format!("shape_of_colour{name}"), self.accuracy(first, true)?));
            measures.push((format!("colour_of_shape{name}"), self.accuracy(first, false)?));
        }
        Ok(measures)
    }

    fn export(&mut self, folder: &Path) -> Result<()> {
        let weights = outputs(&self.text, Dtype::F16);
        ModelFolder::single(self.text.config(), weights)?.write(folder)
    }
}
