//! Weights: how a network holds its numbers, and how they are walked, loaded and changed.
//!
//! A [`Weight`] is kept flat beside its shape. Its *stored* form is what files, training, adapters,
//! averaging and quantisation act on; a *prepared* form is derived from it by an explicit step,
//! [`Weight::prepare`], and is dropped by the one function that changes the stored form,
//! [`Weight::set`], so that it can never be stale. An adapter's update is neither: it is
//! [`Added`] beside them, so that copies of a network share their numbers and differ in adapters.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use rayon::prelude::*;
pub use tweedie_kernels::Half;
use tweedie_kernels::{self as kernels, PackedWeight};

use crate::error::{Error, Result};
use crate::random::Key;

mod added;

pub use added::{Added, LowRank};

/// How a weight starts before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Uniform in `-bound..bound`; PyTorch's default for linear and convolution layers is
    /// `bound = 1 / sqrt(fan_in)`, of weight and bias alike.
    Uniform(f64),
    /// Normal of this standard deviation.
    Normal(f64),
}

/// What [`Weight::prepare`] makes of a network's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// Keep an f32 copy of 16-bit weights beside them: faster, three times the memory.
    pub expand: bool,
    /// Pack the weights of layers when they are first used, where the kernels are faster so
    /// ([`PackedWeight`]): in place of the pages of their file, or beside their numbers where these do
    /// not lie in one.
    pub pack: bool,
    /// Pack the matrices of linear layers in 8 bits, where they are large enough
    /// ([`PackedWeight::bytes8`]).
    pub int8: bool,
}

/// The packed form, made on first use.
#[derive(Clone, Debug)]
struct Packing {
    /// None where the kernels have none.
    form: Arc<OnceLock<Option<PackedWeight>>>,
    int8: bool,
}

#[derive(Clone, Debug)]
enum Stored {
    /// Not loaded or drawn yet; reads as its initial constant, or zero.
    Unset,
    /// f32 on some device, tracked in training.
    Plain(Tensor<1>),
    /// 16-bit numbers on the host, lowest byte first; they may lie in a mapped file.
    Bits(Arc<Bytes>, Half),
    /// 16-bit numbers that lie in no file, packed exactly: held once.
    Packed(PackedWeight),
}

/// One parameter tensor of a network.
#[derive(Clone, Debug)]
pub struct Weight {
    shape: Vec<usize>,
    initial: Initial,
    device: Device,
    stored: Stored,
    prepared: Option<Tensor<1>>,
    packing: Option<Packing>,
    added: Vec<Added>,
}

impl Weight {
    /// A weight that is neither loaded nor drawn yet.
    pub fn new(shape: impl Into<Vec<usize>>, initial: Initial, device: &Device) -> Self {
        let shape = shape.into();
        Self {
            shape,
            initial,
            device: device.clone(),
            stored: Stored::Unset,
            prepared: None,
            packing: None,
            added: Vec::new(),
        }
    }

    /// Its shape, as in the file of weights.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Where its numbers are computed with.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its count of numbers.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// How it starts before training.
    pub fn initial(&self) -> Initial {
        self.initial
    }

    /// Bytes of memory that it holds, the prepared form included and what adapters add left out.
    pub fn bytes(&self) -> usize {
        let stored = match &self.stored {
            Stored::Unset => 0,
            Stored::Plain(_) => 4 * self.count(),
            Stored::Bits(bits, _) => bits.len(),
            Stored::Packed(packed) => packed.bytes(),
        };
        let packed = self.packing.as_ref().and_then(|packing| packing.form.get());
        stored
            + self.prepared.as_ref().map_or(0, |_| 4 * self.count())
            + packed.map_or(0, |packed| packed.as_ref().map_or(0, PackedWeight::bytes))
    }

    /// Whether it is stored in 16 bits.
    pub fn is_narrow(&self) -> bool {
        matches!(self.stored, Stored::Bits(..) | Stored::Packed(_))
    }

    /// The numbers in f32, flat, with what adapters add to them; on the autodiff side where they
    /// are tracked.
    pub fn value(&self) -> Tensor<1> {
        let add = |value, added: &Added| value + added.factors.product() * added.scale;
        self.added.iter().fold(self.base(), add)
    }

