//! `tweedie edit` and `tweedie invert` as people meet them, on tiny models.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::command::{latents, latents_of, path, pictures, pixels, refused, tweedie};

const METHODS: [&str; 6] =
    ["ddim-inversion", "edict", "cyclediffusion", "edit-friendly", "direct-inversion", "infedit"];

fn picture(folder: &Path, name: &str, side: u32) -> PathBuf {
    let place = folder.join(name);
    let pixel = |x, y| image::Rgb([(x * 31 % 256) as u8, (y * 57 % 256) as u8, (x * y) as u8]);
    image::RgbImage::from_fn(side, side, pixel).save(&place).unwrap();
    place
}

fn report(args: &[&str]) -> Value {
    let done = tweedie(args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn what_is_inverted_comes_back_and_the_cost_is_said_before() {
    let temp = tempfile::tempdir().unwrap();
    let image = picture(temp.path(), "image.png", 8);
    for (model, what) in [(latents(temp.path()), "a red circle"), (pixels(temp.path()), "shoe")] {
        for method in METHODS {
            let (out, saved) = (temp.path().join("out"), temp.path().join("latents.safetensors"));
            let mut args = vec!["invert", path(&image), what, "--model", path(&model)];
            args.extend(["--method", method, "--steps", "8", "--strength", "0.8", "--json"]);
            args.extend(["--save-latents", path(&saved), "--out", path(&out)]);
            let report = report(&args);
            let largest = report["error"]["largest"].as_f64().unwrap();
            match method {
                "ddim-inversion" => assert!(largest > 0.0, "{method}: {largest}"),
                "edict" => assert!(largest < 5e-3, "{method}: {largest}"),
                _ => assert!(largest < 1e-4, "{method}: {largest}"),
            }
            assert_eq!(report["evaluations"], report["evaluations_known_before"], "{method}");
            let file = tweedie::hub::TensorFile::open(&saved).unwrap();
            let mut names: Vec<&str> = file.names().collect();
            names.sort_unstable();
            assert_eq!(names, ["latents", "source", "start"]);
        }
    }
}

#[test]
fn an_edit_follows_its_words_repeats_from_its_record_and_does_not_know_its_batch() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let image = picture(temp.path(), "image.png", 8);
    for method in METHODS {
        let run = |prompt: &str, count: &str, seed: &str| {
            let out = tempfile::tempdir().unwrap();
            let mut args = vec!["edit", path(&image), prompt, "--source", "a red circle"];
            args.extend(["--model", path(&model), "--method", method, "--steps", "6"]);
            args.extend(["--strength", "0.8", "--guidance", "3"]);
            args.extend(["--count", count, "--seed", seed]);
            (pictures(&args, out.path()), out)
        };
        let ((blue, out), (red, _red)) = (run("a blue square", "2", "4"), run("a red", "1", "4"));
        assert_ne!(blue[0].1, red[0].1, "{method}: the words change nothing");
        let (second, _second) = run("a blue square", "1", "5");
        assert_eq!(second[0], blue[1], "{method}");
        std::fs::copy(&image, out.path().join("image.png")).unwrap();
        let record = out.path().join(&blue[1].0);
        let again = tempfile::tempdir().unwrap();
        let from = ["generate", "--from", path(&record), "--model", path(&model)];
        assert_eq!(pictures(&from, again.path()), blue[1..], "{method}");
    }
}

#[test]
fn outside_its_mask_an_edit_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let model = pixels(temp.path());
    let grey = |name: &str, f: &dyn Fn(u32, u32) -> u8| {
        let place = temp.path().join(name);
        image::GrayImage::from_fn(8, 8, |x, y| image::Luma([f(x, y)])).save(&place).unwrap();
        place
    };
    let image = grey("image.png", &|x, y| (x * 29 + y) as u8);
    let mask = grey("mask.png", &|x, _| if x >= 5 { 255 } else { 0 });
    for method in METHODS {
        let out = temp.path().join(format!("{method}.png"));
        let mut args = vec!["edit", path(&image), "bag", "--source", "shoe"];
        args.extend(["--model", path(&model), "--mask", path(&mask), "--method", method]);
        args.extend(["--steps", "6", "--strength", "0.8", "--out", path(&out)]);
        let done = tweedie(&args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let read = |place: &Path| image::open(place).unwrap().to_luma8();
        let (before, after) = (read(&image), read(&out));
        let same = |x, y| before.get_pixel(x, y) == after.get_pixel(x, y);
        assert!((0..5).all(|x| (0..8).all(|y| same(x, y))), "{method}: what is kept changed");
        assert!((5..8).any(|x| (0..8).any(|y| !same(x, y))), "{method}: nothing changed");
    }
}

#[test]
fn what_cannot_be_edited_is_refused_with_the_reason() {
    let temp = tempfile::tempdir().unwrap();
    let (model, edits) = (latents(temp.path()), latents_of(temp.path(), 8));
    let image = picture(temp.path(), "image.png", 8);
    for (model, more, culprit) in [
        (&model, vec!["--method", "edicts"], "no edit is called `edicts`"),
        (&model, vec!["--method", "edict:mix=0"], "coupled:mix"),
        (&model, vec!["--method", "cyclediffusion:eta=0"], "above 0"),
        (&model, vec!["--method", "edit-friendly", "--strength", "0"], "strength"),
        (&model, vec!["--source-guidance", "nan"], "source_guidance"),
        (&edits, vec![], "sees the state alone"),
    ] {
        let mut args = vec!["edit", path(&image), "a blue circle", "--source", "a red circle"];
        args.extend(["--model", path(model), "--steps", "4"]);
        args.extend(more);
        refused(&args, culprit);
    }
    let spec = ["invert", path(&image), "shoo", "--model", "builtin:fashion", "--steps", "2"];
    refused(&spec, "no class is called `shoo`");
}
