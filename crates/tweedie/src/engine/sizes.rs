//! What networks are told of the size of a picture, beside its text.

use burn::tensor::{Tensor, TensorData};

use crate::denoiser::{Cond, Network, field};
use crate::error::{Error, Result};
use crate::state::State;

/// The aesthetic score that a picture is asked for, and the one that it is to keep away from: the
/// defaults of the published pipeline of the refiner.
const SCORES: [f64; 2] = [6.0, 2.5];

/// Tells a network that asks for it that the picture of `[height, width]` pixels is whole: its
/// original size, no crop, and its target size or an aesthetic score (Podell et al., "SDXL", 2023,
/// section 2.2). Both the condition and its negative have a pooled text already.
///
/// # Errors
///
/// [`Error::Unsupported`] where the network asks for a pooled text that the model does not have, or
/// for another count of numbers.
pub(super) fn tell(cond: &mut Cond, network: &dyn Network, size: [usize; 2]) -> Result<()> {
    let asks = network.asks();
    if asks.sizes.is_none() {
        return Ok(());
    }
    add(cond, network, size, SCORES[0])?;
    match &mut cond.negative {
        Some(negative) => add(negative, network, size, SCORES[1]),
        None => Ok(()),
    }
}

fn add(cond: &mut Cond, network: &dyn Network, size: [usize; 2], score: f64) -> Result<()> {
    let wanted = |what: &str| Error::unsupported("a network that is told sizes", what);
    let Some(pooled) = &cond.vector else {
        return Err(wanted("a text encoder with a pooled output"));
    };
    let [rows, width] = pooled.dims();
    let [height, across] = size.map(|s| s as f64);
    let mut numbers = vec![height, across, 0.0, 0.0];
    match network.asks().size_count(width) {
        Some(6) => numbers.extend([height, across]),
        Some(5) => numbers.push(score),
        _ => return Err(wanted("a pooled text of the width that leaves room for 5 or 6 sizes")),
    }
    let count = numbers.len();
    let all: Vec<f32> = numbers.iter().map(|n| *n as f32).cycle().take(rows * count).collect();
    let data = TensorData::new(all, [rows, count]);
    let ids = State::new(Tensor::<2>::from_data(data, &pooled.device()));
    cond.fields.insert(field::TIME_IDS.into(), ids);
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::denoiser::{AskedSizes, Asks, Pass, Times};
    use crate::tap::Site;
    use crate::weight::{Parameters, Weight};

    /// A network that only asks.
    struct Asking(Option<AskedSizes>);

    impl Parameters for Asking {
        fn each(&self, _: &str, _: &mut dyn FnMut(&str, &Weight)) {}
        fn each_mut(&mut self, _: &str, _: &mut dyn FnMut(&str, &mut Weight)) {}
    }

    impl Network for Asking {
        fn forward(&self, x: &State, _: &Times, _: &Cond, _: &mut Pass) -> Result<State> {
            Ok(x.clone())
        }

        fn sites(&self) -> Vec<Site> {
            Vec::new()
        }

        fn asks(&self) -> Asks {
            Asks { sizes: self.0, ..Asks::default() }
        }
    }

    fn cond() -> Cond {
        let pooled = || Some(Tensor::<2>::zeros([2, 10], &Device::flex()));
        let negative = Some(Box::new(Cond { vector: pooled(), ..Cond::default() }));
        Cond { vector: pooled(), negative, ..Cond::default() }
    }

    fn told(total: usize) -> Result<[Vec<f32>; 2]> {
        let mut cond = cond();
        tell(&mut cond, &Asking(Some(AskedSizes { total, each: 4 })), [48, 64])?;
        let ids = |cond: &Cond| {
            let ids: Tensor<2> = cond.fields[field::TIME_IDS].view().unwrap();
            ids.into_data_as::<f32>().iter::<f32>().take(6).collect()
        };
        Ok([ids(&cond), ids(cond.negative.as_ref().unwrap())])
    }

    #[test]
    fn the_base_network_is_told_sizes_and_the_refiner_a_score() {
        let base = told(10 + 6 * 4).unwrap();
        assert_eq!(base, [[48.0, 64.0, 0.0, 0.0, 48.0, 64.0]; 2]);
        let [positive, negative] = told(10 + 5 * 4).unwrap();
        assert_eq!(positive[..6], [48.0, 64.0, 0.0, 0.0, 6.0, 48.0]);
        assert_eq!(negative[..6], [48.0, 64.0, 0.0, 0.0, 2.5, 48.0]);
        assert!(told(10 + 4 * 4).is_err());
    }

    #[test]
    fn a_network_that_does_not_ask_is_told_nothing() {
        let mut plain = cond();
        tell(&mut plain, &Asking(None), [48, 64]).unwrap();
        assert!(plain.fields.is_empty());
        let sizes = Some(AskedSizes { total: 34, each: 4 });
        assert!(tell(&mut Cond::default(), &Asking(sizes), [48, 64]).is_err());
    }
}
