//! From a `scheduler_config.json` to parts: the path, what the network predicts and is told, the
//! grid, the sampler and what clips its estimates, so that a run equals that of the class in
//! diffusers 0.42.
//!
//! A class is not ported: it is a choice of parts and settings. What classes do each in their own
//! way (how steps are rounded, whose ends spaced sigmas have, where the last step leads) are settings
//! of grids and samplers.

use serde_json::json;

use super::scheduler::{
    BetaSchedule, FinalSigmas, PredictionType, SchedulerClass as C, SchedulerConfig,
    TimestepSpacing,
};
use crate::denoiser::{Scaling, TimeCode};
use crate::error::{Error, Result};
use crate::prediction::Prediction;
use crate::spec::PartSpec;

/// What a scheduler file means.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleParts {
    /// The path.
    pub process: PartSpec,
    /// What the network's output means, and how its input is scaled.
    pub scaling: Scaling,
    /// What the network is told of a level.
    pub time: TimeCode,
    /// The levels to stop at.
    pub grid: PartSpec,
    /// How to step.
    pub sampler: PartSpec,
    /// What corrects the estimates: guides that stand outside all others.
    pub corrections: Vec<PartSpec>,
}

/// The parts that a scheduler file means.
///
/// # Errors
/// [`Error::Unsupported`] for a class or a field that no part here stands for.
pub fn parts(config: &SchedulerConfig) -> Result<ScheduleParts> {
    let prediction = match config.prediction_type {
        _ if config.class == C::FlowMatchEulerDiscreteScheduler => Prediction::Flow,
        PredictionType::Epsilon => Prediction::Eps,
        PredictionType::Sample => Prediction::X0,
        PredictionType::VPrediction => Prediction::V,
        PredictionType::FlowPrediction => Prediction::Flow,
    };
    let continuous = config.class == C::EulerDiscreteScheduler
        && config.timestep_type == "continuous"
        && prediction == Prediction::V;
    let time = if is_edm(config) || continuous {
        TimeCode::QuarterLogSigma
    } else {
        TimeCode::Steps(config.num_train_timesteps as f64)
    };
    let sigma_data = config.sigma_data;
    let scaling = match prediction {
        Prediction::V if is_edm(config) => Scaling::EdmV { sigma_data },
        Prediction::Eps if is_edm(config) => Scaling::Edm { sigma_data },
        _ if is_edm(config) => return Err(refused(config, "a network that predicts the data")),
        other => Scaling::Predict(other),
    };
    Ok(ScheduleParts {
        process: process(config),
        scaling,
        time,
        grid: grid(config)?,
        sampler: sampler(config, prediction)?,
        corrections: corrections(config),
    })
}

fn refused(config: &SchedulerConfig, what: &str) -> Error {
    Error::unsupported(config.class.name(), format!("{what}, which no part here stands for yet"))
}

fn is_edm(config: &SchedulerConfig) -> bool {
    matches!(config.class, C::EDMEulerScheduler | C::EDMDPMSolverMultistepScheduler)
}

/// The signal, `alpha^2`, that classes in sigma leave at the last step with zero terminal SNR: 2^-24.
const LAST_SIGNAL: f64 = 1.0 / 16_777_216.0;

/// Classes that keep `x / alpha`.
fn keeps_sigma_space(class: C) -> bool {
    matches!(
        class,
        C::DPMSolverSDEScheduler
            | C::EulerAncestralDiscreteScheduler
            | C::EulerDiscreteScheduler
            | C::HeunDiscreteScheduler
            | C::KDPM2AncestralDiscreteScheduler
            | C::KDPM2DiscreteScheduler
            | C::LMSDiscreteScheduler
    )
}

/// Classes that lay one step more than is walked.
fn is_multistep(class: C) -> bool {
    matches!(
        class,
        C::DEISMultistepScheduler
            | C::DPMSolverMultistepScheduler
            | C::DPMSolverSinglestepScheduler
            | C::SASolverScheduler
            | C::UniPCMultistepScheduler
    )
}

