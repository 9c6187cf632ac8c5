//! The scheduler classes of diffusers and the fields that each has.

use serde::{Deserialize, Serialize};

/// The scheduler classes that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SchedulerClass {
    /// Denoising diffusion implicit models.
    DDIMScheduler,
    /// Denoising diffusion probabilistic models.
    DDPMScheduler,
    /// DEIS in the log-SNR, multistep.
    DEISMultistepScheduler,
    /// DPM-Solver and DPM-Solver++, multistep.
    DPMSolverMultistepScheduler,
    /// DPM-Solver++ of the SDE in two stages.
    DPMSolverSDEScheduler,
    /// DPM-Solver and DPM-Solver++, singlestep.
    DPMSolverSinglestepScheduler,
    /// DPM-Solver++ around EDM's preconditioning.
    EDMDPMSolverMultistepScheduler,
    /// Euler around EDM's preconditioning.
    EDMEulerScheduler,
    /// Euler ancestral.
    EulerAncestralDiscreteScheduler,
    /// Euler.
    EulerDiscreteScheduler,
    /// Euler on a flow.
    FlowMatchEulerDiscreteScheduler,
    /// Heun.
    HeunDiscreteScheduler,
    /// The midpoint method, ancestral.
    KDPM2AncestralDiscreteScheduler,
    /// The midpoint method.
    KDPM2DiscreteScheduler,
    /// Multistep consistency sampling.
    LCMScheduler,
    /// Linear multistep.
    LMSDiscreteScheduler,
    /// Pseudo numerical methods.
    PNDMScheduler,
    /// The stochastic Adams predictor-corrector.
    SASolverScheduler,
    /// Trajectory consistency sampling.
    TCDScheduler,
    /// The unified predictor-corrector.
    UniPCMultistepScheduler,
}

