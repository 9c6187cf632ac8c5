//! The tokenizer of CLIP's text encoder (Radford et al., "Learning transferable visual models from
//! natural language supervision", arXiv:2103.00020, section 2.4), read from the files of a model
//! folder.
//!
//! Text is normalised (NFC, runs of white space to one space, lower case), cut into words, numbers
//! one digit at a time and runs of punctuation, and each piece is built from its bytes by merging
//! pairs, lowest rank first; the last symbol of a piece carries `</w>`. A sequence is the token of
//! the start, the text's, the token of the end, and padding. The steps and the padding equal those
//! of `CLIPTokenizer` in transformers 5.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as Steps;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType};
use tokenizers::{PreTokenizedString, PreTokenizer, Tokenizer};

use super::folder::Component;
use super::json::{self, one_line};
use crate::{Error, Result};

/// The start of a sequence.
pub const START: &str = "<|startoftext|>";
/// The end of a sequence.
pub const END: &str = "<|endoftext|>";
/// The longest text that is taken, in bytes; a sequence holds some 77 tokens.
pub const MAX_PROMPT: usize = 1 << 16;
/// The most tokens of a vocabulary.
const MAX_VOCABULARY: usize = 1 << 20;
/// The longest sequence.
const MAX_LENGTH: usize = 1 << 16;
/// The length of a sequence where the files do not say.
const LENGTH: usize = 77;

/// What the network gets for a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The sequence: start, text, end, padding.
    pub ids: Vec<i64>,
    /// Which positions count: all but the padding.
    pub mask: Vec<bool>,
    /// How many tokens at the end of the text did not fit.
    pub left_out: usize,
}

/// CLIP's tokenizer with its vocabulary.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    inner: Tokenizer,
    length: usize,
    start: u32,
    end: u32,
    pad: u32,
}

impl ClipTokenizer {
    /// The tokenizer of a component: `vocab.json` and `merges.txt`, or in place of both a
    /// `tokenizer.json` (which is all that transformers 5 writes), and where they are there
    /// `tokenizer_config.json` and `special_tokens_map.json`.
    ///
    /// # Errors
    /// A file is missing or wrong; a merge or a special token is not in the vocabulary.
    pub fn read(component: &Component) -> Result<Self> {
        let optional = |name: &str| {
            if component.exists(name) { component.json(name) } else { Ok(Map::new()) }
        };
        let mut settings = optional("tokenizer_config.json")?;
        for (key, value) in optional("special_tokens_map.json")? {
            settings.entry(key).or_insert(value);
        }
        let folder = component.file("");
        if !component.exists("vocab.json") && component.exists("tokenizer.json") {
            let file = folder.join("tokenizer.json");
            let (vocab, merges) = one_file(&file, &component.text("tokenizer.json")?)?;
            return Self::build(&folder, &file, &file, &vocab, merges, &settings);
        }
        let [vocab, merges] = [component.text("vocab.json")?, component.text("merges.txt")?];
        Self::new(&folder, &vocab, &merges, &settings)
    }