fn process(config: &SchedulerConfig) -> PartSpec {
    if config.class == C::FlowMatchEulerDiscreteScheduler {
        return PartSpec::named("flow");
    }
    if is_edm(config) {
        let part = PartSpec::named("edm").with("prior_of_data", true);
        let part = part.with("sigma_data", config.sigma_data);
        let part = part.with("sigma_min", config.sigma_min.unwrap_or(0.002));
        return part.with("sigma_max", config.sigma_max.unwrap_or(80.0));
    }
    let betas = match config.beta_schedule {
        BetaSchedule::Linear => "linear",
        BetaSchedule::ScaledLinear => "scaled-linear",
        BetaSchedule::SquaredcosCapV2 => "squaredcos-cap-v2",
        BetaSchedule::Sigmoid => "sigmoid",
    };
    let mut part = PartSpec::named("vp-table").with("single", true);
    part = match &config.trained_betas {
        Some(betas) => part.with("trained_betas", json!(betas)),
        None => {
            let part = part.with("steps", config.num_train_timesteps).with("betas", betas);
            part.with("beta_start", config.beta_start).with("beta_end", config.beta_end)
        }
    };
    let class = config.class;
    if config.rescale_betas_zero_snr {
        part = part.with("zero_terminal_snr", true);
        if is_multistep(class) || keeps_sigma_space(class) {
            part = part.with("last_signal", LAST_SIGNAL);
        } else if config.prediction_type == PredictionType::Epsilon
            && !corrections(config).is_empty()
        {
            // Divided by no signal the estimate is infinite there, and clipping makes it finite.
            part = part.with("last_signal", 1e-30);
        }
    }
    let spaced = config.timestep_spacing != TimestepSpacing::Leading;
    if keeps_sigma_space(class) && spaced { part.with("prior_sigma", true) } else { part }
}

/// The word for where a grid ends whose steps are the table's.
fn last(config: &SchedulerConfig) -> &'static str {
    let to_sigma_min = match config.class {
        C::DDIMScheduler | C::PNDMScheduler => !config.set_alpha_to_one,
        C::DEISMultistepScheduler | C::SASolverScheduler | C::TCDScheduler => true,
        C::EulerDiscreteScheduler => {
            let halfway = config.interpolation_type == "log_linear" && !is_spaced(config);
            if halfway || config.final_sigmas_type == FinalSigmas::SigmaMin {
                return "unscaled";
            }
            false
        }
        C::DPMSolverMultistepScheduler
        | C::DPMSolverSinglestepScheduler
        | C::UniPCMultistepScheduler => config.final_sigmas_type == FinalSigmas::SigmaMin,
        _ => false,
    };
    if to_sigma_min { "sigma-min" } else { "clean" }
}

/// Whether a grid of sigmas is asked for.
fn is_spaced(config: &SchedulerConfig) -> bool {
    let spacings =
        [config.use_karras_sigmas, config.use_exponential_sigmas, config.use_beta_sigmas];
    let fields = config.class.fields();
    fields.contains(&"use_karras_sigmas") && spacings.contains(&Some(true)) || config.use_lu_lambdas
}

/// The name of a class's spacing of the table.
fn spacing(config: &SchedulerConfig) -> &'static str {
    match config.timestep_spacing {
        TimestepSpacing::Leading => "leading",
        TimestepSpacing::Linspace => "linspace",
        TimestepSpacing::Trailing => "trailing",
    }
}

fn grid(config: &SchedulerConfig) -> Result<PartSpec> {
    let class = config.class;
    if class == C::FlowMatchEulerDiscreteScheduler {
        if is_spaced(config) {
            return Err(refused(config, "spaced sigmas of a flow"));
        }
        return Ok(PartSpec::named("shifted").with("shift", config.shift));
    }
    if config.use_flow_sigmas {
        return Err(refused(config, "flow sigmas on a table"));
    }
    if is_edm(config) {
        let to_sigma_min = config.final_sigmas_type == FinalSigmas::SigmaMin;
        let end = if to_sigma_min { "again" } else { "clean" };
        let part = PartSpec::named(config.sigma_schedule.clone()).with("last", end);
        return Ok(if part.name == "karras" { part.with("rho", config.rho) } else { part });
    }
    if matches!(class, C::LCMScheduler | C::TCDScheduler) {
        let part = PartSpec::named("consistency").with("last", last(config));
        return Ok(part.with("distilled", config.original_inference_steps));
    }
    if is_spaced(config) {
        return Ok(sigmas(config));
    }
    if config.interpolation_type == "log_linear" && class == C::EulerDiscreteScheduler {
        let part = PartSpec::named("exponential").with("within", spacing(config));
        let part = part.with("offset", config.steps_offset).with("told", "lent");
        return Ok(part.with("last", last(config)));
    }
    let multistep = is_multistep(class);
    let name = if class == C::DPMSolverSinglestepScheduler { "linspace" } else { spacing(config) };
    let mut part = PartSpec::named(name).with("last", last(config));
    if config.lambda_min_clipped.is_finite() && class.fields().contains(&"lambda_min_clipped") {
        part = part.with("lambda_min", config.lambda_min_clipped);
    }
    Ok(match name {
        "leading" if multistep => part.with("offset", config.steps_offset).with("drop_last", true),
        "leading" => part.with("offset", config.steps_offset),
        "linspace" if multistep => part.with("drop_last", true),
        "linspace" if keeps_sigma_space(class) => part.with("round", false),
        _ => part,
    })
}

