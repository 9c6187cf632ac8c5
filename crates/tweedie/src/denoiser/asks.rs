//! What a network wants to find in a condition, and the names of the entries that have no field.

/// Names of entries of [`Cond::fields`](super::Cond::fields) that networks know. Every entry has
/// the batch first.
pub mod field {
    /// Sizes and crops that are embedded beside a pooled text embedding, `[batch, count]` (Podell
    /// et al., "SDXL", 2023, section 2.2: original height and width, top and left of the crop,
    /// target height and width; or the last two replaced by an aesthetic score).
    pub const TIME_IDS: &str = "time_ids";
    /// What stands in place of a class: a vector `[batch, width]`, or a number `[batch, 1]`.
    pub const CLASS_LABELS: &str = "class_labels";
    /// The embedding of the guidance weight, `[batch, width]`, where it was made elsewhere; else
    /// the network makes it from [`Cond::guidance`](super::Cond::guidance).
    pub const TIMESTEP_COND: &str = "timestep_cond";
    /// Channels that go into the network behind those of the state, `[batch, channels, height,
    /// width]`: a mask and the latents of a masked image, or the latents of an image to edit.
    pub const BESIDE: &str = "beside";
    /// The picture that a control network looks at, `[batch, channels, height, width]` in the
    /// network's own range; the second one and further ones are named by
    /// [`control`](fn@control).
    pub const CONTROL: &str = "control";

    /// The name of the picture of control network `index`: `control`, `control.1` …
    pub fn control(index: usize) -> String {
        if index == 0 { CONTROL.to_owned() } else { format!("{CONTROL}.{index}") }
    }
}

/// What a network wants instead of, or as, a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskedClass {
    /// Nothing.
    #[default]
    None,
    /// A class below this number, in [`Cond::class`](super::Cond::class).
    Label(usize),
    /// A number, in [`Cond::class`](super::Cond::class) or [`field::CLASS_LABELS`].
    Number,
    /// A vector of this width, in [`field::CLASS_LABELS`] or, where nothing else asks for it, in
    /// [`Cond::vector`](super::Cond::vector).
    Vector(usize),
}

/// A pooled text embedding with embedded numbers behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedSizes {
    /// Width of both together.
    pub total: usize,
    /// Width of one embedded number of [`field::TIME_IDS`].
    pub each: usize,
}

/// What a network wants to find in a condition; what it does not ask for it does not look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Channels of its input, those of [`field::BESIDE`] included; `None` where it does not say.
    pub channels: Option<usize>,
    /// A class.
    pub class: AskedClass,
    /// Width of the sequence that it attends to.
    pub context: Option<usize>,
    /// A pooled text embedding in [`Cond::vector`](super::Cond::vector) and numbers in
    /// [`field::TIME_IDS`].
    pub sizes: Option<AskedSizes>,
    /// Width of the embedded guidance weight; it may be left out.
    pub guidance: Option<usize>,
}

impl Asks {
    /// How many numbers of [`field::TIME_IDS`] go with a pooled embedding of this width; `None`
    /// where the network asks for none, or where no number fits.
    pub fn size_count(&self, pooled: usize) -> Option<usize> {
        let sizes = self.sizes?;
        let rest = sizes.total.checked_sub(pooled)?;
        (sizes.each > 0 && rest.is_multiple_of(sizes.each)).then(|| rest / sizes.each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_what_the_pooled_embedding_leaves() {
        let asks = |total| Asks { sizes: Some(AskedSizes { total, each: 256 }), ..Asks::default() };
        // The base network and the refiner of Podell et al.
        assert_eq!(asks(2816).size_count(1280), Some(6));
        assert_eq!(asks(2560).size_count(1280), Some(5));
        assert_eq!(asks(2560).size_count(1281), None);
        assert_eq!(asks(2560).size_count(5000), None);
        assert_eq!(Asks::default().size_count(1280), None);
        assert_eq!((field::control(0), field::control(2)), ("control".into(), "control.2".into()));
    }
}