    /// The tokenizer with this vocabulary (JSON: token to id), these merges (a line each) and the
    /// settings of `tokenizer_config.json` (`pad_token`, `model_max_length`); `folder` is named in
    /// errors.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn new(
        folder: &Path,
        vocab: &str,
        merges: &str,
        settings: &Map<String, Value>,
    ) -> Result<Self> {
        let [vocab_file, merges_file] = ["vocab.json", "merges.txt"].map(|f| folder.join(f));
        let vocab = serde_json::from_str(vocab).map_err(|e| {
            let why = format!("wanted tokens and their ids: {}", one_line(&e.to_string()));
            Error::format(&vocab_file, "", why)
        })?;
        let merges = merge_lines(&merges_file, merges)?;
        Self::build(folder, &vocab_file, &merges_file, &vocab, merges, settings)
    }

    fn build(
        folder: &Path,
        vocab_file: &Path,
        merges_file: &Path,
        vocab: &BTreeMap<String, u32>,
        merges: Vec<(String, String)>,
        settings: &Map<String, Value>,
    ) -> Result<Self> {
        check_vocabulary(vocab_file, vocab)?;
        let special = |key: &str, default: &str| -> Result<(String, u32)> {
            let name = special_token(settings, key).unwrap_or(default);
            let id = vocab.get(name).copied().ok_or_else(|| {
                let why = format!("the `{key}` is not in the vocabulary");
                Error::format(vocab_file, one_line(name), why)
            })?;
            Ok((name.to_owned(), id))
        };
        let (start, end) = (special("bos_token", START)?, special("eos_token", END)?);
        let (pad, unknown) = (special("pad_token", END)?, special("unk_token", END)?);
        let length = length(&folder.join("tokenizer_config.json"), settings)?;
        let built = BPE::builder()
            .vocab_and_merges(vocab.clone().into_iter().collect::<Vocab>(), merges)
            .unk_token(unknown.0.clone())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .build();
        let wrong = |e: tokenizers::Error| Error::format(merges_file, "", one_line(&e.to_string()));
        let mut inner = Tokenizer::new(built.map_err(wrong)?);
        inner.with_normalizer(Some(normalizer().map_err(wrong)?));
        inner.with_pre_tokenizer(Some(pieces().map_err(wrong)?));
        let mut special_tokens: Vec<AddedToken> = Vec::new();
        for (name, _) in [&start, &end, &pad, &unknown] {
            // A special token is found in the text before anything else is done to it, also where
            // it is an ordinary sign, as the `!` that some models pad with.
            if !special_tokens.iter().any(|t| t.content == *name) {
                special_tokens.push(AddedToken::from(name.clone(), true).normalized(false));
            }
        }
        inner.add_special_tokens(&special_tokens);
        Ok(Self { inner, length, start: start.1, end: end.1, pad: pad.1 })
    }

    /// The length of every sequence.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many ids there are; the network's table has a row for each.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The ids of the start, the end and the padding.
    #[must_use]
    pub fn special(&self) -> [u32; 3] {
        [self.start, self.end, self.pad]
    }

    /// The ids of a text alone, without start, end, padding or limit.
    ///
    /// # Errors
    /// The text is longer than [`MAX_PROMPT`].
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        if text.len() > MAX_PROMPT {
            let why = format!("wanted at most {MAX_PROMPT} bytes, found {}", text.len());
            return Err(Error::setting("prompt", why));
        }
        let encoding = self.inner.encode(text, false);
        let encoding = encoding.map_err(|e| Error::setting("prompt", one_line(&e.to_string())))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The sequence of a text, of [`length`](Self::length) tokens.
    ///
    /// # Errors
    /// The text is longer than [`MAX_PROMPT`].
    pub fn encode(&self, text: &str) -> Result<Tokens> {
        let text = self.ids(text)?;
        let room = self.length.saturating_sub(2);
        let left_out = text.len().saturating_sub(room);
        let kept = text.into_iter().take(room).map(i64::from);
        let mut ids: Vec<i64> = std::iter::once(i64::from(self.start)).chain(kept).collect();
        ids.push(self.end.into());
        let count = ids.len();
        ids.resize(self.length, self.pad.into());
        let mask = (0..self.length).map(|i| i < count).collect();
        Ok(Tokens { ids, mask, left_out })
    }

    /// The token with this id, as the vocabulary writes it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// Cuts a text into the pieces that are merged each for itself, as the symbols that stand for
/// their bytes.
pub(super) struct Splitter {
    normalizer: NormalizerWrapper,
    pieces: PreTokenizerWrapper,
}

impl Splitter {
    pub(super) fn new() -> Result<Self> {
        let wrong = |e: tokenizers::Error| Error::setting("text", one_line(&e.to_string()));
        Ok(Self { normalizer: normalizer().map_err(wrong)?, pieces: pieces().map_err(wrong)? })
    }

    pub(super) fn split(&self, text: &str) -> Result<Vec<String>> {
        let wrong = |e: tokenizers::Error| Error::setting("text", one_line(&e.to_string()));
        let mut normal = NormalizedString::from(text);
        self.normalizer.normalize(&mut normal).map_err(wrong)?;
        let mut cut = PreTokenizedString::from(normal);
        self.pieces.pre_tokenize(&mut cut).map_err(wrong)?;
        let splits = cut.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(splits.into_iter().map(|(piece, _, _)| piece.to_owned()).collect())
    }
}