/// A grid of sigmas, with the ends and the rounding of the class.
fn sigmas(config: &SchedulerConfig) -> PartSpec {
    let class = config.class;
    let multistep = is_multistep(class);
    let karras = config.use_karras_sigmas == Some(true);
    let name = if karras {
        "karras"
    } else if config.use_beta_sigmas == Some(true) {
        "beta"
    } else {
        "exponential"
    };
    // Classes that cut times to whole numbers, after rounding them or not.
    let cosine = config.beta_schedule == BetaSchedule::SquaredcosCapV2
        && config.trained_betas.is_none()
        && class == C::DPMSolverMultistepScheduler;
    let lu = class == C::DPMSolverMultistepScheduler && config.use_lu_lambdas && !karras;
    let midpoint = matches!(class, C::KDPM2DiscreteScheduler | C::KDPM2AncestralDiscreteScheduler);
    let told = match (multistep, karras || lu) {
        (true, true) if !cosine => "nearest",
        (true, _) => "below",
        (false, true) if midpoint => "nearest",
        _ => "exact",
    };
    let end = match (class, last(config)) {
        (C::EulerDiscreteScheduler, "unscaled") => "then-unscaled",
        (C::DPMSolverMultistepScheduler | C::DPMSolverSinglestepScheduler, "sigma-min") => "then",
        (_, "sigma-min") => "again",
        (_, other) => other,
    };
    let mut part = PartSpec::named(name).with("last", end).with("told", told);
    if class.fields().contains(&"sigma_min") {
        for (key, value) in [("sigma_min", config.sigma_min), ("sigma_max", config.sigma_max)] {
            if let Some(value) = value {
                part = part.with(key, value);
            }
        }
    }
    if lu && config.rescale_betas_zero_snr {
        // Its ends are those of the table's 32-bit logarithms, which matters where the last step has
        // less noise than the one before.
        let sigma = ((1.0 - LAST_SIGNAL) / LAST_SIGNAL).sqrt() as f32;
        part = part.with("sigma_max", f64::from(sigma.ln()).exp());
    }
    let halfway = class == C::EulerDiscreteScheduler && config.interpolation_type == "log_linear";
    if multistep || halfway {
        return part;
    }
    part.with("within", spacing(config)).with("offset", config.steps_offset)
}

fn corrections(config: &SchedulerConfig) -> Vec<PartSpec> {
    let fields = config.class.fields();
    let deaf = match config.class {
        // It reads neither field.
        C::TCDScheduler => true,
        C::UniPCMultistepScheduler => !config.predict_x0,
        _ => false,
    };
    if deaf {
        return Vec::new();
    }
    if config.thresholding && fields.contains(&"thresholding") {
        let part = PartSpec::named("dynamic-threshold");
        let part = part.with("quantile", config.dynamic_thresholding_ratio);
        return vec![part.with("most", config.sample_max_value.max(1.0))];
    }
    if config.clip_sample && fields.contains(&"clip_sample") {
        return vec![PartSpec::named("clip").with("range", config.clip_sample_range)];
    }
    Vec::new()
}

