//! Broken files by the thousand, for the tests and the lab's `soak`.
//!
//! Every mutation is a function of the seed and its number. A reader must answer each with what it
//! could read or with a one-line error that names the file; a panic or a message of several lines
//! is a finding.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::config::{parse, to_json};
use super::{
    Dtype, Output, SchedulerClass, SchedulerConfig, TensorFile, TensorSet, encode_safetensors, json,
};
use crate::Result;
use crate::model::config::{
    AutoencoderKlConfig, ClipTextConfig, DitConfig, UNet2DConditionConfig, UNet2DConfig,
};

/// How many mutations of each kind of answer there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Mutations that were still readable.
    pub read: usize,
    /// Mutations that were refused with an error.
    pub refused: usize,
}

mod layouts;
mod torch;

pub use layouts::layouts;
pub use torch::torch;

/// How the memory that a reader takes is measured, by a caller that counts allocations.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Starts to measure anew, and says what is taken now, in bytes.
    pub start: fn() -> usize,
    /// The most that was taken since, in bytes.
    pub most: fn() -> usize,
}

/// What a reader may take beside twice its file: errors, tables, the texts of messages.
const FREE: usize = 1 << 20;

/// What a reader may take for one file.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'m> {
    memory: Option<&'m Memory>,
    /// Bytes beside twice the file.
    free: usize,
}

impl<'m> Bound<'m> {
    pub(crate) fn new(memory: Option<&'m Memory>) -> Self {
        Self { memory, free: FREE }
    }

    /// Beside that, twice what an unbroken input takes that has nothing to do with its size: the compiled
    /// patterns of a tokenizer, the standard vocabulary that a single file goes without.
    pub(crate) fn beside(memory: Option<&'m Memory>, unbroken: impl Fn() -> Result<()>) -> Self {
        let Some(measure) = memory else { return Self::new(None) };
        // What is made only once is made in the first call.
        let _ = unbroken();
        let before = (measure.start)();
        let _ = unbroken();
        let taken = (measure.most)().saturating_sub(before);
        Self { memory, free: FREE + 2 * taken }
    }
}

/// Reads `mutations` broken safetensors files; the finding is the number of the first one that
/// was not answered properly, and how.
pub fn safetensors(mutations: usize, seed: u64, memory: Option<&Memory>) -> Result<Tally, String> {
    let bases = bases().map_err(|e| e.to_string())?;
    let bound = Bound::new(memory);
    let mut tally = Tally::default();
    for number in 0..mutations {
        let mut dice = Dice::new(seed, number as u64);
        let mut bytes = bases[dice.below(bases.len())].clone();
        for _ in 0..=dice.below(3) {
            bytes = mutate(bytes, &mut dice);
        }
        answer(number, &mut tally, bytes.len(), bound, || read_all(bytes))?;
    }
    Ok(tally)
}

/// Reads `mutations` broken settings files (an index, networks' settings, a scheduler's, a
/// tokenizer's); the finding is the number of the first one that was not answered properly.
pub fn settings(mutations: usize, seed: u64, memory: Option<&Memory>) -> Result<Tally, String> {
    let words = super::ClipVocabulary::from_words(["red", "circle"]).map_err(|e| e.to_string())?;
    let files = words.files(16);
    let tokenizer = Bound::beside(memory, || read_settings(6, files[0].1.as_bytes(), &files));
    let mut tally = Tally::default();
    for number in 0..mutations {
        let mut dice = Dice::new(seed, number as u64);
        let which = dice.below(8);
        let mut bytes = match which {
            0 => json::text(&to_json(&UNet2DConfig::default())),
            1 => json::text(&to_json(&UNet2DConditionConfig::default())),
            2 => json::text(&to_json(&DitConfig::default())),
            3 => json::text(&to_json(&AutoencoderKlConfig::default())),
            4 => json::text(&to_json(&ClipTextConfig::default())),
            5 => {
                let class = SchedulerClass::ALL[dice.below(SchedulerClass::ALL.len())];
                json::text(&SchedulerConfig::new(class).to_json())
            }
            6 => files[dice.below(files.len())].1.clone(),
            _ => INDEX_TEXT.to_owned(),
        }
        .into_bytes();
        for _ in 0..=dice.below(4) {
            mutate_json(&mut bytes, &mut dice);
        }
        let bound = if which == 6 { tokenizer } else { Bound::new(memory) };
        answer(number, &mut tally, bytes.len(), bound, || read_settings(which, &bytes, &files))?;
    }
    Ok(tally)
}

