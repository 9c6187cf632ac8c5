//! `scheduler_config.json`: what diffusers calls a scheduler, with the fields and defaults of its
//! classes.
//!
//! One such file says the process (betas or flow), what the network predicts, the grid, and the
//! sampler with its settings. Swapping one class for another keeps the fields of both in the file,
//! so a field of any of the classes is taken here, and counts only where the class has it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{DIFFUSERS, fields, in_file, overlay, own_fields};
use super::folder::{Component, class_of};
use super::json;
use crate::{Error, Result};

mod class;

pub use class::SchedulerClass;

/// How the betas grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly.
    #[default]
    Linear,
    /// Evenly in their square roots.
    ScaledLinear,
    /// So that `alpha_bar` is a squared cosine; `beta_start` and `beta_end` mean nothing.
    SquaredcosCapV2,
    /// As a sigmoid.
    Sigmoid,
}

/// What the network predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    #[default]
    Epsilon,
    /// The data.
    Sample,
    /// `v = alpha eps - sigma x0`.
    VPrediction,
    /// The velocity of a flow.
    FlowPrediction,
}

/// Which of the trained steps a run stops at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepSpacing {
    /// Evenly, both ends included.
    Linspace,
    /// Evenly from the data's end, the noisiest step left out.
    #[default]
    Leading,
    /// Evenly from the noise's end.
    Trailing,
}

/// Where the last step of a run leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    /// To the data.
    #[default]
    Zero,
    /// To the least noisy level that was trained.
    SigmaMin,
}

/// How the shift of a flow grows with the length of the sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeShift {
    /// By its exponential.
    #[default]
    Exponential,
    /// In proportion.
    Linear,
}

