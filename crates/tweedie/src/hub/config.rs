//! Settings files of networks: `config.json` read into the networks' own structs and back.
//!
//! Keys that begin with an underscore are the writer's notes (`_class_name`,
//! `_diffusers_version`, `_name_or_path`) and mean nothing to a network. Any other key must be one
//! of the class's, because a misspelt key would silently leave a default in place.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::folder::{Component, class_of};
use super::json::one_line;
use crate::model::config::{ClipTextConfig, Config};
use crate::{Error, Result};

/// The version of diffusers whose fields and defaults the settings here have.
pub const DIFFUSERS: &str = "0.42.0";
/// The version of transformers whose fields and defaults the settings here have.
pub const TRANSFORMERS: &str = "5.23.0";

/// The settings of a component, checked.
///
/// # Errors
/// The component is of another class, or those of [`parse`].
pub fn read<C: Config>(component: &Component) -> Result<C> {
    if !component.class.is_empty() && !is_class::<C>(&component.class) {
        let why = format!("wanted the class {}, found {}", C::CLASS, one_line(&component.class));
        return Err(Error::format(&component.config_file, "_class_name", why));
    }
    parse(&component.config_file, &component.config)
}

/// The settings in the JSON object of a `config.json`, checked; `file` is named in errors.
///
/// # Errors
/// The object is that of another class, it holds a key that the class has not (the error names the
/// nearest), or a value that is of the wrong kind, out of bounds or not supported.
pub fn parse<C: Config>(file: &Path, map: &Map<String, Value>) -> Result<C> {
    if let Some(class) = class_of(map)
        && !is_class::<C>(class)
    {
        let why = format!("wanted the class {}, found {}", C::CLASS, one_line(class));
        return Err(Error::format(file, "_class_name", why));
    }
    let known = fields(&C::default());
    let own = own_fields(file, C::CLASS, map, &known, C::IGNORED)?;
    let config: C = overlay(file, &known, &own)?;
    config.validate().map_err(|e| in_file(file, e))?;
    Ok(config)
}

/// Whether settings of this class are read into `C`.
fn is_class<C: Config>(class: &str) -> bool {
    class == C::CLASS || C::OTHERS.contains(&class)
}

/// The JSON object of a `config.json` with these settings, as Python writes and reads it: every
/// field, in order, behind the class and the version.
#[must_use]
pub fn to_json<C: Config>(config: &C) -> Map<String, Value> {
    let mut sorted: BTreeMap<String, Value> = fields(config).into_iter().collect();
    if is_transformers(C::CLASS) {
        sorted.insert("architectures".to_owned(), json!([C::CLASS]));
        // Without it transformers computes in the width of the stored weights, and diffusers in 32
        // bits: a folder in f16 would not run.
        sorted.insert("dtype".to_owned(), json!("float32"));
        sorted.insert("model_type".to_owned(), json!("clip_text_model"));
        sorted.insert("transformers_version".to_owned(), json!(TRANSFORMERS));
    } else {
        sorted.insert("_class_name".to_owned(), json!(C::CLASS));
        sorted.insert("_diffusers_version".to_owned(), json!(DIFFUSERS));
    }
    sorted.into_iter().collect()
}

/// Whether a class is one of transformers', whose files have other names than diffusers'.
#[must_use]
pub fn is_transformers(class: &str) -> bool {
    class == ClipTextConfig::CLASS || class.starts_with("CLIP")
}

/// The fields of a struct and their values, in order.
pub(crate) fn fields(config: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        // A struct of numbers, strings and lists always is an object.
        _ => Map::new(),
    }
}

/// The entries of `map` that are fields of the class; anything else but notes and ignored keys is
/// an error that names the nearest field.
pub(crate) fn own_fields(
    file: &Path,
    class: &str,
    map: &Map<String, Value>,
    known: &Map<String, Value>,
    ignored: &[&str],
) -> Result<Map<String, Value>> {
    let mut own = Map::new();
    for (key, value) in map {
        if known.contains_key(key) {
            own.insert(key.clone(), value.clone());
        } else if !key.starts_with('_') && !ignored.contains(&key.as_str()) {
            let names = known.keys().map(String::as_str);
            let hint = Error::unknown(format!("field of {class}"), &one_line(key), names);
            return Err(Error::format(file, one_line(key), hint.to_string()));
        }
    }
    Ok(own)
}

