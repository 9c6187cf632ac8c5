//! Lists the files of the page, so that the program holds them.

use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let page = here.join("page");
    println!("cargo::rerun-if-changed={}", page.display());
    let mut names: Vec<String> = fs::read_dir(&page)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| [".html", ".js", ".css", ".svg"].iter().any(|e| name.ends_with(e)))
        .collect();
    names.sort();
    let mut list = String::from("const PAGE: &[(&str, &[u8])] = &[\n");
    for name in names {
        let path = page.join(&name).display().to_string();
        let _ = writeln!(list, "    ({name:?}, include_bytes!({path:?})),");
    }
    list.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("page.rs"), list)
}