/// What a `scheduler_config.json` says. Fields that the class has not hold the values below and
/// mean nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the published class")]
pub struct SchedulerConfig {
    /// The class.
    #[serde(rename = "_class_name")]
    pub class: SchedulerClass,
    /// How many steps the network was trained on.
    pub num_train_timesteps: usize,
    /// The first beta.
    pub beta_start: f64,
    /// The last beta.
    pub beta_end: f64,
    /// How the betas grow.
    pub beta_schedule: BetaSchedule,
    /// The betas themselves, in place of the three fields above.
    pub trained_betas: Option<Vec<f64>>,
    /// Changes the betas so that nothing of the data is left at the last step.
    pub rescale_betas_zero_snr: bool,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Which of the trained steps a run stops at.
    pub timestep_spacing: TimestepSpacing,
    /// Added to each of these steps with `leading`.
    pub steps_offset: usize,
    /// Clips the estimate of the data to `clip_sample_range`.
    pub clip_sample: bool,
    /// See `clip_sample`.
    pub clip_sample_range: f64,
    /// Clips it to a quantile of its own (dynamic thresholding).
    pub thresholding: bool,
    /// The quantile.
    pub dynamic_thresholding_ratio: f64,
    /// The largest threshold.
    pub sample_max_value: f64,
    /// The level behind the last step is the data, not the least noisy trained one.
    pub set_alpha_to_one: bool,
    /// The variance of the ancestral step (DDPM), or of a network that predicts it.
    pub variance_type: Option<String>,
    /// Spaces the levels as Karras et al. do.
    pub use_karras_sigmas: Option<bool>,
    /// Spaces them evenly in the logarithm of sigma.
    pub use_exponential_sigmas: Option<bool>,
    /// Spaces them by a beta distribution.
    pub use_beta_sigmas: Option<bool>,
    /// Spaces them evenly in lambda.
    pub use_lu_lambdas: bool,
    /// Takes the levels of a flow.
    pub use_flow_sigmas: bool,
    /// The shift of those.
    pub flow_shift: f64,
    /// The least sigma of spaced levels.
    pub sigma_min: Option<f64>,
    /// The largest sigma of spaced levels.
    pub sigma_max: Option<f64>,
    /// Where the last step leads.
    pub final_sigmas_type: FinalSigmas,
    /// How sigma is read between trained steps: `linear` or `log_linear`.
    pub interpolation_type: String,
    /// What the network is told: `discrete` or `continuous`.
    pub timestep_type: String,
    /// The order of a multistep solver.
    pub solver_order: usize,
    /// Its variant.
    pub solver_type: String,
    /// Which DPM-Solver.
    pub algorithm_type: String,
    /// Falls back to a lower order at the end of short runs.
    pub lower_order_final: bool,
    /// Ends with an Euler step.
    pub euler_at_final: bool,
    /// Levels with less lambda are left out; minus infinity (`"-Infinity"`) for none.
    #[serde(with = "may_be_infinite")]
    pub lambda_min_clipped: f64,
    /// UniPC works on the estimate of the data.
    pub predict_x0: bool,
    /// Steps without UniPC's corrector.
    pub disable_corrector: Vec<usize>,
    /// Another solver as UniPC's predictor; only `None` is supported.
    pub solver_p: Option<Value>,
    /// Leaves out the Runge-Kutta steps that begin a run.
    pub skip_prk_steps: bool,
    /// The shift of a flow.
    pub shift: f64,
    /// Lets the shift grow with the length of the sequence; not supported.
    pub use_dynamic_shifting: bool,
    /// The shift of the shortest sequence.
    pub base_shift: Option<f64>,
    /// The shift of the longest sequence.
    pub max_shift: Option<f64>,
    /// The shortest sequence.
    pub base_image_seq_len: usize,
    /// The longest sequence.
    pub max_image_seq_len: usize,
    /// Steps that a consistency model was distilled at.
    pub original_inference_steps: usize,
    /// What a training step is multiplied by in its boundary condition.
    pub timestep_scaling: f64,
    /// The standard deviation of the data in EDM's preconditioning.
    pub sigma_data: f64,
    /// How EDM's classes space their sigmas: `karras` or `exponential`.
    pub sigma_schedule: String,
    /// The exponent of the first.
    pub rho: f64,
    /// How many estimates the predictor takes.
    pub predictor_order: usize,
    /// How many estimates the corrector takes.
    pub corrector_order: usize,
    /// How much noise a step draws, as a function; a file cannot hold one.
    pub tau_func: Option<Value>,
    /// The seed of a Brownian tree of its own; only none, the run's seed, is supported.
    pub noise_sampler_seed: Option<u64>,
    /// Runs a flow backwards; not supported.
    pub invert_sigmas: bool,
    /// Stretches the levels to end there; not supported.
    pub shift_terminal: Option<f64>,
    /// How the shift grows.
    pub time_shift_type: TimeShift,
    /// Draws fresh noise at each step of a flow; not supported.
    pub stochastic_sampling: bool,
}