impl SchedulerClass {
    /// Every class, in order.
    pub const ALL: [Self; 20] = [
        Self::DDIMScheduler,
        Self::DDPMScheduler,
        Self::DEISMultistepScheduler,
        Self::DPMSolverMultistepScheduler,
        Self::DPMSolverSDEScheduler,
        Self::DPMSolverSinglestepScheduler,
        Self::EDMDPMSolverMultistepScheduler,
        Self::EDMEulerScheduler,
        Self::EulerAncestralDiscreteScheduler,
        Self::EulerDiscreteScheduler,
        Self::FlowMatchEulerDiscreteScheduler,
        Self::HeunDiscreteScheduler,
        Self::KDPM2AncestralDiscreteScheduler,
        Self::KDPM2DiscreteScheduler,
        Self::LCMScheduler,
        Self::LMSDiscreteScheduler,
        Self::PNDMScheduler,
        Self::SASolverScheduler,
        Self::TCDScheduler,
        Self::UniPCMultistepScheduler,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DDIMScheduler => "DDIMScheduler",
            Self::DDPMScheduler => "DDPMScheduler",
            Self::DEISMultistepScheduler => "DEISMultistepScheduler",
            Self::DPMSolverMultistepScheduler => "DPMSolverMultistepScheduler",
            Self::DPMSolverSDEScheduler => "DPMSolverSDEScheduler",
            Self::DPMSolverSinglestepScheduler => "DPMSolverSinglestepScheduler",
            Self::EDMDPMSolverMultistepScheduler => "EDMDPMSolverMultistepScheduler",
            Self::EDMEulerScheduler => "EDMEulerScheduler",
            Self::EulerAncestralDiscreteScheduler => "EulerAncestralDiscreteScheduler",
            Self::EulerDiscreteScheduler => "EulerDiscreteScheduler",
            Self::FlowMatchEulerDiscreteScheduler => "FlowMatchEulerDiscreteScheduler",
            Self::HeunDiscreteScheduler => "HeunDiscreteScheduler",
            Self::KDPM2AncestralDiscreteScheduler => "KDPM2AncestralDiscreteScheduler",
            Self::KDPM2DiscreteScheduler => "KDPM2DiscreteScheduler",
            Self::LCMScheduler => "LCMScheduler",
            Self::LMSDiscreteScheduler => "LMSDiscreteScheduler",
            Self::PNDMScheduler => "PNDMScheduler",
            Self::SASolverScheduler => "SASolverScheduler",
            Self::TCDScheduler => "TCDScheduler",
            Self::UniPCMultistepScheduler => "UniPCMultistepScheduler",
        }
    }

    /// The fields that the class has.
    #[must_use]
    pub fn fields(self) -> Vec<&'static str> {
        let betas =
            ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"];
        let prediction = ["prediction_type"];
        let spacing = ["prediction_type", "timestep_spacing", "steps_offset"];
        let threshold = ["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
        let clip = ["clip_sample", "clip_sample_range"];
        let sigmas = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];
        let solver = ["solver_order", "solver_type", "lower_order_final"];
        let flow = ["use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"];
        let last = ["final_sigmas_type"];
        let algorithm = ["algorithm_type"];
        let edm = [
            "sigma_min",
            "sigma_max",
            "sigma_data",
            "sigma_schedule",
            "num_train_timesteps",
            "prediction_type",
            "rho",
            "final_sigmas_type",
        ];
        let distilled = ["original_inference_steps", "timestep_scaling", "set_alpha_to_one"];
        let lambda = ["lambda_min_clipped", "variance_type"];
        let zero = ["rescale_betas_zero_snr"];
        let parts: &[&[&str]] = match self {
            Self::DDIMScheduler => {
                &[&betas, &spacing, &threshold, &clip, &zero, &["set_alpha_to_one"]]
            }
            Self::DDPMScheduler => {
                &[&betas, &spacing, &threshold, &clip, &zero, &["variance_type"]]
            }
            Self::DEISMultistepScheduler => {
                &[&betas, &spacing, &threshold, &sigmas, &solver, &flow, &algorithm]
            }
            Self::DPMSolverMultistepScheduler => &[
                &betas,
                &spacing,
                &threshold,
                &sigmas,
                &solver,
                &flow,
                &last,
                &algorithm,
                &lambda,
                &zero,
                &["euler_at_final", "use_lu_lambdas"],
            ],
            Self::DPMSolverSDEScheduler => &[&betas, &spacing, &sigmas, &["noise_sampler_seed"]],
            Self::DPMSolverSinglestepScheduler => &[
                &betas,
                &prediction,
                &threshold,
                &sigmas,
                &solver,
                &flow,
                &last,
                &algorithm,
                &lambda,
            ],
            Self::EDMDPMSolverMultistepScheduler => {
                &[&edm, &solver, &threshold, &algorithm, &["euler_at_final"]]
            }
            Self::EDMEulerScheduler => &[&edm],
            Self::EulerAncestralDiscreteScheduler => &[&betas, &spacing, &zero],
            Self::EulerDiscreteScheduler => &[
                &betas,
                &spacing,
                &sigmas,
                &zero,
                &last,
                &["interpolation_type", "sigma_min", "sigma_max", "timestep_type"],
            ],
            Self::FlowMatchEulerDiscreteScheduler => &[
                &sigmas,
                &[
                    "num_train_timesteps",
                    "shift",
                    "use_dynamic_shifting",
                    "base_shift",
                    "max_shift",
                    "base_image_seq_len",
                    "max_image_seq_len",
                    "invert_sigmas",
                    "shift_terminal",
                    "time_shift_type",
                    "stochastic_sampling",
                ],
            ],
            Self::HeunDiscreteScheduler => &[&betas, &spacing, &sigmas, &clip],
            Self::KDPM2AncestralDiscreteScheduler
            | Self::KDPM2DiscreteScheduler
            | Self::LMSDiscreteScheduler => &[&betas, &spacing, &sigmas],
            Self::LCMScheduler | Self::TCDScheduler => {
                &[&betas, &spacing, &threshold, &clip, &zero, &distilled]
            }
            Self::PNDMScheduler => &[&betas, &spacing, &["skip_prk_steps", "set_alpha_to_one"]],
            Self::SASolverScheduler => &[
                &betas,
                &spacing,
                &threshold,
                &sigmas,
                &algorithm,
                &lambda,
                &["use_flow_sigmas", "flow_shift", "lower_order_final"],
                &["predictor_order", "corrector_order", "tau_func"],
            ],
            Self::UniPCMultistepScheduler => &[
                &betas,
                &spacing,
                &threshold,
                &sigmas,
                &solver,
                &flow,
                &last,
                &zero,
                &[
                    "predict_x0",
                    "disable_corrector",
                    "solver_p",
                    "sigma_min",
                    "sigma_max",
                    "shift_terminal",
                ],
            ],
        };
        parts.concat()
    }
}
