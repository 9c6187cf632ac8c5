//! The scheduler that a trained model is published with.

use crate::catalog::{Seam, find};
use crate::error::{Error, Result};
use crate::hub::scheduler::{
    BetaSchedule, PredictionType, SchedulerClass, SchedulerConfig, TimestepSpacing,
};
use crate::prediction::Prediction;
use crate::process::{self, edm, vp_table};
use crate::train::objective::{ObjectiveSettings, Preconditioning};

/// What `scheduler_config.json` says of a training objective: its table of betas and what the
/// network predicts, with DDIM on trailing steps; or EDM's path, with its second-order sampler.
///
/// # Errors
///
/// [`Error::Unsupported`] where the published classes have no words for the path or prediction.
pub(crate) fn of(objective: &ObjectiveSettings) -> Result<SchedulerConfig> {
    let spec = &objective.process;
    let path = find(process::entries(), Seam::Process, &spec.name)?.card.id;
    if objective.preconditioning == Preconditioning::Edm {
        if path != "edm" {
            return Err(Error::unsupported("export", "the path `edm` with EDM's preconditioning"));
        }
        let path: edm::Edm = spec.settings(Seam::Process).read()?;
        return Ok(SchedulerConfig {
            sigma_min: Some(path.sigma_min),
            sigma_max: Some(path.sigma_max),
            sigma_data: path.sigma_data,
            prediction_type: match objective.prediction {
                Prediction::V => PredictionType::VPrediction,
                _ => PredictionType::Epsilon,
            },
            ..SchedulerConfig::new(SchedulerClass::EDMDPMSolverMultistepScheduler)
        });
    }
    if path != "vp-table" {
        return Err(Error::unsupported("export", "a path that is a table, as `vp-table`"));
    }
    let table: vp_table::Table = spec.settings(Seam::Process).read()?;
    Ok(SchedulerConfig {
        num_train_timesteps: table.trained_betas.as_ref().map_or(table.steps, Vec::len),
        beta_start: table.beta_start,
        beta_end: table.beta_end,
        beta_schedule: match table.betas {
            vp_table::Betas::Linear => BetaSchedule::Linear,
            vp_table::Betas::ScaledLinear => BetaSchedule::ScaledLinear,
            vp_table::Betas::SquaredcosCapV2 => BetaSchedule::SquaredcosCapV2,
            vp_table::Betas::Sigmoid => BetaSchedule::Sigmoid,
        },
        trained_betas: table.trained_betas,
        rescale_betas_zero_snr: table.zero_terminal_snr,
        prediction_type: match objective.prediction {
            Prediction::Eps => PredictionType::Epsilon,
            Prediction::X0 => PredictionType::Sample,
            Prediction::V => PredictionType::VPrediction,
            other => {
                let needs = format!("eps, x0 or v in place of {}", other.name());
                return Err(Error::unsupported("export", needs));
            }
        },
        timestep_spacing: TimestepSpacing::Trailing,
        // Trailing steps take none; the published pipelines complain of any other.
        steps_offset: 1,
        clip_sample: false,
        set_alpha_to_one: true,
        ..SchedulerConfig::new(SchedulerClass::DDIMScheduler)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_written_as_the_published_classes_have_it() {
        let settings = ObjectiveSettings {
            process: "vp-table:betas=squaredcos-cap-v2".parse().unwrap(),
            prediction: Prediction::V,
            ..ObjectiveSettings::default()
        };
        let config = of(&settings).unwrap();
        config.validate().unwrap();
        let json = config.to_json();
        assert_eq!(json["beta_schedule"], "squaredcos_cap_v2");
        assert_eq!(json["prediction_type"], "v_prediction");
        assert_eq!(json["timestep_spacing"], "trailing");
        let edm = ObjectiveSettings {
            process: "edm:sigma_max=40,sigma_data=0.7".parse().unwrap(),
            preconditioning: Preconditioning::Edm,
            ..settings.clone()
        };
        let config = of(&edm).unwrap();
        config.validate().unwrap();
        let json = config.to_json();
        assert_eq!(json["_class_name"], "EDMDPMSolverMultistepScheduler");
        assert_eq!((&json["sigma_max"], &json["sigma_data"]), (&40.0.into(), &0.7.into()));
        assert_eq!(json["prediction_type"], "v_prediction");
        let elsewhere = ObjectiveSettings { process: settings.process.clone(), ..edm };
        assert!(of(&elsewhere).unwrap_err().to_string().contains("`edm`"));
        let flow = ObjectiveSettings { process: "flow".into(), ..settings.clone() };
        assert!(of(&flow).unwrap_err().to_string().contains("vp-table"));
        let score = ObjectiveSettings { prediction: Prediction::Score, ..settings };
        assert!(of(&score).is_err());
    }
}
