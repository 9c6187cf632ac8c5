//! Lists the models under `models/`, so that the library holds their files.
//!
//! Of each model only what a model folder consists of is taken: its index, and the settings,
//! vocabularies and weights of its components. Cards, logs and measurements beside them are not.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let models = here.join("../../models");
    println!("cargo::rerun-if-changed={}", models.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut list = String::from("&[\n");
    for (name, model) in entries(&models)? {
        if !model.join("model_index.json").is_file() && !model.join("config.json").is_file() {
            continue;
        }
        let mut files = Vec::new();
        collect(&model, "", &mut files)?;
        let _ = writeln!(list, "    ({name:?}, &[");
        for (inner, path) in files {
            let path = path.canonicalize()?;
            let _ = writeln!(
                list,
                "        ({inner:?}, include_bytes!({:?})),",
                path.display().to_string()
            );
        }
        list.push_str("    ]),\n");
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("builtin.rs"), list)
}

/// The files of a model folder: path within it, and path.
fn collect(model: &Path, at: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for (name, path) in entries(&model.join(at))? {
        let inner = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
        let is = |extension: &str| path.extension().is_some_and(|e| e == extension);
        let belongs = if at.is_empty() {
            ["model_index.json", "config.json", "tweedie.json"].contains(&name.as_str())
                || is("safetensors")
        } else {
            is("json") || is("safetensors") || name == "merges.txt"
        };
        if path.is_dir() && at.is_empty() {
            collect(model, &inner, files)?;
        } else if path.is_file() && belongs {
            files.push((inner, path));
        }
    }
    Ok(())
}

/// What a folder holds, in order; nothing where there is no folder.
fn entries(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str() {
            found.push((name.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
