//! `--grid`: a part by name, or a file that `tweedie tune` has written.

use std::path::Path;

use anyhow::{Context, Result};
use tweedie::grid::Listed;
use tweedie::spec::{PartSpec, grid_of_file, resolve_grid};

/// The grid that `--grid` names, and the count of steps that a file is for.
pub(crate) fn read(text: &str) -> Result<(PartSpec, Option<usize>)> {
    let file = Path::new(text);
    let is_file = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    if !is_file {
        return Ok((resolve_grid(&text.parse()?)?, None));
    }
    let content = std::fs::read_to_string(file).with_context(|| text.to_owned())?;
    let part = grid_of_file(file, &content)?;
    let listed = part.settings(tweedie::catalog::Seam::Grid).read::<Listed>().ok();
    Ok((part, listed.and_then(|l| l.steps())))
}
