//! Training runs end to end: interrupted and resumed, stopped, misconfigured.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use image::{Rgb, RgbImage};
use tempfile::TempDir;
use tweedie::Result;
use tweedie::denoiser::Scaling;
use tweedie::engine::{Engine, Unwatching};
use tweedie::hub::{Folder, TensorFile};
use tweedie::spec::Spec;
use tweedie::train::trainer::{CHECKPOINT, LOG, Unwatched};
use tweedie::train::{Config, Crew, Outcome, Trainer, Watch, task};

/// Two classes of small pictures in a folder, and a configuration beside them.
fn world(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for (class, level) in [("dark", 40_u8), ("light", 200)] {
        let folder = dir.path().join("pictures").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..6_u8 {
            let at = |x: u32, y: u32| level + i * 3 + (x * 2 + y) as u8;
            RgbImage::from_fn(8, 8, |x, y| Rgb([at(x, y), at(y, x), level]))
                .save(folder.join(format!("{i}.png")))
                .unwrap();
        }
    }
    let file = dir.path().join("run.toml");
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

const UNET: &str = r#"
task = "class-image"
seed = 5
steps = 8
batch = 3
accumulate = 2
[data]
folder = "pictures"
flip = true
[network]
sample_size = 8
num_class_embeds = 3
block_out_channels = [8, 16]
down_block_types = ["DownBlock2D", "AttnDownBlock2D"]
up_block_types = ["AttnUpBlock2D", "UpBlock2D"]
layers_per_block = 1
norm_num_groups = 4
attention_head_dim = 8
[objective]
process = "vp-table:betas=squaredcos-cap-v2"
levels = "logit-normal"
dropout = 0.3
[optimiser]
lr = 0.01
warmup = 3
[ema]
decay = 0.9
[output]
log = 1
samples = 0
checkpoint = 0
"#;

const CLASSIFIER: &str = r#"
task = "classifier"
seed = 5
steps = 60
batch = 6
[data]
folder = "pictures"
shift = 1
[network]
in_channels = 3
sample_size = 8
classes = 2
channels = [8, 16]
groups = 4
[optimiser]
lr = 0.005
warmup = 5
[output]
log = 10
samples = 0
checkpoint = 20
"#;

const AUTOENCODER: &str = r#"
task = "autoencoder"
seed = 1
steps = 2
batch = 2
[data]
scenes = 16
test = 2
[network]
block_out_channels = [8, 8, 8]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
norm_num_groups = 4
mid_block_add_attention = false
[loss]
edge = 0.5
scale = 0.25
"#;

const TEXT_ENCODER: &str = r#"
task = "text-encoder"
seed = 2
steps = 300
batch = 16
[data]
scenes = 2000
test = 40
[text_encoder]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
[optimiser]
lr = 0.01
warmup = 20
[ema]
decay = 0.0
[output]
log = 300
samples = 300
"#;

const TEXT: &str = r#"
task = "text-latent"
seed = 1
steps = 4
batch = 2
[data]
scenes = 8
test = 2
[text_encoder]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
[network]
sample_size = 16
block_out_channels = [8, 16]
down_block_types = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
up_block_types = ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
layers_per_block = 1
norm_num_groups = 4
attention_head_dim = 8
cross_attention_dim = 16
[objective]
process = "vp-table"
[output]
log = 1
samples = 4
checkpoint = 0
"#;

fn fresh(file: &Path, steps: Option<u64>, out: &Path) -> Result<Trainer> {
    let mut config = Config::read(file)?;
    config.steps = steps.unwrap_or(config.steps);
    let task = task::open(&config, &Device::flex())?;
    Trainer::fresh(config, task, out)
}

fn resumed(file: &Path, out: &Path) -> Result<Trainer> {
    let config = Config::read(file)?;
    let task = task::open(&config, &Device::flex())?;
    Trainer::resumed(config, task, out)
}

/// Every tensor of a checkpoint as bytes.
fn tensors(out: &Path) -> Vec<(String, Vec<u8>)> {
    let file = TensorFile::open(out.join(CHECKPOINT)).unwrap();
    file.names().map(|n| (n.to_owned(), file.raw(n).unwrap().to_vec())).collect()
}

/// Ends a run after so many steps of its own.
struct After(u64);

impl Watch for After {
    fn step(&mut self, _done: u64, _steps: u64) -> ControlFlow<()> {
        self.0 -= 1;
        if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn an_interrupted_run_goes_on_bit_for_bit() {
    let (dir, file) = world(UNET);
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    assert_eq!(fresh(&file, None, &whole).unwrap().run(&mut Unwatched).unwrap(), Outcome::Finished);
    // Stopped in the middle of an epoch, twice, each time taken up by a trainer that knows nothing
    // but the files.
    let mut first = fresh(&file, None, &parts).unwrap();
    assert_eq!(first.run(&mut After(3)).unwrap(), Outcome::Stopped);
    drop(first);
    let mut second = resumed(&file, &parts).unwrap();
    assert_eq!((second.position().step, second.position().shown), (3, 18));
    assert_eq!(second.run(&mut After(2)).unwrap(), Outcome::Stopped);
    drop(second);
    // What a run did after its last checkpoint is lost with the process, and done again.
    let mut lost = resumed(&file, &parts).unwrap();
    lost.step().unwrap();
    drop(lost);
    let mut last = resumed(&file, &parts).unwrap();
    assert_eq!(last.run(&mut Unwatched).unwrap(), Outcome::Finished);
    let (a, b) = (tensors(&whole), tensors(&parts));
    assert_eq!(a.len(), b.len());
    assert!(a.len() > 4 * 20, "weights, averages and both moments of every parameter");
    for ((name, whole), (_, parts)) in a.iter().zip(&b) {
        assert_eq!(whole, parts, "{name}");
    }
    let moved = a.iter().find(|(n, _)| n == "second:conv_in.weight").unwrap();
    assert!(moved.1.iter().any(|b| *b != 0));
    let log = std::fs::read_to_string(parts.join(LOG)).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=8).collect::<Vec<_>>());
}

#[test]
fn a_crew_changes_no_bit() {
    let (dir, file) = world(&UNET.replace("accumulate = 2", "accumulate = 3"));
    let mut runs = Vec::new();
    for workers in [0, 2, 3] {
        let out = dir.path().join(format!("run-{workers}"));
        let mut trainer = fresh(&file, Some(3), &out).unwrap();
        if workers > 0 {
            let config = Config::read(&file).unwrap();
            let crew = Crew::new(&config, &Device::flex(), workers, 1).unwrap();
            assert_eq!(crew.len(), workers);
            trainer = trainer.with_crew(crew);
        }
        assert_eq!(trainer.run(&mut Unwatched).unwrap(), Outcome::Finished);
        runs.push(tensors(&out));
    }
    assert!(runs[0] == runs[1] && runs[0] == runs[2]);
    // A worker that cannot open its data says why.
    std::fs::remove_dir_all(dir.path().join("pictures")).unwrap();
    assert!(Crew::new(&Config::read(&file).unwrap(), &Device::flex(), 2, 1).is_err());
}

#[test]
fn another_seed_is_another_run_and_is_not_resumed() {
    let (dir, file) = world(UNET);
    let out = dir.path().join("out");
    fresh(&file, Some(2), &out).unwrap().run(&mut Unwatched).unwrap();
    let first = tensors(&out);
    let again = fresh(&file, Some(2), &out).err().unwrap().to_string();
    assert!(again.contains("already holds a run"), "{again}");
    std::fs::write(&file, UNET.replace("seed = 5", "seed = 6")).unwrap();
    let other = resumed(&file, &out).err().unwrap().to_string();
    assert!(other.contains("another configuration"), "{other}");
    let out = dir.path().join("other");
    fresh(&file, Some(2), &out).unwrap().run(&mut Unwatched).unwrap();
    assert_ne!(tensors(&out), first);
}

#[test]
fn a_classifier_learns_what_is_there_to_be_learned() {
    let (dir, file) = world(CLASSIFIER);
    let out = dir.path().join("out");
    let mut trainer = fresh(&file, None, &out).unwrap();
    let first = trainer.step().unwrap().loss;
    trainer.run(&mut Unwatched).unwrap();
    let log = std::fs::read_to_string(out.join(LOG)).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert!(last["loss"].as_f64().unwrap() < 0.3 * first, "{first} {last}");
    let model = dir.path().join("model");
    trainer.export(&model).unwrap();
    let folder = Folder::open(&model).unwrap().component("").unwrap();
    assert!(folder.tensors().unwrap().contains("stages.0.blocks.0.conv1.weight"));
}

#[test]
fn latents_are_trained_on_the_exported_autoencoder() {
    let (dir, file) = world(AUTOENCODER);
    let out = dir.path().join("vae");
    let mut trainer = fresh(&file, None, &out).unwrap();
    assert_eq!(trainer.run(&mut Unwatched).unwrap(), Outcome::Finished);
    assert!(out.join("samples-0000002.png").exists());
    let vae = dir.path().join("vae-model");
    trainer.export(&vae).unwrap();
    let cache = dir.path().join("latents.safetensors");
    let section = format!("[autoencoder]\nfolder = {vae:?}\ncache = {cache:?}\n");
    std::fs::write(&file, format!("{TEXT}{section}")).unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let mut trainer = fresh(&file, None, &whole).unwrap();
    trainer.run(&mut Unwatched).unwrap();
    assert!(cache.exists());
    fresh(&file, None, &parts).unwrap().run(&mut After(2)).unwrap();
    resumed(&file, &parts).unwrap().run(&mut Unwatched).unwrap();
    assert_eq!(tensors(&whole), tensors(&parts));
    let model = dir.path().join("model");
    trainer.export(&model).unwrap();
    let folder = Folder::open(&model).unwrap();
    for part in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        assert!(folder.components().any(|c| c == part), "{part}");
    }
    let vae = folder.component("vae").unwrap();
    assert!(vae.json("config.json").unwrap()["scaling_factor"].as_f64().unwrap() > 0.0);
    // Whitened latents: the model's own autoencoder differs at its waist and nowhere else.
    std::fs::write(&file, format!("{TEXT}{section}whiten = true\n")).unwrap();
    let mut trainer = fresh(&file, Some(1), &dir.path().join("white-run")).unwrap();
    let white = dir.path().join("white");
    trainer.export(&white).unwrap();
    let turned = Folder::open(&white).unwrap().component("vae").unwrap();
    assert_eq!(turned.json("config.json").unwrap()["scaling_factor"], 1.0);
    let (before, after) = (vae.tensors().unwrap(), turned.tensors().unwrap());
    for name in before.names() {
        let same = before.read_f32(name).unwrap() == after.read_f32(name).unwrap();
        assert_eq!(same, !name.contains("quant_conv"), "{name}");
    }
}