/// The struct with the values of `own` over those of `base`. The error names the first key whose
/// value is of the wrong kind.
pub(crate) fn overlay<T: DeserializeOwned>(
    file: &Path,
    base: &Map<String, Value>,
    own: &Map<String, Value>,
) -> Result<T> {
    let mut all = base.clone();
    all.extend(own.clone());
    let error = match serde_json::from_value(Value::Object(all)) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    for (key, value) in own {
        let mut one = base.clone();
        one.insert(key.clone(), value.clone());
        if let Err(error) = serde_json::from_value::<T>(Value::Object(one)) {
            return Err(Error::format(file, key, one_line(&error.to_string())));
        }
    }
    Err(Error::format(file, "", one_line(&error.to_string())))
}

/// An error about a setting as one about the file that holds it.
pub(crate) fn in_file(file: &Path, error: Error) -> Error {
    match error {
        Error::Setting { key, why } => Error::format(file, key, why),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::json::object;
    use crate::model::config::{DitConfig, UNet2DConditionConfig, UNet2DConfig};

    fn read_text<C: Config>(text: &str) -> Result<C> {
        let file = Path::new("unet/config.json");
        parse(file, &object(file, text.as_bytes())?)
    }

    #[test]
    fn what_is_written_is_read() {
        let config = UNet2DConfig {
            block_out_channels: vec![32, 64],
            num_class_embeds: Some(11),
            down_block_types: UNet2DConfig::default().down_block_types[..2].to_vec(),
            up_block_types: UNet2DConfig::default().up_block_types[2..].to_vec(),
            ..UNet2DConfig::default()
        };
        let map = to_json(&config);
        assert_eq!(map["_class_name"], "UNet2DModel");
        assert_eq!(map["down_block_types"][0], "DownBlock2D");
        let text = Value::Object(map).to_string();
        assert_eq!(read_text::<UNet2DConfig>(&text).unwrap(), config);
        let clip = ClipTextConfig::default();
        let text = Value::Object(to_json(&clip)).to_string();
        assert_eq!(read_text::<ClipTextConfig>(&text).unwrap(), clip);
    }

    #[test]
    fn absent_fields_have_their_defaults_and_notes_are_let_be() {
        let text = r#"{"_class_name":"UNet2DConditionModel","_diffusers_version":"0.6.0",
            "_name_or_path":"x","cross_attention_dim":768}"#;
        let config: UNet2DConditionConfig = read_text(text).unwrap();
        assert_eq!(config.cross_attention_dim.get(3), Some(768));
        assert_eq!(config.block_out_channels, [320, 640, 1280, 1280]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            (
                r#"{"in_chanels":3}"#,
                "config.json: `in_chanels`: no field of UNet2DModel is called `in_chanels`; did you mean",
            ),
            (r#"{"in_channels":"3"}"#, "config.json: `in_channels`: invalid type"),
            (r#"{"in_channels":0}"#, "config.json: `in_channels`: wanted 1 to"),
            (r#"{"in_channels":NaN}"#, "config.json: `in_channels`: invalid type"),
            (r#"{"in_channels":1e999}"#, "config.json: not valid JSON"),
            (r#"{"in_channels":18446744073709551615}"#, "config.json: `in_channels`: wanted 1 to"),
            (
                r#"{"down_block_types":["DownBlock3D"]}"#,
                "`down_block_types`: unknown variant `DownBlock3D`",
            ),
            (r#"{"_class_name":"UNet3DModel"}"#, "wanted the class UNet2DModel, found UNet3DModel"),
            (r#"{"a\nb":1}"#, "a\\nb"),
        ] {
            let message = read_text::<UNet2DConfig>(text).unwrap_err().to_string();
            assert!(message.contains(says) && !message.contains('\n'), "{text}: {message}");
        }
        let unknown = read_text::<DitConfig>(r#"{"patchsize":2}"#).unwrap_err().to_string();
        assert!(unknown.contains("`patch_size`"), "{unknown}");
    }
}
