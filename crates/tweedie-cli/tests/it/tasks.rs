//! Starting from pictures, sizes and formats, as people meet them, on tiny models.

use std::path::{Path, PathBuf};

use super::command::{latents, latents_of, path, pictures, pixels, refused, tweedie};

/// A picture with something to see, `width` x `height`.
fn picture(folder: &Path, name: &str, width: u32, height: u32) -> PathBuf {
    let place = folder.join(name);
    let pixel = |x, y| image::Rgb([(x * 31 % 256) as u8, (y * 57 % 256) as u8, (x * y) as u8]);
    image::RgbImage::from_fn(width, height, pixel).save(&place).unwrap();
    place
}

/// Black, with white where `f` says.
fn mask(folder: &Path, side: u32, f: impl Fn(u32, u32) -> bool) -> PathBuf {
    let place = folder.join("mask.png");
    let pixel = |x, y| image::Luma([if f(x, y) { 255 } else { 0 }]);
    image::GrayImage::from_fn(side, side, pixel).save(&place).unwrap();
    place
}

fn grey(path: &Path) -> image::GrayImage {
    image::open(path).unwrap().to_luma8()
}

#[test]
fn what_a_mask_keeps_is_kept_to_the_bit_and_the_rest_is_painted() {
    let temp = tempfile::tempdir().unwrap();
    let model = pixels(temp.path());
    let init = temp.path().join("init.png");
    image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 29 + y) as u8])).save(&init).unwrap();
    let mask = mask(temp.path(), 8, |x, _| x >= 5);
    for sampler in ["ddim", "dpmpp-2m", "euler-ancestral", "heun"] {
        let out = temp.path().join(format!("{sampler}.png"));
        let mut args = vec!["generate", "shoe", "--model", path(&model), "--init", path(&init)];
        args.extend(["--mask", path(&mask), "--steps", "4", "--sampler", sampler]);
        args.extend(["--out", path(&out)]);
        let done = tweedie(&args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let (before, after) = (grey(&init), grey(&out));
        let same = |x, y| before.get_pixel(x, y) == after.get_pixel(x, y);
        assert!((0..5).all(|x| (0..8).all(|y| same(x, y))), "{sampler}: what is kept changed");
        let painted = (5..8).flat_map(|x| (0..8).map(move |y| (x, y)));
        assert!(painted.filter(|&(x, y)| !same(x, y)).count() > 12, "{sampler}: nothing painted");
    }
}

#[test]
fn a_picture_grows_beyond_its_borders() {
    let temp = tempfile::tempdir().unwrap();
    let model = pixels(temp.path());
    let init = temp.path().join("init.png");
    image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 29 + y) as u8])).save(&init).unwrap();
    let out = temp.path().join("out.png");
    let mut args = vec!["generate", "bag", "--model", path(&model), "--init", path(&init)];
    args.extend(["--extend", "4,0,8,4", "--steps", "3", "--out", path(&out)]);
    let done = tweedie(&args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (before, after) = (grey(&init), grey(&out));
    assert_eq!(after.dimensions(), (20, 12));
    for (x, y, pixel) in before.enumerate_pixels() {
        assert_eq!(after.get_pixel(x + 4, y), pixel);
    }
}

#[test]
fn little_strength_leaves_little_changed() {
    let temp = tempfile::tempdir().unwrap();
    let model = pixels(temp.path());
    let init = temp.path().join("init.png");
    image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 29 + y) as u8])).save(&init).unwrap();
    let change = |strength: &str| {
        let out = temp.path().join(format!("{strength}.png"));
        let mut args = vec!["generate", "bag", "--model", path(&model), "--init", path(&init)];
        args.extend(["--strength", strength, "--steps", "20", "--out", path(&out), "--json"]);
        let done = tweedie(&args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let (before, after) = (grey(&init), grey(&out));
        let differ = before.pixels().zip(after.pixels()).map(|(a, b)| a.0[0].abs_diff(b.0[0]));
        let sum: u32 = differ.map(u32::from).sum();
        (sum, report["evaluations"].as_u64().unwrap())
    };
    let (small, large) = (change("0.05"), change("0.9"));
    assert!(small.0 * 3 < large.0, "{small:?} {large:?}");
    assert_eq!((small.1, large.1), (1, 18), "the share of the steps that is walked");
}

#[test]
fn a_picture_from_a_picture_repeats_and_does_not_depend_on_its_batch() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let (init, mask) = (picture(temp.path(), "init.png", 9, 8), mask(temp.path(), 8, |x, _| x > 3));
    for mask in [None, Some(&mask)] {
        let run = |batch: &str| {
            let mut args = vec!["generate", "a red circle", "--model", path(&model)];
            args.extend(["--init", path(&init), "--steps", "4", "--strength", "0.8"]);
            args.extend(["--count", "3", "--batch", batch, "--seed", "5"]);
            args.extend(mask.iter().flat_map(|m| ["--mask", path(m)]));
            let out = tempfile::tempdir().unwrap();
            let made = pictures(&args, out.path());
            (made, out)
        };
        let ((one, _kept), (three, out)) = (run("1"), run("3"));
        assert_eq!(one, three);
        // The record names the pictures; they lie beside it.
        let second = out.path().join(&three[1].0);
        let again = tempfile::tempdir().unwrap();
        let from = ["generate", "--from", path(&second), "--model", path(&model)];
        refused(&from, "init.png");
        std::fs::copy(&init, out.path().join("init.png")).unwrap();
        if let Some(mask) = mask {
            refused(&from, "mask.png");
            std::fs::copy(mask, out.path().join("mask.png")).unwrap();
        }
        assert_eq!(pictures(&from, again.path()), three[1..2]);
        // Another picture of that name is not taken for it.
        picture(out.path(), "init.png", 4, 4);
        refused(&from, "init.png");
    }
}