impl SchedulerConfig {
    /// The defaults of a class.
    #[must_use]
    pub fn new(class: SchedulerClass) -> Self {
        use SchedulerClass as C;
        let leading = matches!(
            class,
            C::DDIMScheduler
                | C::DDPMScheduler
                | C::PNDMScheduler
                | C::LCMScheduler
                | C::TCDScheduler
        );
        let distilled = matches!(class, C::LCMScheduler | C::TCDScheduler);
        let edm = matches!(class, C::EDMEulerScheduler | C::EDMDPMSolverMultistepScheduler);
        let latent = distilled
            || matches!(
                class,
                C::HeunDiscreteScheduler
                    | C::KDPM2DiscreteScheduler
                    | C::KDPM2AncestralDiscreteScheduler
                    | C::DPMSolverSDEScheduler
            );
        let text = str::to_owned;
        Self {
            class,
            num_train_timesteps: 1000,
            beta_start: if latent { 0.00085 } else { 0.0001 },
            beta_end: if latent { 0.012 } else { 0.02 },
            beta_schedule: if distilled {
                BetaSchedule::ScaledLinear
            } else {
                BetaSchedule::Linear
            },
            trained_betas: None,
            rescale_betas_zero_snr: false,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: if leading {
                TimestepSpacing::Leading
            } else {
                TimestepSpacing::Linspace
            },
            steps_offset: 0,
            clip_sample: matches!(class, C::DDIMScheduler | C::DDPMScheduler),
            clip_sample_range: 1.0,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            set_alpha_to_one: class == C::DDIMScheduler || distilled,
            variance_type: (class == C::DDPMScheduler).then(|| text("fixed_small")),
            use_karras_sigmas: Some(false),
            use_exponential_sigmas: Some(false),
            use_beta_sigmas: Some(false),
            use_lu_lambdas: false,
            use_flow_sigmas: false,
            flow_shift: 1.0,
            sigma_min: edm.then_some(0.002),
            sigma_max: edm.then_some(80.0),
            final_sigmas_type: FinalSigmas::Zero,
            interpolation_type: text("linear"),
            timestep_type: text("discrete"),
            solver_order: 2,
            solver_type: text(match class {
                C::UniPCMultistepScheduler => "bh2",
                C::DEISMultistepScheduler => "logrho",
                _ => "midpoint",
            }),
            algorithm_type: text(match class {
                C::DEISMultistepScheduler => "deis",
                C::SASolverScheduler => "data_prediction",
                _ => "dpmsolver++",
            }),
            lower_order_final: class != C::DPMSolverSinglestepScheduler,
            euler_at_final: false,
            lambda_min_clipped: f64::NEG_INFINITY,
            predict_x0: true,
            disable_corrector: Vec::new(),
            solver_p: None,
            skip_prk_steps: false,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: Some(0.5),
            max_shift: Some(1.15),
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            original_inference_steps: 50,
            timestep_scaling: 10.0,
            sigma_data: 0.5,
            sigma_schedule: text("karras"),
            rho: 7.0,
            predictor_order: 2,
            corrector_order: 2,
            tau_func: None,
            noise_sampler_seed: None,
            invert_sigmas: false,
            shift_terminal: None,
            time_shift_type: TimeShift::Exponential,
            stochastic_sampling: false,
        }
    }

