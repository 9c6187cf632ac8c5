//! CLIP's vocabulary, and vocabularies of one's own in its format for text encoders that are trained
//! on few words.
//!
//! The format (Sennrich et al., "Neural machine translation of rare words with subword units",
//! arXiv:1508.07909, Algorithm 1, over bytes): the 256 symbols that stand for bytes, the same with
//! `</w>`, one token for each merge, the start and the end. Here the merges are not counted from a
//! corpus but built so that each given word becomes a single token; any other text still has
//! tokens, down to its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde_json::{Map, Value, json};

use super::json;
use super::tokenizer::{END, START, Splitter};
use crate::{Error, Result};

/// The mark of a piece's last symbol.
const LAST: &str = "</w>";
/// The most words that a vocabulary is built from.
const MAX_WORDS: usize = 50_000;
/// The longest word, in bytes.
const MAX_WORD: usize = 256;

/// The merges of CLIP's published vocabulary, a line each (see THIRD_PARTY.md).
const PUBLISHED: &[u8] = include_bytes!("../../assets/clip_merges.txt.gz");

/// Tokens and merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipVocabulary {
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
}

impl ClipVocabulary {
    /// How many tokens the [published](Self::published) vocabulary has.
    pub const PUBLISHED: usize = 49408;

    /// The vocabulary in which each of `words` is one token, in the order of the words. A word is
    /// normalised and cut as text is (lower case, punctuation and digits apart), so that
    /// `Dark-blue` gives `dark`, `-` and `blue`.
    ///
    /// A merge is only ever added behind the others. So it cannot change how an earlier word is
    /// built, and each word stays one token.
    ///
    /// # Errors
    /// More than 50,000 words, or one of more than 256 bytes.
    pub fn from_words<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<Self> {
        let splitter = Splitter::new()?;
        let alphabet = alphabet();
        let mut tokens: Vec<String> = alphabet.iter().map(char::to_string).collect();
        tokens.extend(alphabet.iter().map(|c| format!("{c}{LAST}")));
        let mut seen: BTreeSet<String> = tokens.iter().cloned().collect();
        let mut ranks: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut merges = Vec::new();
        for (count, word) in words.into_iter().enumerate() {
            let word = word.as_ref();
            if count == MAX_WORDS || word.len() > MAX_WORD {
                let why = format!(
                    "wanted at most {MAX_WORDS} words of at most {MAX_WORD} bytes, found word {} of {} bytes",
                    count + 1,
                    word.len()
                );
                return Err(Error::setting("words", why));
            }
            for piece in splitter.split(word)? {
                let mut symbols = symbols(&piece);
                loop {
                    merge(&mut symbols, &ranks);
                    let [a, b, ..] = symbols.as_slice() else { break };
                    let pair = (a.clone(), b.clone());
                    let joined = format!("{a}{b}");
                    // Two ways of building one token share it.
                    if seen.insert(joined.clone()) {
                        tokens.push(joined);
                    }
                    ranks.insert(pair.clone(), merges.len());
                    merges.push(pair);
                }
            }
        }
        tokens.extend([START.to_owned(), END.to_owned()]);
        Ok(Self { tokens, merges })
    }

