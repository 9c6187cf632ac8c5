//! The names that other programs use, in one table.

use crate::catalog::{Card, Made, Seam, find};
use crate::error::{Error, Result};
use crate::spec::PartSpec;
use crate::{grid, guide, process, reward, sampler, search, tap};

/// A name and what it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// The seam.
    pub seam: Seam,
    /// The name, as another program writes it.
    pub name: &'static str,
    /// The part, with the settings that the name implies.
    pub part: PartSpec,
    /// The grid that a sampler's name implies.
    pub grid: Option<PartSpec>,
}

/// Names that imply settings or, for a sampler, a grid: name, part, grid.
///
/// ComfyUI's `uni_pc` is the other variant of the paper than `uni_pc_bh2`; its `sgm_uniform` and
/// `ddim_uniform` are spacings with settings, and sd.cpp's `ddim_trailing` is a pair.
const SAMPLERS: &[(&str, &str, &str)] = &[
    ("uni_pc", "unipc:variant=bh1", ""),
    ("ddim_trailing", "ddim", "trailing"),
    ("dpmpp_2m_sde_heun", "dpmpp-2m-sde:solver=heun", ""),
    ("dpmpp_2m_sde_heun_gpu", "dpmpp-2m-sde:solver=heun", ""),
    ("DPM++ 2M SDE Heun", "dpmpp-2m-sde:solver=heun", ""),
    ("DPM++ 3M SDE", "dpm-solver:stochastic=true,solver=heun,lower_order_final=false", ""),
    ("dpmpp_3m_sde", "dpm-solver:stochastic=true,solver=heun,lower_order_final=false", ""),
    ("dpmpp_3m_sde_gpu", "dpm-solver:stochastic=true,solver=heun,lower_order_final=false", ""),
    ("ipndm_v", "lms", ""),
    ("EDMEulerScheduler", "euler", ""),
    ("EDMDPMSolverMultistepScheduler", "dpmpp-2m", ""),
];

const GRIDS: &[(&str, &str)] = &[
    ("sgm_uniform", "linspace:drop_last=true,round=false"),
    ("SGM Uniform", "linspace:drop_last=true,round=false"),
    ("ddim_uniform", "leading:offset=1"),
];

/// Every other name of every part, in the order of the catalogue.
///
/// # Errors
///
/// Never with the tables as they are; a test holds that.
pub fn aliases() -> Result<Vec<Named>> {
    let mut all = Vec::new();
    let mut of = |seam: Seam, cards: &mut dyn Iterator<Item = &'static Card>| {
        for card in cards {
            for name in card.aliases {
                all.push(Named { seam, name, part: PartSpec::named(card.id), grid: None });
            }
        }
    };
    of(Seam::Process, &mut process::cards());
    of(Seam::Grid, &mut grid::cards());
    of(Seam::Sampler, &mut sampler::cards());
    of(Seam::Guide, &mut guide::cards());
    of(Seam::Tap, &mut tap::cards());
    of(Seam::Reward, &mut reward::cards());
    of(Seam::Search, &mut search::cards());
    for (name, part) in GRIDS {
        all.push(Named { seam: Seam::Grid, name, part: part.parse()?, grid: None });
    }
    for (name, part, grid) in SAMPLERS {
        let grid = if grid.is_empty() { None } else { Some(grid.parse()?) };
        all.push(Named { seam: Seam::Sampler, name, part: part.parse()?, grid });
    }
    Ok(all)
}

/// The sampler that any program's name stands for, with its card's id, and the grid that the name
/// implies: `DPM++ 2M Karras`, as older programs write it, is a sampler and a grid.
///
/// Settings that stand in `part` count before those that its name implies.
///
/// # Errors
///
/// [`crate::Error::Unknown`] with the nearest names.
pub fn resolve_sampler(part: &PartSpec) -> Result<(PartSpec, Option<PartSpec>)> {
    if let Some((_, implied, grid)) =
        SAMPLERS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(&part.name))
    {
        let grid = if grid.is_empty() { None } else { Some(grid.parse()?) };
        return Ok((merged(implied.parse()?, part), grid));
    }
    let unknown = match part.canonical(sampler::entries(), Seam::Sampler) {
        Ok(part) => return Ok((part, None)),
        Err(error) => error,
    };
    let Some((at, _)) = part.name.rmatch_indices([' ', '_', '+']).next() else {
        return Err(unknown);
    };
    let (name, grid) = (&part.name[..at], &part.name[at + 1..]);
    let split = PartSpec { name: name.trim().to_owned(), settings: part.settings.clone() };
    match (resolve_sampler(&split), resolve_grid(&PartSpec::named(grid.trim()))) {
        (Ok((sampler, None)), Ok(grid)) => Ok((sampler, Some(grid))),
        _ => Err(unknown),
    }
}

