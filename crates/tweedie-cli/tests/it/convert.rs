//! `tweedie convert` and `tweedie inspect` on files.

use std::path::Path;

use super::command::{latents, path, pictures, tweedie};

fn done(args: &[&str]) -> String {
    let output = tweedie(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_folder_and_the_file_made_of_it_draw_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let [file, back] = ["m.safetensors", "back"].map(|n| temp.path().join(n));
    let said = done(&["convert", path(&model), path(&file)]);
    assert!(said.contains("the vocabulary of `tokenizer` is not CLIP's"), "{said}");
    // The file lacks its words and says so, with where it looked and the option.
    let report = done(&["inspect", path(&file)]);
    for says in ["Stable Diffusion 1", "predicts noise", "missing: tokenizer", "--tokenizer"] {
        assert!(report.contains(says), "{says}: {report}");
    }
    let refused = tweedie(&["convert", path(&file), path(&back)]);
    assert!(!refused.status.success() && !back.exists());
    let words = model.join("tokenizer");
    done(&["convert", path(&file), path(&back), "--tokenizer", path(&words)]);
    let draw = |model: &Path| {
        let out = tempfile::tempdir().unwrap();
        let args =
            ["generate", "--model", path(model), "--steps", "3", "--guidance", "2", "a red circle"];
        // The files' names hold the model's.
        pictures(&args, out.path()).into_iter().map(|(_, pixels)| pixels).collect::<Vec<_>>()
    };
    assert_eq!(draw(&model), draw(&back));
    let again = temp.path().join("again.safetensors");
    done(&["convert", path(&back), path(&again)]);
    assert!(std::fs::read(&file).unwrap() == std::fs::read(&again).unwrap());
    let wide = temp.path().join("wide");
    done(&["convert", path(&model), path(&wide), "--dtype", "f32"]);
    let report = done(&["inspect", path(&wide)]);
    assert!(report.contains("F32") && !report.contains("F16"), "{report}");
    assert_eq!(draw(&model), draw(&wide));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let inside = temp.path().join("no/such/place/m.safetensors");
    for args in [
        vec!["convert", path(&model), path(&inside)],
        vec!["convert", "no/such/model", path(temp.path())],
        vec!["convert", path(&model), path(&model.join("unet/config.json")), "--to", "folder"],
    ] {
        let output = tweedie(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.lines().count() == 1, "{args:?}: {said}");
    }
}