#[test]
fn networks_that_see_a_picture_are_given_one() {
    let temp = tempfile::tempdir().unwrap();
    let (repaints, edits) = (latents_of(temp.path(), 9), latents_of(temp.path(), 8));
    let init = picture(temp.path(), "init.png", 8, 8);
    let mask = mask(temp.path(), 8, |x, _| x > 3);
    let run = |model: &Path, more: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let mut args = vec!["generate", "a red circle", "--model", path(model), "--steps", "3"];
        args.extend(more);
        pictures(&args, out.path()).remove(0).1
    };
    let (i, m) = (["--init", path(&init)], ["--mask", path(&mask)]);
    let painted = run(&repaints, &[i, m].concat());
    assert_ne!(painted, run(&repaints, &[&i[..], &m, &["--strength", "0.5"]].concat()));
    let edited = run(&edits, &i);
    assert_ne!(edited, run(&edits, &[&i[..], &["--image-guidance", "3"]].concat()));
    for (model, more, culprit) in [
        (&repaints, vec![], "picture"),
        (&repaints, i.to_vec(), "mask"),
        (&edits, vec![], "picture"),
        (&edits, [i, m].concat(), "repainting"),
        (&edits, [&i[..], &["--strength", "0.5"]].concat(), "strength"),
    ] {
        let mut args = vec!["generate", "a red circle", "--model", path(model)];
        args.extend(more);
        refused(&args, culprit);
    }
}

#[test]
fn a_second_pass_makes_the_picture_larger() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let run = |batch: &str| {
        let out = tempfile::tempdir().unwrap();
        let mut args = vec!["generate", "a red circle", "--model", path(&model), "--steps", "4"];
        args.extend(["--upscale", "1.5", "--upscale-strength", "0.5", "--count", "2"]);
        args.extend(["--batch", batch]);
        let made = pictures(&args, out.path());
        let first = image::open(out.path().join(&made[0].0)).unwrap();
        assert_eq!((first.width(), first.height()), (12, 12));
        made
    };
    assert_eq!(run("1"), run("2"));
}

#[test]
fn sizes_are_checked_and_the_nearest_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let out = temp.path().join("out");
    let with = |more: &[&str], culprit: &str| {
        let mut args = vec!["generate", "a red circle", "--model", path(&model)];
        args.extend(["--out", path(&out)]);
        args.extend(more);
        refused(&args, culprit);
    };
    with(&["--size", "9x8"], "the nearest are 8 and 10");
    with(&["--size", "1x8"], "the smallest is 2");
    with(&["--size", "0x8"], "width");
    with(&["--size", "99999x8"], "width");
    with(&["--size", "16000x16000"], "is free");
    with(&["--mask", "none.png"], "none.png");
    with(&["--strength", "0.5"], "init");
    let init = picture(temp.path(), "init.png", 8, 8);
    with(&["--init", path(&init), "--strength", "1.5"], "strength");
    with(&["--init", path(&init), "--extend", "1,0,0,0"], "the smallest is 2");
    with(&["--init", path(&init), "--extend", "2,2"], "L,T,R,B");
    with(&["--init", path(&init), "--extend", "4,0,4,0", "--size", "8x8"], "leaves nothing");
    with(&["--init", path(&model.join("model_index.json"))], "model_index.json");
    let tall = temp.path().join("tall.png");
    let args = ["generate", "-p", "red", "-m", path(&model), "-W", "8", "-H", "12", "--steps", "2"];
    let done = tweedie(&[&args[..], &["-s", "4", "-b", "1", "-o", path(&tall)]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let tall = image::open(tall).unwrap();
    assert_eq!((tall.width(), tall.height()), (8, 12));
}

#[test]
fn every_format_carries_the_record() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let mut lossless = Vec::new();
    for ending in ["png", "webp", "jpg"] {
        let out = temp.path().join(format!("a.{ending}"));
        let mut args = vec!["generate", "a red circle", "--model", path(&model), "--steps", "2"];
        args.extend(["--seed", "9", "--out", path(&out)]);
        let done = tweedie(&args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        if ending != "jpg" {
            lossless.push(image::open(&out).unwrap().to_rgb8().into_raw());
        }
        let again = temp.path().join("again.png");
        let from = ["generate", "--from", path(&out), "--model", path(&model)];
        let done = tweedie(&[&from[..], &["--out", path(&again)]].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        lossless.push(image::open(&again).unwrap().to_rgb8().into_raw());
    }
    assert!(lossless.windows(2).all(|pair| pair[0] == pair[1]));
    let out = temp.path().join("a.png");
    let model = path(&model);
    refused(&["generate", "x", "-m", model, "--format", "jpeg", "-o", path(&out)], "--format");
    refused(&["generate", "x", "--format", "gif"], "gif");
}

#[test]
fn the_cpu_is_listed_and_other_devices_are_explained() {
    let done = tweedie(&["devices", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["devices"][0]["name"], "cpu");
    assert_eq!(report["built_with"][0], "cpu");
    refused(&["generate", "x", "--device", "vulcan"], "vulkan");
    refused(&["generate", "x", "--device", "cpu:9"], "cpu:9");
}