/// A text encoder is trained on questions and then stays as it is while a U-Net learns over it.
#[test]
fn a_text_encoder_learns_alone_and_is_frozen_after() {
    let (dir, file) = world(TEXT_ENCODER);
    let out = dir.path().join("text");
    let mut trainer = fresh(&file, None, &out).unwrap();
    let first = trainer.step().unwrap().loss;
    trainer.run(&mut Unwatched).unwrap();
    let log = std::fs::read_to_string(out.join(LOG)).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert!(last["loss"].as_f64().unwrap() < 0.8 * first, "{first} {last}");
    assert!(last["shape_of_colour_held_out"].as_f64().is_some(), "{last}");
    let text = dir.path().join("text-model");
    trainer.export(&text).unwrap();

    let (vae_dir, vae_file) = world(AUTOENCODER);
    let vae = vae_dir.path().join("model");
    fresh(&vae_file, Some(1), &vae_dir.path().join("out")).unwrap().export(&vae).unwrap();
    let frozen = TEXT.split_once("[text_encoder]").unwrap();
    let network = frozen.1.split_once("[network]").unwrap().1;
    let config = format!(
        "{}[text]\nencoder = {text:?}\n[autoencoder]\nfolder = {vae:?}\n[network]{network}",
        frozen.0
    );
    let file = dir.path().join("frozen.toml");
    std::fs::write(&file, &config).unwrap();
    let out = dir.path().join("frozen");
    // Ends of branches start at zero: it takes some steps until gradients come through them.
    let mut trainer = fresh(&file, None, &out).unwrap();
    trainer.run(&mut Unwatched).unwrap();
    // The U-Net's cross-attention learns; the encoder is not even in the checkpoint.
    let state = tensors(&out);
    assert!(state.iter().all(|(name, _)| !name.contains("text_encoder")));
    let keys = |n: &str| n.starts_with("first:unet") && n.ends_with("attn2.to_k.weight");
    let mut moved = state.iter().filter(|(name, _)| keys(name)).peekable();
    assert!(moved.peek().is_some(), "{:?}", state.iter().map(|s| &s.0).collect::<Vec<_>>());
    assert!(moved.any(|(_, bytes)| bytes.iter().any(|b| *b != 0)));
    let model = dir.path().join("model");
    trainer.export(&model).unwrap();
    let after = Folder::open(&model).unwrap().component("text_encoder").unwrap().tensors().unwrap();
    let before = Folder::open(&text).unwrap().component("").unwrap().tensors().unwrap();
    assert!(before.names().count() > 10);
    for name in before.names() {
        assert_eq!(before.read_f32(name).unwrap(), after.read_f32(name).unwrap(), "{name}");
    }
    // Another vocabulary or length is refused.
    std::fs::write(&file, config.replace("[text]", "[text]\nlength = 50")).unwrap();
    let error = fresh(&file, None, &dir.path().join("no")).err().unwrap().to_string();
    assert!(error.contains("text.encoder") && error.contains("50"), "{error}");
}

