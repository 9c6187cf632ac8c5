//! `tweedie tune`, grid files, and a second model.

use tweedie::random::Key;

use super::command::{latents, path, pixels, tweedie};

fn said(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

#[test]
fn a_grid_is_searched_written_and_taken() {
    let dir = tempfile::tempdir().unwrap();
    let model = pixels(dir.path());
    let file = dir.path().join("few.json");
    let tune = |seed: &str| {
        let tuner = format!("autodiffusion:tries=12,population=6,kept=3,seed={seed}");
        let out = tweedie(&[
            "tune",
            path(&model),
            "--steps",
            "3",
            "--count",
            "2",
            "--converged",
            "10",
            "--tuner",
            &tuner,
            "--out",
            path(&file),
            "-t",
            "1",
        ]);
        assert!(out.status.success(), "{}", said(&out));
        std::fs::read_to_string(&file).unwrap()
    };
    let text = tune("1");
    assert_eq!(text, tune("1"), "a search repeats");
    let part: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&part["name"], part["times"].as_array().unwrap().len()), (&"listed".into(), 3));
    assert!(part["tuned_for"].as_str().unwrap().contains("3 steps of ddim"), "{text}");
    let draw = |grid: &str, name: &str| {
        let place = dir.path().join(name);
        let out = tweedie(&[
            "generate",
            "--model",
            path(&model),
            "--class",
            "1",
            "--sampler",
            "ddim",
            "--grid",
            grid,
            "--out",
            path(&place),
            "-t",
            "1",
            "--json",
        ]);
        (out.status.success(), said(&out))
    };
    let (fine, report) = draw(path(&file), "a");
    assert!(
        fine && report.contains("\"evaluations\": 3"),
        "the file says how many steps: {report}"
    );
    std::fs::write(&file, "{\"name\": \"listed\", \"times\": [0.5, 0.9]}").unwrap();
    let (fine, report) = draw(path(&file), "b");
    assert!(!fine && report.contains("falls"), "{report}");
    std::fs::write(&file, "[1, 2]").unwrap();
    assert!(!draw(path(&file), "c").0);
}

#[test]
fn a_second_model_is_asked_where_a_guide_asks_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = pixels(dir.path());
    let other = dir.path().join("other");
    // The same network with other numbers.
    std::fs::create_dir_all(other.join("unet")).unwrap();
    std::fs::create_dir_all(other.join("scheduler")).unwrap();
    for file in ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"] {
        std::fs::copy(model.join(file), other.join(file)).unwrap();
    }
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let mut bytes = std::fs::read(model.join(weights)).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    let mut generator = Key::new(9, 0, 0).generator();
    for byte in bytes[header + 1..].iter_mut().step_by(2) {
        // The high byte of an f16: some numbers change their sign.
        *byte ^= 0x80 * generator.below(2) as u8;
    }
    std::fs::write(other.join(weights), bytes).unwrap();
    let draw = |name: &str, more: &[&str]| {
        let place = dir.path().join(name);
        let common =
            ["generate", "--model", path(&model), "--class", "1", "--steps", "4", "-t", "1"];
        let out = tweedie(&[&common[..], &["--out", path(&place)], more].concat());
        let picture = std::fs::read_dir(&place).ok().and_then(|mut d| d.next()).map(|f| {
            // Without the record that stands beside the pixels.
            image::open(f.unwrap().path()).unwrap().into_bytes()
        });
        (out.status.success(), said(&out), picture)
    };
    let plain = draw("plain", &[]).2.unwrap();
    let with = |name: &str, guide: &str| {
        let (fine, report, picture) = draw(name, &["--second", path(&other), "--guide", guide]);
        assert!(fine, "{report}");
        picture.unwrap()
    };
    assert_eq!(with("none", "t-stitch:share=0"), plain, "a share of nothing is the model alone");
    // So small a network's pictures end at their bounds: that the second one is heard is tested where the
    // guides are.
    with("some", "t-stitch:share=0.5");
    with("auto", "autoguidance");
    let (fine, report, _) = draw("alone", &["--guide", "t-stitch"]);
    assert!(!fine && report.contains("--second"), "{report}");
    let text = latents(dir.path());
    let (fine, report, _) = draw("odd", &["--guide", "t-stitch", "--second", path(&text)]);
    assert!(!fine && report.contains("a second model"), "{report}");
}
