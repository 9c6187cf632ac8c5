//! What stable-diffusion.cpp and others call the arguments of `tweedie generate`, in one table.

/// One argument under two names.
pub(crate) struct Alias {
    /// As stable-diffusion.cpp writes it; both its forms are understood here.
    pub(crate) theirs: &'static [&'static str],
    /// As it is called here.
    pub(crate) ours: &'static str,
}

const fn alias(theirs: &'static [&'static str], ours: &'static str) -> Alias {
    Alias { theirs, ours }
}

/// The table; the help prints it, and a test holds it to what is understood.
pub(crate) const ALIASES: &[Alias] = &[
    alias(&["-m", "--model"], "model"),
    alias(&["--vae"], "vae"),
    alias(&["--clip_l"], "clip-l"),
    alias(&["--clip_g"], "clip-g"),
    alias(&["-p", "--prompt"], "prompt-text"),
    alias(&["-n", "--negative-prompt"], "negative"),
    alias(&["-W", "--width"], "width"),
    alias(&["-H", "--height"], "height"),
    alias(&["--steps"], "steps"),
    alias(&["--cfg-scale"], "guidance"),
    alias(&["--img-cfg-scale"], "image-guidance"),
    alias(&["-s", "--seed"], "seed"),
    alias(&["-b", "--batch-count"], "count"),
    alias(&["--sampling-method"], "sampler"),
    alias(&["--scheduler"], "grid"),
    alias(&["--type"], "dtype"),
    alias(&["--rng"], "rng"),
    alias(&["-i", "--init-img"], "init"),
    alias(&["--mask"], "mask"),
    alias(&["--strength"], "strength"),
    alias(&["--control-image"], "control"),
    alias(&["--control-net"], "controlnet"),
    alias(&["--control-strength"], "control-strength"),
    alias(&["--hires-scale"], "upscale"),
    alias(&["--hires-denoising-strength"], "upscale-strength"),
    alias(&["--clip-skip"], "clip-skip"),
    alias(&["--vae-tiling"], "vae-tiling"),
    alias(&["--vae-tile-size"], "vae-tile"),
    alias(&["-o", "--output"], "out"),
    alias(&["-t", "--threads"], "threads"),
];

/// The table as text for the help.
pub(crate) fn help() -> String {
    let mut text = String::from("Names that stable-diffusion.cpp uses are understood:\n");
    for alias in ALIASES {
        let theirs = alias.theirs.join(", ");
        let same = alias.theirs.iter().any(|t| t.trim_start_matches('-') == alias.ours);
        let ours = match alias.ours {
            "prompt-text" => "PROMPT".to_owned(),
            ours => format!("--{ours}"),
        };
        let ours = if same { "the same".to_owned() } else { ours };
        text += &format!("  {theirs:32} {ours}\n");
    }
    text += "Samplers and grids go by the names of A1111, ComfyUI, diffusers and \
             stable-diffusion.cpp; see `tweedie methods`.";
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_table_is_what_the_command_understands() {
        let mut command = crate::Cli::command();
        command.build();
        let command = command.find_subcommand("generate").unwrap();
        for alias in ALIASES {
            let argument = command.get_arguments().find(|a| a.get_long() == Some(alias.ours));
            let argument = argument.unwrap_or_else(|| panic!("no --{}", alias.ours));
            for theirs in alias.theirs {
                let known = match theirs.strip_prefix("--") {
                    Some(long) => argument
                        .get_long_and_visible_aliases()
                        .into_iter()
                        .flatten()
                        .chain(argument.get_all_aliases().into_iter().flatten())
                        .any(|a| a == long),
                    None => {
                        let short = theirs.chars().nth(1).unwrap();
                        argument
                            .get_short_and_visible_aliases()
                            .is_some_and(|all| all.contains(&short))
                    }
                };
                assert!(known, "{theirs} is not --{}", alias.ours);
            }
        }
        assert!(help().contains("-b, --batch-count"));
    }
}