fn normalizer() -> Result<NormalizerWrapper, tokenizers::Error> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    Ok(Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()]).into())
}

fn pieces() -> Result<PreTokenizerWrapper, tokenizers::Error> {
    let pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let words =
        Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    Ok(Steps::new(vec![words.into(), bytes.into()]).into())
}

/// Checks the vocabulary: not too many tokens, and an id of its own for each.
fn check_vocabulary(file: &Path, map: &BTreeMap<String, u32>) -> Result<()> {
    let wrong = |key: &str, why: String| Error::format(file, one_line(key), why);
    if map.len() > MAX_VOCABULARY {
        return Err(wrong("", format!("{} tokens, the limit is {MAX_VOCABULARY}", map.len())));
    }
    let mut seen = BTreeSet::new();
    for (token, id) in map {
        if *id as usize >= MAX_VOCABULARY {
            return Err(wrong(token, format!("the id {id} is not below {MAX_VOCABULARY}")));
        }
        if !seen.insert(*id) {
            return Err(wrong(token, format!("another token has the id {id} too")));
        }
    }
    Ok(())
}

/// The pairs in `merges.txt`, in order of rank.
fn merge_lines(file: &Path, text: &str) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let mut parts = line.split(' ');
        let (Some(a), Some(b), None) = (parts.next(), parts.next(), parts.next()) else {
            let why = format!("wanted two symbols, found {}", one_line(line));
            return Err(Error::format(file, format!("line {}", number + 1), why));
        };
        out.push((a.to_owned(), b.to_owned()));
    }
    Ok(out)
}

/// Tokens and ids, and merges.
type VocabularyAndMerges = (BTreeMap<String, u32>, Vec<(String, String)>);

/// The vocabulary and merges in a `tokenizer.json`. The rest of the file describes the steps, which
/// are CLIP's where the model is one of byte pairs that marks the last symbol as CLIP's does.
fn one_file(file: &Path, text: &str) -> Result<VocabularyAndMerges> {
    #[derive(Deserialize)]
    struct Whole {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        r#type: Option<String>,
        end_of_word_suffix: Option<String>,
        vocab: BTreeMap<String, u32>,
        merges: Vec<Pair>,
    }
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "wanted two symbols")]
    enum Pair {
        Two([String; 2]),
        Line(String),
    }
    let whole: Whole = serde_json::from_str(text).map_err(|e| {
        Error::format(file, "", format!("wanted a tokenizer: {}", one_line(&e.to_string())))
    })?;
    let Model { r#type, end_of_word_suffix, vocab, merges } = whole.model;
    if r#type.is_some_and(|t| t != "BPE") || end_of_word_suffix.as_deref() != Some("</w>") {
        return Err(Error::format(
            file,
            "model",
            "wanted byte pairs with `</w>`, as CLIP has them",
        ));
    }
    let pair = |(number, pair)| match pair {
        Pair::Two([a, b]) => Ok((a, b)),
        Pair::Line(line) => match line.split_once(' ') {
            Some((a, b)) if !b.contains(' ') => Ok((a.to_owned(), b.to_owned())),
            _ => {
                let why = format!("wanted two symbols, found {}", one_line(&line));
                Err(Error::format(file, format!("merge {number}"), why))
            }
        },
    };
    Ok((vocab, merges.into_iter().enumerate().map(pair).collect::<Result<_>>()?))
}

/// A special token of the settings: a string, or an object with its content.
fn special_token<'a>(settings: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let value = settings.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn length(file: &Path, settings: &Map<String, Value>) -> Result<usize> {
    let Some(value) = settings.get("model_max_length") else { return Ok(LENGTH) };
    // Files without a limit hold the number 1e30.
    if json::number(value).is_some_and(|n| n >= 1e18) {
        return Ok(LENGTH);
    }
    let length = value.as_u64().and_then(|n| usize::try_from(n).ok());
    length.filter(|n| (2..=MAX_LENGTH).contains(n)).ok_or_else(|| {
        let why = format!("wanted 2 to {MAX_LENGTH}, found {}", one_line(&value.to_string()));
        Error::format(file, "model_max_length", why)
    })
}

#[cfg(test)]
mod tests;