    /// The settings of a scheduler component, checked.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub fn read(component: &Component) -> Result<Self> {
        let mut map = component.config.clone();
        if !component.class.is_empty() {
            // The index says which class is built, whatever the file was written by.
            map.insert("_class_name".to_owned(), json!(component.class));
        }
        Self::parse(&component.config_file, &map)
    }

    /// The settings in the JSON object of a `scheduler_config.json`, checked; `file` is named in
    /// errors.
    ///
    /// # Errors
    /// The class is not known, a key is none of any of the classes, or a value of a field that the
    /// class has is of the wrong kind, out of bounds or not supported.
    pub fn parse(file: &Path, map: &Map<String, Value>) -> Result<Self> {
        let name = class_of(map).unwrap_or_default();
        let Some(class) = SchedulerClass::ALL.into_iter().find(|c| c.name() == name) else {
            let known = SchedulerClass::ALL.map(SchedulerClass::name);
            let error = Error::unknown("supported scheduler class", &json::one_line(name), known);
            return Err(Error::format(file, "_class_name", error.to_string()));
        };
        let base = fields(&Self::new(class));
        let mut own = own_fields(file, name, map, &base, &[])?;
        let counted = class.fields();
        own.retain(|key, _| counted.contains(&key.as_str()));
        let config: Self = overlay(file, &base, &own)?;
        config.validate().map_err(|e| in_file(file, e))?;
        Ok(config)
    }

    /// The JSON object of a `scheduler_config.json` with these settings: the class's fields, in
    /// order. Minus infinity is the string `"-Infinity"`, which stands for the bare word that
    /// Python writes.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let all = fields(self);
        let mut keys = self.class.fields();
        keys.sort_unstable();
        let mut out = Map::new();
        out.insert("_class_name".to_owned(), json!(self.class));
        out.insert("_diffusers_version".to_owned(), json!(DIFFUSERS));
        for key in keys {
            out.insert(key.to_owned(), all.get(key).cloned().unwrap_or_default());
        }
        out
    }

    /// Checks the fields that the class has.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is out of bounds or not supported.
    pub fn validate(&self) -> Result<()> {
        let counted = self.class.fields();
        for (key, wrong) in self.wrong() {
            if let Some(why) = wrong
                && counted.contains(&key)
            {
                return Err(Error::setting(key, why));
            }
        }
        Ok(())
    }

    /// Each field that can be wrong, and what is wrong with it.
    fn wrong(&self) -> Vec<(&'static str, Option<String>)> {
        let say = |bad: bool, what: String| bad.then_some(what);
        let between = |v: f64, low: f64, high: f64| {
            say(!(low..=high).contains(&v), format!("wanted {low} to {high}, found {v}"))
        };
        let unsupported =
            |set: bool| say(set, "this setting is not supported, only its default is".to_owned());
        let one_of = |v: &str, known: &[&str]| {
            let wanted = known.join(", ");
            say(!known.contains(&v), format!("wanted one of {wanted}, found {}", json::one_line(v)))
        };
        let steps = self.num_train_timesteps;
        let betas = self.trained_betas.as_deref();
        let flow = self.prediction_type == PredictionType::FlowPrediction;
        let spacings = [self.use_karras_sigmas, self.use_exponential_sigmas, self.use_beta_sigmas];
        let spaced = spacings.iter().filter(|s| **s == Some(true)).count();
        let offset_most = steps.saturating_sub(1);
        let may_flow = self.class.fields().contains(&"use_flow_sigmas");
        // A class that was swapped for another takes its words for the nearest of its own.
        let solvers = ["midpoint", "heun", "logrho", "bh1", "bh2"];
        let adams = self.class == SchedulerClass::SASolverScheduler;
        let algorithms: &[&str] = if adams {
            &["data_prediction", "noise_prediction"]
        } else {
            &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"]
        };
        let final_zero = self.final_sigmas_type == FinalSigmas::Zero;
        let of_noise = ["dpmsolver", "sde-dpmsolver"].contains(&self.algorithm_type.as_str());
        let solves = matches!(
            self.class,
            SchedulerClass::DPMSolverMultistepScheduler
                | SchedulerClass::DPMSolverSinglestepScheduler
        );
        let variances = ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"];
        let variance = self.variance_type.as_deref();
        vec![
            ("num_train_timesteps", between(steps as f64, 1.0, 100_000.0)),
            ("beta_start", between(self.beta_start, f64::MIN_POSITIVE, 0.999_999)),
            ("beta_end", between(self.beta_end, self.beta_start, 0.999_999)),
            (
                "beta_schedule",
                say(
                    self.beta_schedule == BetaSchedule::Sigmoid
                        && self.class != SchedulerClass::DDPMScheduler,
                    format!("{} has no sigmoid", self.class.name()),
                ),
            ),
            (
                "trained_betas",
                betas.and_then(|b| {
                    let count =
                        say(b.len() != steps, format!("wanted {steps} betas, found {}", b.len()));
                    let mut each = b.iter().map(|v| between(*v, 0.0, 1.0));
                    count.or_else(|| each.find_map(|e| e))
                }),
            ),
            (
                "prediction_type",
                say(flow && !may_flow, format!("{} has no flow", self.class.name())),
            ),
            (
                "steps_offset",
                say(
                    self.steps_offset > offset_most,
                    format!("wanted 0 to {offset_most}, found {}", self.steps_offset),
                ),
            ),
            ("clip_sample_range", between(self.clip_sample_range, f64::MIN_POSITIVE, 1e6)),
            ("dynamic_thresholding_ratio", between(self.dynamic_thresholding_ratio, 0.0, 1.0)),
            ("sample_max_value", between(self.sample_max_value, f64::MIN_POSITIVE, 1e6)),
            ("variance_type", variance.and_then(|v| one_of(v, &variances))),
            (
                "use_karras_sigmas",
                say(spaced > 1, "only one of the spacings of sigma can be chosen".to_owned()),
            ),
            ("flow_shift", between(self.flow_shift, 1e-3, 1e3)),
            ("sigma_min", self.sigma_min.and_then(|v| between(v, 0.0, 1e6))),
            (
                "sigma_max",
                self.sigma_max.and_then(|v| between(v, self.sigma_min.unwrap_or(0.0), 1e6)),
            ),
            ("interpolation_type", one_of(&self.interpolation_type, &["linear", "log_linear"])),
            ("timestep_type", one_of(&self.timestep_type, &["discrete", "continuous"])),
            ("solver_order", between(self.solver_order as f64, 1.0, 3.0)),
            ("solver_type", one_of(&self.solver_type, &solvers)),
            ("algorithm_type", one_of(&self.algorithm_type, algorithms)),
            (
                "final_sigmas_type",
                say(
                    solves && of_noise && final_zero,
                    format!("{} ends at `sigma_min`, not at `zero`", self.algorithm_type),
                ),
            ),
            ("predictor_order", between(self.predictor_order as f64, 1.0, 4.0)),
            ("corrector_order", between(self.corrector_order as f64, 1.0, 4.0)),
            ("tau_func", unsupported(self.tau_func.is_some())),
            ("solver_p", unsupported(self.solver_p.is_some())),
            (
                "lambda_min_clipped",
                say(self.lambda_min_clipped.is_nan(), "not a number".to_owned()),
            ),
            (
                "original_inference_steps",
                between(self.original_inference_steps as f64, 1.0, steps as f64),
            ),
            ("timestep_scaling", between(self.timestep_scaling, f64::MIN_POSITIVE, 1e6)),
            ("sigma_data", between(self.sigma_data, 1e-6, 1e6)),
            ("sigma_schedule", one_of(&self.sigma_schedule, &["karras", "exponential"])),
            ("rho", between(self.rho, 1e-3, 1e3)),
            ("noise_sampler_seed", unsupported(self.noise_sampler_seed.is_some())),
            ("shift", between(self.shift, 1e-3, 1e3)),
            ("use_dynamic_shifting", unsupported(self.use_dynamic_shifting)),
            ("invert_sigmas", unsupported(self.invert_sigmas)),
            ("shift_terminal", unsupported(self.shift_terminal.is_some())),
            ("stochastic_sampling", unsupported(self.stochastic_sampling)),
        ]
    }
}