    /// The numbers without what adapters add.
    fn base(&self) -> Tensor<1> {
        match (&self.prepared, &self.stored) {
            (Some(prepared), _) => prepared.clone(),
            (None, Stored::Plain(x)) => x.clone(),
            (None, Stored::Bits(bits, half)) => self.on_device(expand(bits, *half)),
            (None, Stored::Packed(packed)) => self.on_device(packed.unpack()),
            (None, Stored::Unset) => {
                let fill = if self.initial == Initial::Ones { 1.0 } else { 0.0 };
                self.on_device(vec![fill; self.count()])
            }
        }
    }

    /// The packed form, without what adapters add, for a product with `beside`; made now if this is
    /// its first use. None where the weight is not to be packed, the kernels have no such form, or
    /// gradients flow.
    pub(crate) fn packed<const D: usize>(&self, beside: &Tensor<D>) -> Option<&PackedWeight> {
        if beside.is_autodiff() || beside.dtype() != DType::F32 {
            return None;
        }
        if let Stored::Packed(packed) = &self.stored {
            return Some(packed);
        }
        let packing = self.packing.as_ref()?;
        let make = || {
            let eight = || PackedWeight::bytes8(&self.base(), &self.shape);
            packing.int8.then(eight).flatten().or_else(|| match &self.stored {
                Stored::Bits(bits, half) => {
                    PackedWeight::narrow(bits, *half, &self.shape, &self.device)
                }
                _ => PackedWeight::new(&self.base(), &self.shape),
            })
        };
        packing.form.get_or_init(make).as_ref()
    }

    /// The numbers in their shape, lifted to the autodiff side where `beside` is on it.
    ///
    /// # Panics
    ///
    /// If `D` is not the rank of the weight, which is a bug of the network.
    pub fn tensor<const D: usize, const E: usize>(&self, beside: &Tensor<E>) -> Tensor<D> {
        self.shaped(self.value(), beside)
    }

    /// As [`Weight::tensor`] without what adapters add, for operations that compute
    /// [`Weight::added`] as a path of its own.
    ///
    /// # Panics
    ///
    /// As [`Weight::tensor`].
    pub fn base_tensor<const D: usize, const E: usize>(&self, beside: &Tensor<E>) -> Tensor<D> {
        self.shaped(self.base(), beside)
    }

    fn shaped<const D: usize, const E: usize>(
        &self,
        value: Tensor<1>,
        beside: &Tensor<E>,
    ) -> Tensor<D> {
        let value =
            if beside.is_autodiff() && !value.is_autodiff() { value.autodiff() } else { value };
        let mut shape = [0; D];
        shape.copy_from_slice(&self.shape);
        value.reshape(shape)
    }

    /// The numbers on the host.
    pub fn to_vec(&self) -> Vec<f32> {
        match &self.stored {
            Stored::Bits(bits, half) if self.added.is_empty() => expand(bits, *half),
            Stored::Packed(packed) if self.added.is_empty() => packed.unpack(),
            _ => self.value().without_autodiff().into_data_as::<f32>().iter::<f32>().collect(),
        }
    }

    /// Changes the numbers: the one function that does, for loading, optimisers, adapters and
    /// averages alike. The prepared form goes.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] on another count.
    pub fn set(&mut self, value: Tensor<1>) -> Result<()> {
        let found = value.dims()[0];
        self.check(found)?;
        self.device = value.device();
        self.stored = Stored::Plain(value);
        self.unprepare();
        Ok(())
    }

    /// As [`Weight::set`], from host numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] on another count.
    pub fn set_vec(&mut self, value: Vec<f32>) -> Result<()> {
        self.check(value.len())?;
        let value = self.on_device(value);
        self.set(value)
    }

    /// As [`Weight::set`], kept in 16 bits.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] on another count.
    pub fn set_bits(&mut self, bits: impl AsRef<[u16]>, half: Half) -> Result<()> {
        let bytes: Vec<u8> = bits.as_ref().iter().flat_map(|b| b.to_le_bytes()).collect();
        self.set_bytes(Bytes::from_bytes_vec(bytes), Some(half))
    }

    /// As [`Weight::set`], from bytes as a file holds them, lowest first: in 16 bits, or f32 where
    /// `half` is none. Those of a mapped file are not copied on the CPU: the weight is held once.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] on another count.
    pub fn set_bytes(&mut self, bytes: Bytes, half: Option<Half>) -> Result<()> {
        let width = if half.is_some() { 2 } else { 4 };
        // A last byte too many is another count as well.
        self.check(bytes.len().div_ceil(width))?;
        match half {
            Some(half) => {
                self.stored = Stored::Bits(Arc::new(bytes), half);
                self.unprepare();
                Ok(())
            }
            None => {
                let data = TensorData::from_bytes(bytes, [self.count()], DType::F32);
                let device = self.device.clone().without_autodiff();
                self.set(Tensor::from_data(data, &device))
            }
        }
    }

