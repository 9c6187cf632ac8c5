//! What an update is multiplied by: alpha over rank.
//!
//! An alpha stands beside the factors (kohya), in the header under `lora_adapter_metadata`
//! (diffusers) or in `adapter_config.json` (PEFT), there one for all modules with exceptions by
//! pattern. Where there is none it equals the rank, so that the update is the plain product.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::hub::json::{self, one_line};
use crate::{Error, Result};

/// The alphas of one part of a model, as PEFT's settings have them.
#[derive(Clone, Debug, Default)]
struct Settings {
    /// The part; `None` for all.
    part: Option<String>,
    alpha: Option<f64>,
    /// Alphas of modules whose path ends in the name, or is it.
    patterns: Vec<(Pattern, f64)>,
    /// Divide by the root of the rank (Kalajdzievski, "A rank stabilization scaling factor for
    /// fine-tuning with LoRA", arXiv:2312.03732).
    root: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// The path, with `_` for every dot.
    path: String,
    whole: bool,
}

/// All that a file says of alphas beside the tensors.
#[derive(Clone, Debug, Default)]
pub(super) struct Alphas(Vec<Settings>);

impl Alphas {
    /// From the header's text and from PEFT's settings.
    pub(super) fn read(
        file: &Path,
        header: Option<&str>,
        settings: Option<(PathBuf, Map<String, Value>)>,
    ) -> Result<Self> {
        let mut all = Vec::new();
        if let Some((path, map)) = settings {
            all.push(Settings::read(&path, None, "", &map)?);
        }
        if let Some(text) = header {
            let map = json::object(file, text.as_bytes())?;
            for part in ["unet", "transformer", "text_encoder", "text_encoder_2"] {
                let prefix = format!("{part}.");
                if map.keys().any(|k| k.starts_with(&prefix)) {
                    let named = if part == "transformer" { "unet" } else { part };
                    all.push(Settings::read(file, Some(named), &prefix, &map)?);
                }
            }
        }
        Ok(Self(all))
    }

    /// The factor of a module; `alpha` is what stands beside its tensors.
    ///
    /// # Errors
    ///
    /// None now; a pattern that is not understood is refused on reading.
    pub(super) fn scale(
        &self,
        alpha: Option<f64>,
        rank: usize,
        part: &str,
        path: &str,
    ) -> Result<f64> {
        let rank = rank as f64;
        if let Some(alpha) = alpha {
            return Ok(alpha / rank);
        }
        let of_part = |s: &&Settings| s.part.as_deref().is_none_or(|p| p == part);
        let Some(settings) = self.0.iter().find(of_part) else { return Ok(1.0) };
        let path = path.replace('.', "_");
        let own = settings.patterns.iter().find(|(pattern, _)| pattern.fits(&path));
        let divisor = if settings.root { rank.sqrt() } else { rank };
        Ok(own.map(|(_, a)| *a).or(settings.alpha).map_or(1.0, |alpha| alpha / divisor))
    }
}

impl Settings {
    fn read(
        file: &Path,
        part: Option<&str>,
        prefix: &str,
        map: &Map<String, Value>,
    ) -> Result<Self> {
        let get = |key: &str| map.get(&format!("{prefix}{key}")).filter(|v| !v.is_null());
        let wrong = |key: &str, why: String| Error::format(file, format!("{prefix}{key}"), why);
        let number = |key: &str, value: &Value| match json::number(value) {
            Some(n) if n.is_finite() => Ok(n),
            _ => {
                Err(wrong(key, format!("wanted a number, found {}", one_line(&value.to_string()))))
            }
        };
        let is_set = |key: &str| get(key).and_then(Value::as_bool).unwrap_or(false);
        if let Some(kind) = get("peft_type").and_then(Value::as_str)
            && kind != "LORA"
        {
            return Err(wrong("peft_type", format!("wanted LORA, found {}", one_line(kind))));
        }
        for key in ["use_dora", "fan_in_fan_out"] {
            if is_set(key) {
                return Err(wrong(key, "is not supported, found true".to_owned()));
            }
        }
        let mut patterns = Vec::new();
        if let Some(found) = get("alpha_pattern") {
            let Some(found) = found.as_object() else {
                return Err(wrong("alpha_pattern", "wanted an object of numbers".to_owned()));
            };
            for (name, value) in found {
                let pattern = Pattern::read(name).ok_or_else(|| {
                    let why = format!("`{}` is more than the name of a module", one_line(name));
                    wrong("alpha_pattern", why)
                })?;
                patterns.push((pattern, number("alpha_pattern", value)?));
            }
        }
        Ok(Self {
            part: part.map(str::to_owned),
            alpha: get("lora_alpha").map(|v| number("lora_alpha", v)).transpose()?,
            patterns,
            root: is_set("use_rslora"),
        })
    }
}