/// A number that may be infinite, as the strings that stand for Python's words.
mod may_be_infinite {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use serde_json::Value;

    use crate::hub::json::number;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
    pub(super) fn serialize<S: Serializer>(v: &f64, s: S) -> Result<S::Ok, S::Error> {
        match *v {
            f64::NEG_INFINITY => s.serialize_str("-Infinity"),
            f64::INFINITY => s.serialize_str("Infinity"),
            v => s.serialize_f64(v),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        let value = Value::deserialize(d)?;
        number(&value).ok_or_else(|| de::Error::custom(format!("wanted a number, found {value}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SchedulerConfig> {
        let file = Path::new("scheduler/scheduler_config.json");
        SchedulerConfig::parse(file, &json::object(file, text.as_bytes())?)
    }

    #[test]
    fn fields_and_defaults_are_those_of_the_classes() {
        let published: Value =
            serde_json::from_str(include_str!("../../tests/data/class_defaults.json")).unwrap();
        for class in SchedulerClass::ALL {
            let theirs = published["classes"][class.name()].as_object().unwrap();
            let config = SchedulerConfig::new(class);
            config.validate().unwrap();
            let mut ours = config.to_json();
            ours.retain(|key, _| !key.starts_with('_'));
            let mut keys: Vec<&String> = theirs.keys().collect();
            keys.sort();
            assert_eq!(ours.keys().collect::<Vec<_>>(), keys, "{class:?}");
            for (key, value) in theirs {
                let same = match (value.as_f64(), ours[key].as_f64()) {
                    (Some(a), Some(b)) => a == b,
                    _ => *value == ours[key],
                };
                assert!(same, "{class:?}.{key}: {value} and {}", ours[key]);
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let config = SchedulerConfig {
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction_type: PredictionType::VPrediction,
            timestep_spacing: TimestepSpacing::Trailing,
            ..SchedulerConfig::new(SchedulerClass::DPMSolverMultistepScheduler)
        };
        let text = Value::Object(config.to_json()).to_string();
        assert!(text.contains("\"v_prediction\"") && text.contains("\"-Infinity\""), "{text}");
        assert_eq!(read(&text).unwrap(), config);
        // The bare word, as Python writes it.
        assert_eq!(read(&text.replace("\"-Infinity\"", "-Infinity")).unwrap(), config);
    }

    #[test]
    fn fields_of_other_classes_are_kept_out() {
        // As in Stable Diffusion's folder: written for PNDM, then loaded as DDIM.
        let text = r#"{"_class_name":"DDIMScheduler","skip_prk_steps":true,"steps_offset":1,
            "set_alpha_to_one":false,"clip_sample":false,"beta_schedule":"scaled_linear",
            "use_beta_sigmas":true}"#;
        let config = read(text).unwrap();
        assert_eq!((config.steps_offset, config.set_alpha_to_one), (1, false));
        assert!(!config.skip_prk_steps);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let in_class = |class: &str, rest: &str| {
            let text = format!("{{\"_class_name\":\"{class}\",{rest}}}");
            let message = read(&text).unwrap_err().to_string();
            assert!(message.starts_with("scheduler/scheduler_config.json: `"), "{message}");
            assert!(!message.contains('\n'), "{message}");
            message
        };
        for (rest, says) in [
            ("\"beta_strt\":1", "did you mean"),
            ("\"beta_start\":-1", "`beta_start`: wanted"),
            ("\"beta_end\":0.00001", "`beta_end`"),
            ("\"beta_schedule\":\"sigmoid\"", "no sigmoid"),
            ("\"beta_schedule\":\"cubic\"", "unknown variant"),
            ("\"trained_betas\":[0.1]", "wanted 1000 betas"),
            ("\"num_train_timesteps\":0", "wanted 1 to"),
            ("\"steps_offset\":1000", "wanted 0 to 999"),
            ("\"prediction_type\":\"flow_prediction\"", "no flow"),
            ("\"clip_sample_range\":NaN", "`clip_sample_range`"),
        ] {
            assert!(in_class("DDIMScheduler", rest).contains(says), "{rest}");
        }
        let euler = in_class("EulerDiscreteScheduler", "\"interpolation_type\":\"cubic\"");
        assert!(euler.contains("log_linear"), "{euler}");
        let ends = in_class("DPMSolverMultistepScheduler", "\"algorithm_type\":\"dpmsolver\"");
        assert!(ends.contains("sigma_min"), "{ends}");
        let two = "\"use_karras_sigmas\":true,\"use_exponential_sigmas\":true";
        assert!(in_class("EulerDiscreteScheduler", two).contains("only one"));
        let clipped = in_class("DPMSolverMultistepScheduler", "\"lambda_min_clipped\":NaN");
        assert!(clipped.contains("lambda_min_clipped"), "{clipped}");
        let unipc = in_class("UniPCMultistepScheduler", "\"solver_p\":{\"a\":1}");
        assert!(unipc.contains("`solver_p`"), "{unipc}");
        assert!(in_class("DDIMSchedulr", "\"a\":1").contains("`DDIMScheduler`"));
        assert!(read("{}").unwrap_err().to_string().contains("_class_name"));
    }
}