    /// Derives the form that computation is fast with.
    pub fn prepare(&mut self, plan: &Plan) {
        self.unprepare();
        let packing = Packing { form: Arc::default(), int8: plan.int8 };
        self.packing = (plan.pack || plan.int8).then_some(packing);
        if let Stored::Bits(bits, half) = &self.stored
            && plan.pack
            && !(plan.expand || plan.int8 || kernels::is_mapped(bits))
            && let Some(packed) = PackedWeight::narrow(bits, *half, &self.shape, &self.device)
        {
            self.stored = Stored::Packed(packed);
        }
        if plan.expand
            && let Stored::Bits(..) = self.stored
        {
            self.prepared = Some(self.base());
        }
    }

    /// What adapters add, in the order in which it was added.
    pub fn added(&self) -> &[Added] {
        &self.added
    }

    /// Adds an adapter's update; the stored numbers stay as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the update is one of another shape.
    pub fn add(&mut self, added: Added) -> Result<()> {
        let (down, mid, up) = added.factors.factors();
        LowRank::new(down.clone(), mid.cloned(), up.clone(), &self.shape)?;
        self.added.push(added);
        Ok(())
    }

    /// Takes all updates away.
    pub fn remove_added(&mut self) {
        self.added.clear();
    }

    /// Draws the initial numbers; a function of seed and path alone.
    ///
    /// # Errors
    ///
    /// Never in practice; the count is its own.
    pub fn draw(&mut self, seed: u64, path: &str) -> Result<()> {
        let mut generator = Key::new(seed, INITIAL_STREAM, hash(path)).generator();
        let mut fill = |f: &mut dyn FnMut(f64) -> f64| {
            (0..self.count()).map(|_| f(generator.uniform()) as f32).collect::<Vec<_>>()
        };
        let value = match self.initial {
            Initial::Zeros => fill(&mut |_| 0.0),
            Initial::Ones => fill(&mut |_| 1.0),
            Initial::Uniform(bound) => fill(&mut |u| (2.0 * u - 1.0) * bound),
            Initial::Normal(std) => fill(&mut |u| crate::random::normal_quantile(u) * std),
        };
        self.set_vec(value)
    }

    /// Makes it a leaf that keeps its gradient.
    pub fn track(&mut self) {
        let value = self.base().without_autodiff().autodiff().require_grad();
        self.stored = Stored::Plain(value);
        self.unprepare();
    }

    fn unprepare(&mut self) {
        (self.prepared, self.packing) = (None, None);
    }

    /// Whether it is on the autodiff side.
    pub fn is_autodiff(&self) -> bool {
        matches!(&self.stored, Stored::Plain(value) if value.is_autodiff())
    }

    /// Makes it plain again.
    pub fn untrack(&mut self) {
        if let Stored::Plain(value) = &self.stored {
            self.stored = Stored::Plain(value.clone().without_autodiff());
        }
    }

    fn on_device(&self, value: Vec<f32>) -> Tensor<1> {
        let count = value.len();
        let device = self.device.clone().without_autodiff();
        Tensor::from_data(TensorData::new(value, [count]), &device)
    }

    fn check(&self, found: usize) -> Result<()> {
        if found == self.count() {
            return Ok(());
        }
        Err(Error::Shape {
            what: "numbers of a weight".into(),
            wanted: self.shape.clone(),
            found: vec![found],
        })
    }
}

/// The stream of initial weights.
const INITIAL_STREAM: u64 = 0x1417;

/// Numbers that are widened at once by one thread.
const BLOCK: usize = 1 << 14;

/// 16-bit numbers, lowest byte first, in f32.
fn expand(bytes: &[u8], half: Half) -> Vec<f32> {
    let mut wide = vec![0.0; bytes.len() / 2];
    let blocks = wide.par_chunks_mut(BLOCK).zip(bytes.par_chunks(2 * BLOCK));
    blocks.for_each(|(wide, bytes)| half.widen(bytes, wide));
    wide
}