/// EDM as a whole: its path, levels, weight and scaling trained, exported and drawn from as the
/// published class says.
#[test]
fn a_preconditioned_network_is_trained_and_opened() {
    let objective = "process = \"edm:sigma_max=40\"\nprediction = \"eps\"\npreconditioning = \"edm\"\n\
                     levels = \"edm-log-normal\"\nweighting = \"edm-weight\"";
    let plain = "process = \"vp-table:betas=squaredcos-cap-v2\"\nlevels = \"logit-normal\"";
    let (dir, file) = world(&UNET.replace(plain, objective).replace("samples = 0", "samples = 2"));
    let (out, model) = (dir.path().join("out"), dir.path().join("model"));
    let mut trainer = fresh(&file, Some(2), &out).unwrap();
    trainer.run(&mut Unwatched).unwrap();
    assert!(out.join("samples-0000002.png").exists());
    trainer.export(&model).unwrap();
    let engine = Engine::cpu(1).unwrap();
    let model = engine.open(model.to_str().unwrap()).unwrap();
    assert!(matches!(model.denoiser.scaling, Scaling::Edm { sigma_data } if sigma_data == 0.5));
    let spec = Spec { classes: vec![1], steps: 3, ..model.spec() };
    let made = engine.generate(&model, &spec, &mut Unwatching).unwrap();
    assert!(made.latents.values.iter().all(|v| v.is_finite()));
    let wrong = UNET.replace(plain, &objective.replace("\"eps\"", "\"x0\""));
    let (_dir, file) = world(&wrong);
    let error = fresh(&file, None, &out).err().unwrap().to_string();
    assert!(error.contains("objective.prediction"), "{error}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_trained() {
    for (from, to, said) in [
        ("num_class_embeds = 3", "num_class_embeds = 2", "network.num_class_embeds"),
        ("num_class_embeds", "num_class_embed", "num_class_embeds"),
        ("levels = \"logit-normal\"", "levels = \"logit-norml\"", "logit-normal"),
        ("levels = \"logit-normal\"", "levels = \"logit-normal:std=0\"", "logit-normal"),
        ("dropout = 0.3", "dropout = 3", "objective.dropout"),
        ("folder = \"pictures\"", "folder = \"picture\"", "picture"),
        ("folder = \"pictures\"", "set = \"fashion-mnst\"", "did you mean"),
        ("[network]", "[netwrk]", "did you mean `network`"),
        ("lr = 0.01", "lr = 0.01\nlearning_rate = 1", "learning_rate"),
    ] {
        let (dir, file) = world(&UNET.replace(from, to));
        let out = dir.path().join("out");
        let error = fresh(&file, None, &out).err().unwrap().to_string();
        assert!(error.contains(said) && !error.contains('\n'), "{to}: {error}");
        assert!(!out.exists(), "{to}: nothing half-written");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_and_stays() {
    let (dir, file) = world(UNET);
    let out = dir.path().join("out");
    fresh(&file, Some(2), &out).unwrap().run(&mut Unwatched).unwrap();
    let path = out.join(CHECKPOINT);
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = resumed(&file, &out).err().unwrap().to_string();
        assert!(error.contains(CHECKPOINT) && !error.contains('\n'), "{error}");
        assert_eq!(std::fs::read(&path).unwrap().len(), cut);
    }
}

/// The configurations in the repository say what the code understands, and fit the size of a
/// built-in model.
#[test]
fn the_configurations_of_the_repository_are_valid() {
    use tweedie::model::classifier::{Classifier, ClassifierConfig};
    use tweedie::model::config::{
        AutoencoderKlConfig, ClipTextConfig, Config as _, UNet2DConditionConfig, UNet2DConfig,
    };
    use tweedie::model::experts::{Experts, ExpertsConfig};
    use tweedie::model::{AutoencoderKl, ClipText, build};
    use tweedie::train::config::TaskKind;
    use tweedie::train::objective::{Objective, ObjectiveSettings};
    use tweedie::train::task::{ExpertsSettings, TextSettings, network};
    use tweedie::weight::count;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let device = Device::flex();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5);
    for file in files {
        let config = Config::read(&file).unwrap();
        let weights = match config.task {
            TaskKind::ClassImage => {
                let network = network(&config, UNet2DConfig::CLASS).unwrap();
                count(&*build(&network, &device).unwrap())
            }
            TaskKind::Autoencoder => {
                let network: AutoencoderKlConfig = config.section("network").unwrap();
                count(&AutoencoderKl::new(network, &device).unwrap())
            }
            TaskKind::TextEncoder => {
                let text: ClipTextConfig = config.section("text_encoder").unwrap();
                count(&ClipText::new(ClipTextConfig { vocab_size: 1000, ..text }, &device).unwrap())
            }
            TaskKind::TextLatent => {
                let network = network(&config, UNet2DConditionConfig::CLASS).unwrap();
                let settings: TextSettings = config.section("text").unwrap();
                let text = match settings.encoder {
                    Some(folder) => {
                        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
                        let part = Folder::open(root.join(folder)).unwrap().component("").unwrap();
                        let tensors = part.tensors().unwrap();
                        tensors.names().map(|n| tensors.info(n).unwrap().elements()).sum()
                    }
                    None => {
                        let text: ClipTextConfig = config.section("text_encoder").unwrap();
                        let text = ClipTextConfig { vocab_size: 1000, ..text };
                        count(&ClipText::new(text, &device).unwrap())
                    }
                };
                count(&*build(&network, &device).unwrap()) + text
            }
            TaskKind::Classifier => {
                let network: ClassifierConfig = config.section("network").unwrap();
                count(&Classifier::new(network, &device).unwrap())
            }
            TaskKind::Experts => {
                let settings: ExpertsSettings = config.section("experts").unwrap();
                let (experts, rank) = (settings.experts, settings.rank);
                let of = ExpertsConfig { experts, rank, ..ExpertsConfig::default() };
                count(&Experts::new(of, &device).unwrap())
            }
        };
        // A built-in model is part of the program; those of the bench are only in the repository.
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let most = if name.starts_with("bench-") { 4_000_000 } else { 7 << 20 };
        assert!(weights * 2 < most, "{}: {weights} weights", file.display());
        if matches!(config.task, TaskKind::ClassImage | TaskKind::TextLatent) {
            let settings: ObjectiveSettings = config.section("objective").unwrap();
            Objective::new(&settings).unwrap();
        }
    }
}
