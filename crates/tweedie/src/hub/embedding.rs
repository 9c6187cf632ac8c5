//! Learned embeddings: words whose vectors were trained (Gal et al., "An Image is Worth One Word:
//! Personalizing Text-to-Image Generation using Textual Inversion", arXiv:2208.01618, section 4).
//!
//! Files hold one tensor `[vectors, width]` (or one vector) for each text encoder, under a name that
//! says which program wrote them: `emb_params` or `string_to_param.*` (A1111), `clip_l` and `clip_g`
//! or `text_encoders_0` and `text_encoders_1` (two encoders), else the word itself (diffusers).

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::json::one_line;
use super::tensor_set::TensorSet;
use crate::{Error, Result};

/// The most vectors of a word.
const MOST_VECTORS: usize = 1024;

/// The names that say which text encoder a tensor is for.
const ENCODERS: [(&str, &str); 4] = [
    ("clip_l", "text_encoder"),
    ("clip_g", "text_encoder_2"),
    ("text_encoders_0", "text_encoder"),
    ("text_encoders_1", "text_encoder_2"),
];

/// The vectors of a word for one text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// The text encoder; `None` where the file does not say.
    pub part: Option<&'static str>,
    /// The tensor's name in the file.
    pub key: String,
    /// How many numbers a vector has.
    pub width: usize,
    /// The vectors one behind the other.
    pub values: Vec<f32>,
}

impl Vectors {
    /// How many vectors there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.width
    }
}

/// A word with learned vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// What it is called in a prompt: the name that was given, else the file's without its ending
    /// and, where the file has one, the word itself.
    pub names: Vec<String>,
    /// The SHA-256 of the vectors with their names, in hexadecimal.
    pub hash: String,
    /// The file.
    pub file: PathBuf,
    /// The vectors, one set for each text encoder.
    pub sets: Vec<Vectors>,
}

impl Embedding {
    /// Opens a file; `name` is what it is to be called in prompts.
    ///
    /// # Errors
    ///
    /// The file is wrong, or holds no vectors in a layout that is known.
    pub fn open(path: impl AsRef<Path>, name: Option<&str>) -> Result<Self> {
        let path = path.as_ref();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::from_tensors(&TensorSet::open(path)?, name, &stem)
    }

