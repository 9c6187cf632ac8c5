//! From a `scheduler_config.json` to parts: the path, what the network predicts, the grid and the
//! sampler, so that a run equals that of the class in diffusers.

use serde_json::json;

use super::scheduler::{
    BetaSchedule, FinalSigmas, PredictionType, SchedulerClass, SchedulerConfig, TimestepSpacing,
};
use crate::error::{Error, Result};
use crate::prediction::Prediction;
use crate::spec::PartSpec;

/// What a scheduler file means.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleParts {
    /// The path.
    pub process: PartSpec,
    /// What the network's output means.
    pub prediction: Prediction,
    /// The levels to stop at.
    pub grid: PartSpec,
    /// How to step.
    pub sampler: PartSpec,
    /// Training steps: what `t = 1` is to the network.
    pub train_steps: f64,
}

/// The parts that a scheduler file means.
///
/// # Errors
/// [`Error::Unsupported`] for a class or a field that no part here stands for.
pub fn parts(config: &SchedulerConfig) -> Result<ScheduleParts> {
    let flow = config.class == SchedulerClass::FlowMatchEulerDiscreteScheduler;
    Ok(ScheduleParts {
        process: if flow { PartSpec::named("flow") } else { table(config)? },
        prediction: match config.prediction_type {
            _ if flow => Prediction::Flow,
            PredictionType::Epsilon => Prediction::Eps,
            PredictionType::Sample => Prediction::X0,
            PredictionType::VPrediction => Prediction::V,
            PredictionType::FlowPrediction => Prediction::Flow,
        },
        grid: if flow { shifted(config) } else { grid(config)? },
        sampler: sampler(config)?,
        train_steps: config.num_train_timesteps as f64,
    })
}

fn refused(config: &SchedulerConfig, what: &str) -> Error {
    Error::unsupported(config.class.name(), format!("{what}, which no part here stands for yet"))
}

fn table(config: &SchedulerConfig) -> Result<PartSpec> {
    use SchedulerClass as C;
    let betas = match config.beta_schedule {
        BetaSchedule::Linear => "linear",
        BetaSchedule::ScaledLinear => "scaled-linear",
        BetaSchedule::SquaredcosCapV2 => "squaredcos-cap-v2",
        BetaSchedule::Sigmoid => return Err(refused(config, "a sigmoid of betas")),
    };
    let euler = matches!(
        config.class,
        C::EulerDiscreteScheduler | C::EulerAncestralDiscreteScheduler | C::HeunDiscreteScheduler
    );
    let spaced = config.timestep_spacing != TimestepSpacing::Leading;
    let mut part = PartSpec::named("vp-table").with("steps", config.num_train_timesteps);
    part = match &config.trained_betas {
        Some(betas) => part.with("trained_betas", json!(betas)),
        None => {
            let part = part.with("betas", betas);
            part.with("beta_start", config.beta_start).with("beta_end", config.beta_end)
        }
    };
    if config.rescale_betas_zero_snr {
        part = part.with("zero_terminal_snr", true);
    }
    Ok(if euler && spaced { part.with("prior_sigma", true) } else { part })
}

fn shifted(config: &SchedulerConfig) -> PartSpec {
    PartSpec::named("shifted").with("shift", config.shift)
}

fn grid(config: &SchedulerConfig) -> Result<PartSpec> {
    use SchedulerClass as C;
    let multistep =
        matches!(config.class, C::DPMSolverMultistepScheduler | C::UniPCMultistepScheduler);
    let clean = match config.class {
        C::DDIMScheduler | C::PNDMScheduler => config.set_alpha_to_one,
        C::DPMSolverMultistepScheduler | C::UniPCMultistepScheduler | C::EulerDiscreteScheduler => {
            config.final_sigmas_type == FinalSigmas::Zero
        }
        _ => true,
    };
    let last = if clean { "clean" } else { "sigma-min" };
    for (on, name) in [
        (config.use_beta_sigmas, "a grid by the beta distribution"),
        (Some(config.use_lu_lambdas), "Lu's grid"),
        (Some(config.use_flow_sigmas), "flow sigmas on a table"),
    ] {
        if on == Some(true) {
            return Err(refused(config, name));
        }
    }
    if config.use_karras_sigmas == Some(true) {
        let part = PartSpec::named("karras").with("last", last);
        return Ok(if multistep { part.with("round", true) } else { part });
    }
    if config.use_exponential_sigmas == Some(true) {
        let part = PartSpec::named("exponential").with("last", last);
        return Ok(if multistep { part.with("round", true) } else { part });
    }
    let rounded =
        matches!(config.class, C::EulerDiscreteScheduler | C::EulerAncestralDiscreteScheduler);
    Ok(match config.timestep_spacing {
        TimestepSpacing::Leading => {
            let part =
                PartSpec::named("leading").with("offset", config.steps_offset).with("last", last);
            if multistep { part.with("drop_last", true) } else { part }
        }
        TimestepSpacing::Linspace => {
            let part = PartSpec::named("linspace").with("last", last);
            let part = if multistep { part.with("drop_last", true) } else { part };
            if rounded { part.with("round", false) } else { part }
        }
        TimestepSpacing::Trailing => PartSpec::named("trailing").with("last", last),
    })
}

fn sampler(config: &SchedulerConfig) -> Result<PartSpec> {
    use SchedulerClass as C;
    if config.thresholding || (config.clip_sample && config.class.fields().contains(&"clip_sample"))
    {
        return Err(refused(config, "clipping of the clean sample"));
    }
    Ok(match config.class {
        C::DDIMScheduler => PartSpec::named("ddim"),
        C::DDPMScheduler => match config.variance_type.as_deref() {
            None | Some("fixed_small") => PartSpec::named("ddpm"),
            Some("fixed_large") => PartSpec::named("ddpm").with("variance", "fixed-large"),
            Some(other) => return Err(refused(config, &format!("variance type `{other}`"))),
        },
        C::EulerDiscreteScheduler | C::FlowMatchEulerDiscreteScheduler => PartSpec::named("euler"),
        C::EulerAncestralDiscreteScheduler => PartSpec::named("euler-ancestral"),
        C::HeunDiscreteScheduler => PartSpec::named("heun"),
        C::DPMSolverMultistepScheduler => multistep(config)?,
        C::UniPCMultistepScheduler => {
            let part = PartSpec::named("unipc")
                .with("order", config.solver_order)
                .with("variant", config.solver_type.clone())
                .with("lower_order_final", config.lower_order_final);
            if config.disable_corrector.is_empty() {
                part
            } else {
                part.with("disable_corrector", json!(config.disable_corrector))
            }
        }
        C::PNDMScheduler => return Err(refused(config, "the pseudo numerical steps")),
    })
}

fn multistep(config: &SchedulerConfig) -> Result<PartSpec> {
    let name = match (config.algorithm_type.as_str(), config.solver_order) {
        ("dpmsolver++", 1) => return Ok(PartSpec::named("ddim")),
        ("dpmsolver++", 2) => "dpmpp-2m",
        ("sde-dpmsolver++", 2) => "dpmpp-2m-sde",
        (other, order) => return Err(refused(config, &format!("`{other}` of order {order}"))),
    };
    let solver = config.solver_type.clone();
    let part = PartSpec::named(name).with("solver", solver);
    Ok(part.with("lower_order_final", config.lower_order_final))
}