const INDEX_TEXT: &str = r#"{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers",
    "UNet2DConditionModel"], "safety_checker": [null, null], "force_zeros": true, "n": 3}"#;

fn read_settings(which: usize, bytes: &[u8], files: &[(&'static str, String)]) -> Result<()> {
    let file = Path::new("mutation.json");
    if which == 6 {
        let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
        let [vocab, merges] = [&files[0].1, &files[1].1];
        let none = serde_json::Map::new();
        // The one broken text in the place of each file in turn.
        let settings = json::object(file, bytes).unwrap_or_default();
        let read = |vocab: &str, merges: &str, settings| {
            super::ClipTokenizer::new(file, vocab, merges, settings)?
                .encode("a red circle")
                .map(drop)
        };
        return read(text, merges, &none)
            .or_else(|_| read(vocab, text, &none))
            .and_then(|()| read(vocab, merges, &settings));
    }
    let map = json::object(file, bytes)?;
    match which {
        0 => parse::<UNet2DConfig>(file, &map).map(drop),
        1 => parse::<UNet2DConditionConfig>(file, &map).map(drop),
        2 => parse::<DitConfig>(file, &map).map(drop),
        3 => parse::<AutoencoderKlConfig>(file, &map).map(drop),
        4 => parse::<ClipTextConfig>(file, &map).map(drop),
        5 => SchedulerConfig::parse(file, &map).map(drop),
        _ => super::ModelIndex::read(file, map).map(drop),
    }
}

/// Calls `read` on one broken input and books its answer.
pub(crate) fn answer(
    number: usize,
    tally: &mut Tally,
    size: usize,
    bound: Bound<'_>,
    read: impl FnOnce() -> Result<()>,
) -> Result<(), String> {
    let memory = bound.memory;
    let before = memory.map_or(0, |m| (m.start)());
    let answer = catch_unwind(AssertUnwindSafe(read));
    let taken = memory.map_or(0, |m| (m.most)()).saturating_sub(before);
    if taken > 2 * size + bound.free {
        return Err(format!("mutation {number}: {taken} bytes for a file of {size}"));
    }
    match answer {
        Err(_) => return Err(format!("mutation {number}: panic")),
        Ok(Ok(())) => tally.read += 1,
        Ok(Err(error)) => {
            let message = error.to_string();
            if message.contains('\n') || message.len() > 2000 || message.is_empty() {
                return Err(format!("mutation {number}: not a one-line error: {message:?}"));
            }
            tally.refused += 1;
        }
    }
    Ok(())
}

/// A source of numbers that is a function of the seed and the mutation's number (SplitMix64;
/// Steele, Lea and Flood, 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 for 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % (n.max(1) as u64)) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Changes a text that should be JSON: numbers to extreme ones, pieces left out, doubled or put in.
pub(crate) fn mutate_json(text: &mut Vec<u8>, dice: &mut Dice) {
    const NUMBERS: &[&str] = &[
        "0",
        "-1",
        "1",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "1125899906842624",
        "4294967296",
        "1e308",
        "1e999",
        "0.5",
        "NaN",
        "-Infinity",
        "null",
    ];
    const TOKENS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "null",
        "true",
        "[[[[",
        "\\u0000",
        "\n",
        "\"x\":1,",
        "\"F64\"",
        "\"C64\"",
        "\"F4\"",
        "\"BOOL\"",
        "\u{1f600}",
        "-",
    ];
    if text.is_empty() {
        return;
    }
    match dice.below(5) {
        0 => {
            let starts: Vec<usize> = (0..text.len())
                .filter(|i| text[*i].is_ascii_digit() && (*i == 0 || !text[i - 1].is_ascii_digit()))
                .collect();
            if let Some(from) = starts.get(dice.below(starts.len())).copied() {
                let run = text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
                text.splice(from..from + run, dice.pick(NUMBERS).bytes());
            }
        }
        1 => {
            let from = dice.below(text.len());
            let to = (from + 1 + dice.below(20)).min(text.len());
            text.drain(from..to);
        }
        2 => {
            let from = dice.below(text.len());
            let to = (from + 1 + dice.below(60)).min(text.len());
            let piece = text[from..to].to_vec();
            let at = dice.below(text.len());
            text.splice(at..at, piece);
        }
        3 => {
            let at = dice.below(text.len());
            text.splice(at..at, dice.pick(TOKENS).bytes());
        }
        _ => {
            let at = dice.below(text.len());
            text[at] ^= 1 << dice.below(8);
        }
    }
}

fn bases() -> Result<Vec<Vec<u8>>> {
    let none = BTreeMap::new();
    let values: Vec<f32> = (0..64).map(|i| i as f32 - 20.0).collect();
    let some = [
        Output::f32("conv_in.weight", &[4, 16], &values, Dtype::F16),
        Output::f32("conv_in.bias", &[64], &values, Dtype::F32),
        Output::f32("scale", &[], &values[..1], Dtype::BF16),
        Output::f32("nothing", &[0, 3], &[], Dtype::F32),
        Output::i64("ids", &[2], &[1, 2]),
        Output::u8("state", &[3], b"abc"),
    ];
    let many: Vec<String> = (0..200).map(|i| format!("blocks.{i}.weight")).collect();
    let many: Vec<_> =
        many.iter().map(|n| Output::f32(n, &[1], &values[..1], Dtype::F32)).collect();
    let note = BTreeMap::from([("note".to_owned(), "{\"a\":[1,2]}".to_owned())]);
    Ok(vec![
        encode_safetensors(&some, &note)?,
        encode_safetensors(&many, &none)?,
        encode_safetensors(&some[..1], &none)?,
        encode_safetensors(&[], &none)?,
    ])
}

fn mutate(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let header = bytes
        .first_chunk::<8>()
        .map_or(0, |n| usize::try_from(u64::from_le_bytes(*n)).unwrap_or(0))
        .min(bytes.len().saturating_sub(8));
    match dice.below(8) {
        0 => bytes.truncate(dice.below(bytes.len() + 1)),
        1 => {
            for _ in 0..=dice.below(16) {
                let at = dice.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
        2 if bytes.len() >= 8 => {
            let length = match dice.below(4) {
                0 => dice.next(),
                1 => u64::MAX - dice.below(16) as u64,
                2 => (header + dice.below(32)) as u64,
                _ => header.saturating_sub(dice.below(32)) as u64,
            };
            bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
        3 => {
            let extra = dice.below(40);
            bytes.extend((0..extra).map(|_| dice.next() as u8));
        }
        // The rest keeps the length of the header right, so that the parser gets to see it.
        _ if bytes.len() >= 8 => {
            let mut text = bytes[8..8 + header].to_vec();
            for _ in 0..=dice.below(3) {
                mutate_json(&mut text, dice);
            }
            let mut out = (text.len() as u64).to_le_bytes().to_vec();
            out.extend(text);
            out.extend(&bytes[8 + header..]);
            bytes = out;
        }
        _ => {}
    }
    bytes
}

fn read_all(bytes: Vec<u8>) -> Result<()> {
    let set = TensorSet::from(TensorFile::from_bytes(bytes, "mutation.safetensors")?);
    for name in set.names() {
        let info = set.info(name)?;
        set.raw(name)?;
        let read = set.read_f32(name).map(|v| v.len());
        if read.as_ref().is_ok_and(|n| *n != info.elements()) {
            return Err(crate::Error::format(set.name(), name, "a wrong number of values\n"));
        }
        let _ = set.read_i64(name);
    }
    // What does not fit is told on one line as well.
    let wanted = [super::Wanted::new("conv_in.weight", [4, 16])];
    match set.check(&wanted) {
        Err(error) if error.to_string().contains('\n') => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_settings_are_answered() {
        let tally = settings(600, 1, None).unwrap();
        assert!(tally.refused > 300, "{tally:?}");
        assert_eq!(tally, settings(600, 1, None).unwrap());
        let good = crate::hub::ClipVocabulary::from_words(["red"]).unwrap().files(16);
        read_settings(6, good[1].1.as_bytes(), &good).unwrap();
        read_settings(7, INDEX_TEXT.as_bytes(), &good).unwrap();
    }

    #[test]
    fn broken_files_are_answered() {
        let tally = safetensors(1000, 1, None).unwrap();
        assert_eq!(tally.read + tally.refused, 1000);
        assert!(tally.refused > 800, "{tally:?}");
        assert_eq!(tally, safetensors(1000, 1, None).unwrap());
        // Undamaged, the bases are read: what is refused above is refused for its damage.
        for bytes in bases().unwrap() {
            let file = TensorFile::from_bytes(bytes, "base").unwrap();
            assert!(file.names().all(|n| file.read_f32(n).is_ok()));
        }
    }
}