/// The grid that any program's name stands for, with its card's id.
///
/// # Errors
///
/// [`crate::Error::Unknown`] with the nearest names.
pub fn resolve_grid(part: &PartSpec) -> Result<PartSpec> {
    match GRIDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&part.name)) {
        Some((_, implied)) => Ok(merged(implied.parse()?, part)),
        None => canonical(grid::entries(), Seam::Grid, part),
    }
}

/// A grid in a file that a tuner has written: the part in JSON.
///
/// # Errors
///
/// [`Error::Format`] where it is none; as [`resolve_grid`].
pub fn grid_of_file(file: &std::path::Path, text: &str) -> Result<PartSpec> {
    let part = serde_json::from_str(text);
    let part = part.map_err(|e| Error::format(file, "", format!("{e}, wanted a grid in JSON")))?;
    resolve_grid(&part)
}

fn canonical<T: ?Sized>(
    entries: &'static [Made<T>],
    seam: Seam,
    part: &PartSpec,
) -> Result<PartSpec> {
    let id = find(entries, seam, &part.name)?.card.id;
    Ok(PartSpec { name: id.to_owned(), settings: part.settings.clone() })
}

fn merged(mut implied: PartSpec, given: &PartSpec) -> PartSpec {
    for (key, value) in &given.settings {
        implied.settings.insert(key.clone(), value.clone());
    }
    implied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_resolves_to_a_part_that_can_be_made() {
        for named in aliases().unwrap() {
            let asked = PartSpec::named(named.name);
            match named.seam {
                Seam::Sampler => {
                    let (part, grid) = resolve_sampler(&asked).unwrap();
                    assert_eq!((&part, &grid), (&named.part, &named.grid), "{}", named.name);
                    part.make(sampler::entries(), Seam::Sampler).unwrap();
                }
                Seam::Grid => {
                    let part = resolve_grid(&asked).unwrap();
                    assert_eq!(part, named.part, "{}", named.name);
                    part.make(grid::entries(), Seam::Grid).unwrap();
                }
                _ => {}
            }
        }
    }

    #[test]
    fn no_name_stands_for_two_parts() {
        let mut seen = std::collections::BTreeMap::new();
        for named in aliases().unwrap() {
            let key = (named.seam, named.name.to_lowercase());
            if let Some(other) = seen.insert(key, named.part.to_string()) {
                assert_eq!(other, named.part.to_string(), "{}", named.name);
            }
        }
    }

    #[test]
    fn a_name_with_its_schedule_is_split() {
        for (name, sampler, grid) in [
            ("DPM++ 2M Karras", "dpmpp-2m", Some("karras")),
            ("DPM++ 2M SDE Karras", "dpmpp-2m-sde", Some("karras")),
            ("DPM++ 2M SDE Exponential", "dpmpp-2m-sde", Some("exponential")),
            ("dpmpp_2m_karras", "dpmpp-2m", Some("karras")),
            ("Euler a", "euler-ancestral", None),
            ("euler_ancestral", "euler-ancestral", None),
            ("dpm++2m", "dpmpp-2m", None),
            ("EulerDiscreteScheduler", "euler", None),
            ("ddim_trailing", "ddim", Some("trailing")),
            ("DPM++ SDE Karras", "dpmpp-sde", Some("karras")),
            ("DPM++ 3M SDE Exponential", "dpm-solver", Some("exponential")),
            ("DPM2 a Karras", "dpm2-ancestral", Some("karras")),
            ("DPM2 Karras", "dpm2", Some("karras")),
            ("LMS Karras", "lms", Some("karras")),
            ("PLMS", "pndm", None),
            ("LCM", "lcm", None),
            ("DEISMultistepScheduler", "deis", None),
            ("DPM++ 2S a Karras", "dpmpp-2s-ancestral", Some("karras")),
            ("ipndm", "ipndm", None),
            ("ipndm_v", "lms", None),
            ("er_sde", "er-sde", None),
            ("sa_solver", "sa-solver", None),
            ("res_multistep", "res", None),
            ("gradient_estimation", "gradient-estimation", None),
        ] {
            let (part, on) = resolve_sampler(&PartSpec::named(name)).unwrap();
            assert_eq!(
                (part.name.as_str(), on.map(|g| g.name)),
                (sampler, grid.map(str::to_owned))
            );
        }
        let error = resolve_sampler(&PartSpec::named("dpmpp-2n")).unwrap_err().to_string();
        assert!(error.contains("dpmpp-2m"), "{error}");
        assert!(resolve_sampler(&PartSpec::named("Euler Sideways")).is_err());
    }

    #[test]
    fn given_settings_count_before_implied_ones() {
        let (part, _) = resolve_sampler(&"uni_pc:order=3".parse().unwrap()).unwrap();
        assert_eq!(part.to_string(), "unipc:variant=bh1,order=3");
        let part = resolve_grid(&"ddim_uniform:offset=0".parse().unwrap()).unwrap();
        assert_eq!(part.to_string(), "leading:offset=0");
    }
}
