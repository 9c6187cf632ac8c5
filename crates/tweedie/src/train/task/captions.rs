//! What tasks over captions share: the tokenizer of the shapes world and the settings that follow
//! from its vocabulary.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value};

use crate::data::shapes;
use crate::error::{Error, Result};
use crate::hub::{ClipTokenizer, ClipVocabulary, Folder};
use crate::model::ClipText;
use crate::model::config::ClipTextConfig;
use crate::train::config::Config;
use crate::weight;

/// The words of the world, and texts as their tokens.
pub(crate) struct Captions {
    pub(crate) vocabulary: ClipVocabulary,
    tokenizer: ClipTokenizer,
    /// Tokens of a text, start and end included.
    pub(crate) length: usize,
}

impl Captions {
    pub(crate) fn new(length: usize) -> Result<Self> {
        let vocabulary = ClipVocabulary::from_words(shapes::vocabulary())?;
        let files: BTreeMap<&str, String> = vocabulary.files(length).into_iter().collect();
        let text = |name: &str| files.get(name).map_or("", String::as_str);
        let settings: Map<String, Value> =
            serde_json::from_str(text("tokenizer_config.json")).unwrap_or_default();
        let [words, merges] = ["vocab.json", "merges.txt"].map(text);
        let tokenizer = ClipTokenizer::new(Path::new("tokenizer"), words, merges, &settings)?;
        Ok(Self { vocabulary, tokenizer, length })
    }

    pub(crate) fn tokens(&self, texts: &[String]) -> Result<Vec<Vec<i64>>> {
        texts.iter().map(|t| self.tokenizer.encode(t).map(|tokens| tokens.ids)).collect()
    }

    /// A text encoder that is to be trained: the section `text_encoder`, with what follows from the
    /// vocabulary filled in.
    pub(crate) fn encoder(&self, config: &Config, device: &Device) -> Result<ClipText> {
        let [start, end] = self.vocabulary.special();
        let read: ClipTextConfig = config.section("text_encoder")?;
        let settings = ClipTextConfig {
            vocab_size: self.vocabulary.len(),
            max_position_embeddings: self.length,
            projection_dim: Some(read.hidden_size),
            pad_token_id: Some(end),
            bos_token_id: Some(start),
            eos_token_id: Some(end),
            ..read
        };
        ClipText::new(settings, device)
    }

    /// A text encoder that was trained over the same words.
    pub(crate) fn trained(&self, folder: &Path, device: &Device) -> Result<ClipText> {
        let component = Folder::open(folder)?.component("")?;
        let settings: ClipTextConfig = crate::hub::config::read(&component)?;
        let fits = [
            ("vocab_size", settings.vocab_size, self.vocabulary.len()),
            ("max_position_embeddings", settings.max_position_embeddings, self.length),
        ];
        if let Some((key, found, wanted)) = fits.into_iter().find(|(_, a, b)| a != b) {
            let why = format!("{} has a {key} of {found}, wanted {wanted}", folder.display());
            return Err(Error::setting("text.encoder", why));
        }
        let mut network = ClipText::new(settings, device)?;
        weight::load(&mut network, &component.tensors()?)?;
        Ok(network)
    }
}