fn sampler(config: &SchedulerConfig, prediction: Prediction) -> Result<PartSpec> {
    Ok(match config.class {
        C::DDIMScheduler => PartSpec::named("ddim").with("even", true),
        C::DDPMScheduler => match config.variance_type.as_deref() {
            None | Some("fixed_small" | "fixed_small_log") => PartSpec::named("ddpm"),
            Some("fixed_large") => {
                PartSpec::named("ddpm").with("variance", "large").with("noisy_end", true)
            }
            Some(other) => return Err(refused(config, &format!("variance type `{other}`"))),
        },
        C::EulerDiscreteScheduler | C::EDMEulerScheduler | C::FlowMatchEulerDiscreteScheduler => {
            PartSpec::named("euler")
        }
        C::EulerAncestralDiscreteScheduler => PartSpec::named("euler-ancestral"),
        C::HeunDiscreteScheduler => PartSpec::named("heun"),
        C::KDPM2DiscreteScheduler => PartSpec::named("dpm2"),
        C::KDPM2AncestralDiscreteScheduler => PartSpec::named("dpm2-ancestral"),
        C::LMSDiscreteScheduler => PartSpec::named("lms").with("absent", true),
        C::DPMSolverSDEScheduler => PartSpec::named("dpmpp-sde"),
        C::LCMScheduler => PartSpec::named("lcm").with("scaling", config.timestep_scaling),
        C::TCDScheduler => PartSpec::named("tcd"),
        C::PNDMScheduler => {
            let start = if config.skip_prk_steps { "heun" } else { "runge-kutta" };
            let part = PartSpec::named("pndm").with("start", start).with("even", true);
            match prediction {
                Prediction::V => part.with("space", "v"),
                Prediction::Eps => part,
                _ => return Err(refused(config, "a network that predicts the data")),
            }
        }
        C::DPMSolverMultistepScheduler | C::EDMDPMSolverMultistepScheduler => multistep(config)?,
        C::DPMSolverSinglestepScheduler => singlestep(config)?,
        C::DEISMultistepScheduler => PartSpec::named("deis")
            .with("order", config.solver_order)
            .with("lower_order_final", config.lower_order_final),
        C::SASolverScheduler if config.algorithm_type == "noise_prediction" => {
            return Err(refused(config, "`noise_prediction`"));
        }
        // Its two times are training steps, however many there are.
        C::SASolverScheduler => PartSpec::named("sa-solver")
            .with("low", 200.0 / config.num_train_timesteps as f64)
            .with("high", 800.0 / config.num_train_timesteps as f64)
            .with("predictor_order", config.predictor_order)
            .with("corrector_order", config.corrector_order)
            .with("lower_order_final", config.lower_order_final),
        C::UniPCMultistepScheduler => {
            let bh1 = config.solver_type == "bh1";
            let part = PartSpec::named("unipc")
                .with("order", config.solver_order)
                .with("variant", if bh1 { "bh1" } else { "bh2" })
                .with("lower_order_final", config.lower_order_final);
            let part = if config.predict_x0 { part } else { part.with("space", "noise") };
            if config.disable_corrector.is_empty() {
                part
            } else {
                part.with("disable_corrector", json!(config.disable_corrector))
            }
        }
    })
}

/// What the words for an algorithm mean: the space, and whether it draws noise.
fn algorithm(config: &SchedulerConfig) -> (&'static str, bool) {
    match config.algorithm_type.as_str() {
        "dpmsolver" => ("noise", false),
        "sde-dpmsolver" => ("noise", true),
        "sde-dpmsolver++" => ("data", true),
        _ => ("data", false),
    }
}

fn solver_type(config: &SchedulerConfig) -> &'static str {
    if config.solver_type == "heun" { "heun" } else { "midpoint" }
}

fn multistep(config: &SchedulerConfig) -> Result<PartSpec> {
    let (space, stochastic) = algorithm(config);
    let order = config.solver_order;
    let part = match (space, order, stochastic) {
        ("data", 2, false) => PartSpec::named("dpmpp-2m"),
        ("data", 2, true) => PartSpec::named("dpmpp-2m-sde"),
        _ => {
            let part = PartSpec::named("dpm-solver").with("order", order).with("space", space);
            let part = part.with("stochastic", stochastic);
            if stochastic && order == 3 { part.with("other_curve", true) } else { part }
        }
    };
    Ok(part
        .with("solver", solver_type(config))
        .with("lower_order_final", config.lower_order_final)
        .with("euler_at_final", config.euler_at_final))
}

fn singlestep(config: &SchedulerConfig) -> Result<PartSpec> {
    let (space, stochastic) = algorithm(config);
    if space == "noise" && stochastic {
        return Err(refused(config, "`sde-dpmsolver`"));
    }
    let lower = config.lower_order_final || config.final_sigmas_type == FinalSigmas::Zero;
    let part = PartSpec::named("dpm-singlestep")
        .with("order", config.solver_order)
        .with("space", space)
        .with("stochastic", stochastic)
        .with("solver", solver_type(config))
        .with("lower_order_final", lower);
    Ok(if stochastic { part.with("other_curve", true) } else { part })
}