/// FNV-1a, 64 bits: a path as a number.
fn hash(path: &str) -> u64 {
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    path.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Anything that holds weights: a layer, a block, a network.
///
/// Paths are those of the published files: `down_blocks.0.resnets.1.conv1.weight`. The macro
/// [`parameters`](crate::parameters) writes both walks from a list of fields.
pub trait Parameters {
    /// Visits every weight with its path, in a fixed order.
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight));

    /// As [`Parameters::each`], to change them.
    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight));
}

impl Parameters for Weight {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        visit(path, self);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        visit(path, self);
    }
}

impl<T: Parameters> Parameters for Option<T> {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        if let Some(inner) = self {
            inner.each(path, visit);
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        if let Some(inner) = self {
            inner.each_mut(path, visit);
        }
    }
}

impl<T: Parameters + ?Sized> Parameters for Box<T> {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        (**self).each(path, visit);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        (**self).each_mut(path, visit);
    }
}

impl<T: Parameters> Parameters for Vec<T> {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        for (i, inner) in self.iter().enumerate() {
            inner.each(&join(path, &i.to_string()), visit);
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        for (i, inner) in self.iter_mut().enumerate() {
            inner.each_mut(&join(path, &i.to_string()), visit);
        }
    }
}

/// A path one level down.
pub fn join(path: &str, name: &str) -> String {
    match (path.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

/// Implements [`weight::Parameters`](crate::weight::Parameters) from a list of fields; a field whose name
/// in the file differs is written `"to_out.0" => to_out`.
#[macro_export]
macro_rules! parameters {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    ($type:ty { $($($name:literal =>)? $field:ident),* $(,)? }) => {
        impl $crate::weight::Parameters for $type {
            fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &$crate::weight::Weight)) {
                $(
                    let name = $crate::weight::join(path, $crate::parameters!(@name $field $($name)?));
                    $crate::weight::Parameters::each(&self.$field, &name, visit);
                )*
                let _ = (path, visit);
            }

            fn each_mut(
                &mut self,
                path: &str,
                visit: &mut dyn FnMut(&str, &mut $crate::weight::Weight),
            ) {
                $(
                    let name = $crate::weight::join(path, $crate::parameters!(@name $field $($name)?));
                    $crate::weight::Parameters::each_mut(&mut self.$field, &name, visit);
                )*
                let _ = (path, visit);
            }
        }
    };
}

/// Where weights come from: a file, a set of shards, a checkpoint in memory.
pub trait Source {
    /// Every name, in a fixed order.
    fn names(&self) -> Vec<String>;

    /// The shape of one; `None` where there is none of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The numbers of one.
    ///
    /// # Errors
    ///
    /// What the file has to say.
    fn read(&self, name: &str) -> Result<Numbers>;
}

/// Numbers as a file holds them.
#[derive(Clone, Debug)]
pub enum Numbers {
    /// 32-bit.
    F32(Vec<f32>),
    /// 16-bit.
    Bits(Vec<u16>, Half),
    /// Bytes, lowest first: 16-bit, or 32-bit where no format is given; they may lie in a mapped file.
    Bytes(Bytes, Option<Half>),
}