impl Pattern {
    /// PEFT's patterns are regular expressions; those that files hold are names, perhaps with the
    /// dots escaped and an anchor before them.
    fn read(text: &str) -> Option<Self> {
        let (whole, name) = match text.strip_prefix('^') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.strip_suffix('$').unwrap_or(name).replace("\\.", ".");
        let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
        (!name.is_empty() && name.chars().all(plain))
            .then(|| Self { path: name.replace('.', "_"), whole })
    }

    /// Whether a path, with `_` for every dot, is meant: all of it or its end. Text encoders' paths
    /// are written with and without their first word.
    fn fits(&self, path: &str) -> bool {
        let ends = |path: &str| {
            path == self.path
                || !self.whole
                    && path.strip_suffix(&self.path).is_some_and(|rest| rest.ends_with('_'))
        };
        ends(path) || path.strip_prefix("text_model_").is_some_and(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alphas(text: &str) -> Result<Alphas> {
        let file = Path::new("adapter_config.json");
        let map = json::object(file, text.as_bytes())?;
        Alphas::read(file, None, Some((file.to_owned(), map)))
    }

    #[test]
    fn alpha_over_rank_with_exceptions() {
        let path = "down_blocks.0.attentions.0.proj_in";
        let of = |a: &Alphas, alpha| a.scale(alpha, 4, "unet", path).unwrap();
        assert_eq!(of(&Alphas::default(), None), 1.0);
        assert_eq!(of(&Alphas::default(), Some(1.0)), 0.25);
        let set = alphas(r#"{"lora_alpha": 2, "alpha_pattern": {"proj_out": 8}}"#).unwrap();
        assert_eq!(of(&set, None), 0.5);
        assert_eq!(of(&set, Some(8.0)), 2.0);
        for pattern in
            ["proj_in", "attentions.0.proj_in", "^down_blocks\\\\.0.attentions.0.proj_in$"]
        {
            let set = alphas(&format!(r#"{{"alpha_pattern": {{"{pattern}": 12}}}}"#)).unwrap();
            assert_eq!(of(&set, None), 3.0, "{pattern}");
        }
        for pattern in ["^proj_in", "0.proj", "roj_in"] {
            let set = alphas(&format!(r#"{{"alpha_pattern": {{"{pattern}": 12}}}}"#)).unwrap();
            assert_eq!(of(&set, None), 1.0, "{pattern}");
        }
        let root = alphas(r#"{"lora_alpha": 2, "use_rslora": true}"#).unwrap();
        assert_eq!(of(&root, None), 1.0);
    }

    #[test]
    fn the_header_has_settings_for_each_part() {
        let header = r#"{"unet.lora_alpha": 2, "unet.r": 4, "text_encoder.lora_alpha": 1,
            "text_encoder.alpha_pattern": {"text_model.encoder.layers.0.mlp.fc1": 6}}"#;
        let set = Alphas::read(Path::new("x"), Some(header), None).unwrap();
        let of = |part, path| set.scale(None, 2, part, path).unwrap();
        assert_eq!(of("unet", "conv_in"), 1.0);
        assert_eq!(of("text_encoder", "text_model.encoder.layers.1.mlp.fc1"), 0.5);
        assert_eq!(of("text_encoder", "text_model.encoder.layers.0.mlp.fc1"), 3.0);
        assert_eq!(of("text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"), 1.0);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (text, says) in [
            (r#"{"use_dora": true}"#, "use_dora"),
            (r#"{"peft_type": "LOHA"}"#, "peft_type"),
            (r#"{"lora_alpha": "x"}"#, "lora_alpha"),
            (r#"{"alpha_pattern": {"to_(q|k)": 1}}"#, "more than the name"),
            (r#"{"alpha_pattern": 3}"#, "alpha_pattern"),
        ] {
            let error = alphas(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