    /// From tensors; `stem` is the file's name without its ending.
    ///
    /// # Errors
    ///
    /// As for [`Embedding::open`].
    pub fn from_tensors(tensors: &TensorSet, name: Option<&str>, stem: &str) -> Result<Self> {
        let file = tensors.name().to_owned();
        let keys: Vec<&str> = tensors.names().collect();
        let named = |key: &str| ENCODERS.iter().find(|(k, _)| *k == key).map(|(_, part)| *part);
        let wrong = |why: String| Error::format(&file, "", why);
        let wanted: Vec<&str> = if keys.iter().any(|k| named(k).is_some()) {
            keys
        } else if let Some(key) = keys.iter().find(|k| **k == "emb_params") {
            vec![*key]
        } else {
            let inner: Vec<&str> =
                keys.iter().copied().filter(|k| k.starts_with("string_to_param.")).collect();
            if inner.is_empty() { keys } else { inner }
        };
        let mut sets = Vec::new();
        let mut sum = Sha256::new();
        for key in &wanted {
            let shape = tensors.info(key)?.shape;
            let found = match shape.as_slice() {
                [width] => Some((1, *width)),
                [count, width] => Some((*count, *width)),
                _ => None,
            };
            let fits =
                |(count, width): &(usize, usize)| (1..=MOST_VECTORS).contains(count) && *width > 0;
            let Some((_, width)) = found.filter(fits) else {
                let why = format!("wanted vectors, 1 to {MOST_VECTORS}, found {shape:?}");
                return Err(Error::format(&file, one_line(key), why));
            };
            let values = tensors.read_f32(key)?;
            if values.iter().any(|v| !v.is_finite()) {
                let why = "a number that is not finite".to_owned();
                return Err(Error::format(&file, one_line(key), why));
            }
            sum.update(key.as_bytes());
            sum.update(&*tensors.raw(key)?);
            sets.push(Vectors { part: named(key), key: (*key).to_owned(), width, values });
        }
        let [first, rest @ ..] = sets.as_slice() else {
            return Err(wrong("no tensor, wanted the vectors of a word".to_owned()));
        };
        if !rest.is_empty() && sets.iter().any(|s| s.part.is_none()) {
            let why = format!(
                "wanted the vectors of one word, found {} tensors, `{}` and `{}` among them",
                sets.len(),
                one_line(&first.key),
                one_line(&rest[0].key)
            );
            return Err(wrong(why));
        }
        if let Some(other) = rest.iter().find(|s| s.count() != first.count()) {
            let why = format!("wanted {} vectors, found {}", first.count(), other.count());
            return Err(Error::format(&file, one_line(&other.key), why));
        }
        let mut names = vec![name.unwrap_or(stem).to_owned()];
        let plain = ["emb_params", "*"];
        let word = first.key.strip_prefix("string_to_param.").unwrap_or(&first.key);
        if name.is_none() && first.part.is_none() && !plain.contains(&word) && word != stem {
            names.push(word.to_owned());
        }
        if let Some(bad) = names.iter().find(|n| n.trim().is_empty() || n.len() > 200) {
            let why = format!("`{}` is no name for a word of a prompt", one_line(bad));
            return Err(wrong(why));
        }
        let hash = sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { names, hash, file, sets })
    }

    /// What it is called first.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The vectors for text encoders of these names and widths, one for each.
    ///
    /// # Errors
    ///
    /// An encoder gets none, or the file has vectors for an encoder that is not there: the error
    /// names the file, the tensor, its width and the width that is wanted.
    pub fn fit(&self, encoders: &[(&str, usize)]) -> Result<Vec<&Vectors>> {
        let wanted = |(name, width): &(&str, usize)| format!("width {width} for {name}");
        let all = encoders.iter().map(wanted).collect::<Vec<_>>().join(" and ");
        for set in &self.sets {
            let meant = |(name, width): &&(&str, usize)| {
                set.part.is_none_or(|p| p == *name) && *width == set.width
            };
            if !encoders.iter().any(|e| meant(&e)) {
                let why = format!("wanted {all}, found width {}", set.width);
                return Err(Error::format(&self.file, one_line(&set.key), why));
            }
        }
        let of = |(name, width): &(&str, usize)| {
            let exact = self.sets.iter().find(|s| s.part == Some(*name));
            let any = || self.sets.iter().find(|s| s.part.is_none() && s.width == *width);
            exact.or_else(any).ok_or_else(|| {
                let have: Vec<String> = self
                    .sets
                    .iter()
                    .map(|s| format!("`{}` of width {}", one_line(&s.key), s.width))
                    .collect();
                let why = format!("wanted {all}, found {} alone", have.join(" and "));
                Error::format(&self.file, "", why)
            })
        };
        encoders.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hub::{Dtype, Output, TensorFile, encode_safetensors};

    fn embedding(tensors: &[(&str, &[usize])], name: Option<&str>) -> Result<Embedding> {
        let values: Vec<Vec<f32>> =
            tensors.iter().map(|(_, s)| vec![0.5; s.iter().product()]).collect();
        let outputs: Vec<Output<'_>> = tensors
            .iter()
            .zip(&values)
            .map(|((n, s), v)| Output::f32(n, s, v, Dtype::F32))
            .collect();
        let bytes = encode_safetensors(&outputs, &BTreeMap::new())?;
        let file = TensorFile::from_bytes(bytes, "cat.safetensors")?;
        Embedding::from_tensors(&file.into(), name, "cat")
    }

    const ONE: [(&str, usize); 1] = [("text_encoder", 8)];
    const TWO: [(&str, usize); 2] = [("text_encoder", 8), ("text_encoder_2", 12)];

    #[test]
    fn every_layout_is_read() {
        for (tensors, names) in [
            (vec![("emb_params", &[3, 8][..]), ("name", &[1][..])], vec!["cat"]),
            (
                vec![("string_to_param.*", &[3, 8][..]), ("string_to_token.*", &[1][..])],
                vec!["cat"],
            ),
            (vec![("<cat-toy>", &[3, 8][..])], vec!["cat", "<cat-toy>"]),
        ] {
            let made = embedding(&tensors, None).unwrap();
            assert_eq!(made.names, names);
            assert_eq!(made.fit(&ONE).unwrap()[0].count(), 3);
            assert!(made.fit(&TWO).is_err());
        }
        let one = embedding(&[("<cat-toy>", &[8])], Some("toy")).unwrap();
        assert_eq!((one.names.as_slice(), one.sets[0].count()), (&["toy".to_owned()][..], 1));
        for keys in [["clip_l", "clip_g"], ["text_encoders_0", "text_encoders_1"]] {
            let two = embedding(&[(keys[0], &[2, 8]), (keys[1], &[2, 12])], None).unwrap();
            let fitted = two.fit(&TWO).unwrap();
            assert_eq!(fitted.iter().map(|v| v.width).collect::<Vec<_>>(), [8, 12]);
            assert!(two.fit(&ONE).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_names_file_key_found_and_wanted() {
        let error = embedding(&[("emb_params", &[1, 16])], None).unwrap().fit(&ONE).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cat.safetensors: `emb_params`: wanted width 8 for text_encoder, found width 16"
        );
        // The widths of the two encoders exchanged.
        let two = embedding(&[("clip_g", &[2, 8]), ("clip_l", &[2, 12])], None).unwrap();
        assert!(two.fit(&TWO).unwrap_err().to_string().contains("`clip_g`"));
        let one = embedding(&[("clip_l", &[2, 8])], None).unwrap().fit(&TWO).unwrap_err();
        assert!(one.to_string().contains("width 12 for text_encoder_2"), "{one}");
        for bad in [
            vec![],
            vec![("a", &[2, 8][..]), ("b", &[2, 8][..])],
            vec![("a", &[2, 8, 1][..])],
            vec![("a", &[0, 8][..])],
            vec![("clip_l", &[2, 8][..]), ("clip_g", &[3, 12][..])],
        ] {
            assert!(embedding(&bad, None).is_err(), "{bad:?}");
        }
        assert!(embedding(&[("a", &[8])], Some(" ")).is_err());
    }
}