/// What does not fit between a network and a file, all of it at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    /// Wanted by the network and not in the file.
    pub missing: Vec<String>,
    /// In the file and not wanted.
    pub extra: Vec<String>,
    /// In both with different shapes: name, wanted, found.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Misfit {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.shapes.is_empty()
    }

    /// One line that names the first few of each kind and counts the rest.
    pub fn summary(&self) -> String {
        fn some(what: &str, names: Vec<String>) -> Option<String> {
            let count = names.len();
            let shown = names.into_iter().take(3).collect::<Vec<_>>().join(", ");
            let rest = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
            (count > 0).then(|| format!("{count} {what}: {shown}{rest}"))
        }
        let shapes = self.shapes.iter().map(|(n, w, f)| format!("{n} (wanted {w:?}, found {f:?})"));
        let parts = [
            some("tensors missing", self.missing.clone()),
            some("tensors not wanted", self.extra.clone()),
            some("tensors of another shape", shapes.collect()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Compares what a network wants with what a source has, without reading any numbers.
pub fn misfit(network: &(impl Parameters + ?Sized), source: &dyn Source) -> Misfit {
    let mut misfit = Misfit::default();
    let mut wanted = BTreeSet::new();
    network.each("", &mut |path, weight| {
        wanted.insert(path.to_owned());
        match source.shape(path) {
            None => misfit.missing.push(path.to_owned()),
            Some(found) if found != weight.shape => {
                misfit.shapes.push((path.to_owned(), weight.shape.clone(), found));
            }
            Some(_) => {}
        }
    });
    misfit.extra = source.names().into_iter().filter(|n| !wanted.contains(n)).collect();
    misfit
}

/// Loads every weight of a network.
///
/// # Errors
///
/// [`Error::Setting`] that lists everything missing, extra or of another shape at once; nothing is
/// loaded then. What the source says on reading.
pub fn load(network: &mut (impl Parameters + ?Sized), source: &dyn Source) -> Result<()> {
    let misfit = misfit(network, source);
    if !misfit.is_empty() {
        return Err(Error::setting("weights", misfit.summary()));
    }
    let mut result = Ok(());
    network.each_mut("", &mut |path, weight| {
        if result.is_ok() {
            result = source.read(path).and_then(|numbers| match numbers {
                Numbers::F32(numbers) => weight.set_vec(numbers),
                Numbers::Bits(bits, half) => weight.set_bits(bits, half),
                Numbers::Bytes(bytes, half) => weight.set_bytes(bytes, half),
            });
        }
    });
    result
}

/// Draws the initial numbers of every weight.
///
/// # Errors
///
/// Never in practice.
pub fn draw(network: &mut (impl Parameters + ?Sized), seed: u64) -> Result<()> {
    let mut result = Ok(());
    network.each_mut("", &mut |path, weight| {
        if result.is_ok() {
            result = weight.draw(seed, path);
        }
    });
    result
}

/// Prepares every weight.
pub fn prepare(network: &mut (impl Parameters + ?Sized), plan: &Plan) {
    network.each_mut("", &mut |_, weight| weight.prepare(plan));
}

/// The count of numbers in a network.
pub fn count(network: &(impl Parameters + ?Sized)) -> usize {
    let mut count = 0;
    network.each("", &mut |_, weight| count += weight.count());
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        first: Weight,
        rest: Vec<Weight>,
    }
    crate::parameters!(Pair { "net.0" => first, rest });

    fn pair() -> Pair {
        let device = Device::flex();
        let weight = |n: usize| Weight::new([n, 2], Initial::Uniform(0.5), &device);
        Pair { first: weight(2), rest: vec![weight(1), weight(3)] }
    }

    fn paths(network: &impl Parameters) -> Vec<String> {
        let mut paths = Vec::new();
        network.each("", &mut |path, _| paths.push(path.to_owned()));
        paths
    }

    #[test]
    fn paths_are_those_of_the_file() {
        assert_eq!(paths(&pair()), ["net.0", "rest.0", "rest.1"]);
    }

    #[test]
    fn drawing_depends_on_seed_and_path_alone() {
        let (mut a, mut b) = (pair(), pair());
        draw(&mut a, 3).unwrap();
        b.rest[1].draw(3, "rest.1").unwrap();
        assert_eq!(a.rest[1].to_vec(), b.rest[1].to_vec());
        draw(&mut b, 4).unwrap();
        assert_ne!(a.rest[1].to_vec(), b.rest[1].to_vec());
        assert!(a.first.to_vec().iter().all(|v| v.abs() <= 0.5));
    }

    #[test]
    fn a_prepared_form_never_outlives_a_change() {
        let mut weight = Weight::new([2], Initial::Zeros, &Device::flex());
        let bits: Vec<u16> =
            [1.5_f32, -2.0].iter().map(|&v| half::f16::from_f32(v).to_bits()).collect();
        weight.set_bits(bits, Half::F16).unwrap();
        let plain = weight.bytes();
        weight.prepare(&Plan { expand: true, ..Plan::default() });
        assert!(weight.bytes() > plain);
        assert_eq!(weight.to_vec(), [1.5, -2.0]);
        weight.prepare(&Plan::default());
        assert_eq!((weight.bytes(), weight.to_vec()), (plain, vec![1.5, -2.0]));
        weight.prepare(&Plan { expand: true, ..Plan::default() });
        weight.set_vec(vec![3.0, 4.0]).unwrap();
        assert_eq!(weight.to_vec(), [3.0, 4.0]);
        assert_eq!(
            weight.value().into_data_as::<f32>().iter::<f32>().collect::<Vec<_>>(),
            [3.0, 4.0]
        );
    }

    #[test]
    fn a_wrong_count_is_an_error() {
        let mut weight = Weight::new([2, 3], Initial::Zeros, &Device::flex());
        assert!(weight.set_vec(vec![0.0; 5]).is_err());
    }
}