    /// CLIP's own vocabulary of 49,408 tokens, which every published model of the Stable Diffusion
    /// family uses; it is part of the library, for files that bring none.
    ///
    /// # Errors
    /// Never in practice: the data are the library's own.
    pub fn published() -> Result<Self> {
        let mut text = String::new();
        // The bound is above the length of the data, which a test holds.
        let unpacked =
            flate2::read::GzDecoder::new(PUBLISHED).take(1 << 20).read_to_string(&mut text);
        unpacked.map_err(Error::io("the merges of CLIP's vocabulary"))?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        let merges: Vec<(String, String)> =
            pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let alphabet = alphabet();
        let mut tokens: Vec<String> = alphabet.iter().map(char::to_string).collect();
        tokens.extend(alphabet.iter().map(|c| format!("{c}{LAST}")));
        tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
        tokens.extend([START.to_owned(), END.to_owned()]);
        Ok(Self { tokens, merges })
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: the bytes are always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The ids of the start and the end, which is also the padding.
    #[must_use]
    pub fn special(&self) -> [usize; 2] {
        [self.tokens.len() - 2, self.tokens.len() - 1]
    }

    /// The files of a tokenizer with this vocabulary whose sequences are `length` tokens long:
    /// names and contents, as `CLIPTokenizer` reads them.
    #[must_use]
    pub fn files(&self, length: usize) -> Vec<(&'static str, String)> {
        self.files_padded(length, END)
    }

    /// As [`files`](Self::files), with the token that fills sequences up: OpenCLIP's encoders were
    /// trained with token 0 there, which is `!`.
    #[must_use]
    pub fn files_padded(&self, length: usize, pad: &str) -> Vec<(&'static str, String)> {
        let vocab: Map<String, Value> =
            self.tokens.iter().enumerate().map(|(id, t)| (t.clone(), json!(id))).collect();
        let mut lines = String::from("#version: 0.2\n");
        for (a, b) in &self.merges {
            lines.extend([a, " ", b, "\n"]);
        }
        let special = json!({
            "bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END,
        });
        let settings = json!({
            "add_prefix_space": false,
            "bos_token": START,
            "do_lower_case": true,
            "eos_token": END,
            "errors": "replace",
            "model_max_length": length,
            "pad_token": pad,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": END,
        });
        let text = |value: &Value| value.as_object().map(json::text).unwrap_or_default();
        vec![
            ("vocab.json", json::text(&vocab)),
            ("merges.txt", lines),
            ("special_tokens_map.json", text(&special)),
            ("tokenizer_config.json", text(&settings)),
        ]
    }
}

/// The symbols that stand for bytes, in the order of CLIP's vocabulary: the printable bytes stand
/// for themselves, and behind them come those that would not show, from U+0100 on.
fn alphabet() -> Vec<char> {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let shown = (0..=u8::MAX).filter(|b| prints(*b)).map(char::from);
    let hidden = (0..=u8::MAX).filter(|b| !prints(*b)).count() as u32;
    shown.chain((0..hidden).filter_map(|n| char::from_u32(0x100 + n))).collect()
}

/// The symbols of a piece, the last one marked.
fn symbols(piece: &str) -> Vec<String> {
    let mut symbols: Vec<String> = piece.chars().map(String::from).collect();
    if let Some(last) = symbols.last_mut() {
        last.push_str(LAST);
    }
    symbols
}

/// Merges pairs of symbols, that of the lowest rank first, until none is left that can be merged.
fn merge(symbols: &mut Vec<String>, ranks: &BTreeMap<(String, String), usize>) {
    loop {
        let pairs = symbols.windows(2).enumerate();
        let best = pairs
            .filter_map(|(i, w)| ranks.get(&(w[0].clone(), w[1].clone())).map(|rank| (*rank, i)))
            .min();
        let Some((_, i)) = best else { break };
        let second = symbols.remove(i + 1);
        symbols[i].push_str(&second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_clips() {
        let letters = alphabet();
        assert_eq!(letters.len(), 256);
        // CLIP's ids: `!` 0, `a` 64, `~` 93, and the space behind the 188 printable bytes.
        assert_eq!((letters[0], letters[64], letters[93]), ('!', 'a', '~'));
        assert_eq!((letters[94], letters[188], letters[255]), ('\u{a1}', '\u{100}', '\u{143}'));
        let mut sorted = letters.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 256);
    }

    #[test]
    fn the_published_vocabulary_is_whole() {
        let clip = ClipVocabulary::published().unwrap();
        assert_eq!((clip.len(), clip.merges.len()), (ClipVocabulary::PUBLISHED, 48894));
        assert_eq!(clip.special(), [49406, 49407]);
        // Ids that transformers' CLIPTokenizer gives: `i n` is the first merge, `jeky ll</w>` the last.
        assert_eq!((clip.tokens[512].as_str(), clip.tokens[320].as_str()), ("in", "a</w>"));
        let files = clip.files(77);
        let none = Map::new();
        let tokenizer = crate::hub::ClipTokenizer::new(
            std::path::Path::new("clip"),
            &files[0].1,
            &files[1].1,
            &none,
        );
        let ids = tokenizer.unwrap().ids("a photo of an astronaut riding a horse").unwrap();
        assert_eq!(ids, [320, 1125, 539, 550, 18376, 6765, 320, 4558]);
        let padded = clip.files_padded(77, "!");
        assert!(padded[3].1.contains("\"pad_token\": \"!\""), "{}", padded[3].1);
    }

    #[test]
    fn bad_words_are_refused() {
        assert!(ClipVocabulary::from_words(["x".repeat(300)]).is_err());
        let many = (0..=MAX_WORDS).map(|_| "a");
        assert!(ClipVocabulary::from_words(many).is_err());
        assert_eq!(ClipVocabulary::from_words([""; 0]).unwrap().len(), 514);
    }
}
