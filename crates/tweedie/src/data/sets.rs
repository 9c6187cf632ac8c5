//! Public data sets by name: what they hold, where they come from, their checksums.

use std::path::Path;

use super::{Images, idx, root};
use crate::{Error, Result};

/// A public data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Its name, which is also its folder's.
    pub name: &'static str,
    /// What it holds, in a phrase.
    pub about: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// Where its authors present it.
    pub home: &'static str,
    /// Its files.
    pub files: &'static [File],
    /// What its classes are called, in the order of the labels.
    pub classes: &'static [&'static str],
}

/// A file of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its name in the folder of the set.
    pub name: &'static str,
    /// How many bytes it has.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub sha256: &'static str,
    /// Addresses that it can be fetched from, tried in this order. The checksum decides, so that
    /// it does not matter who serves them.
    pub from: &'static [&'static str],
}

/// Which part of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The pictures to train on.
    Train,
    /// The pictures that nothing is trained on.
    Test,
}

impl Split {
    fn prefix(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "t10k",
        }
    }
}

/// All sets that are known by name.
pub const SETS: &[Set] = &[FASHION_MNIST, MNIST];

/// 60,000 + 10,000 grey pictures of clothes, 28x28 (Xiao, Rasul and Vollgraf 2017,
/// arXiv:1708.07747).
pub const FASHION_MNIST: Set = Set {
    name: "fashion-mnist",
    about: "60,000 + 10,000 grey pictures of clothes, 28x28, 10 classes",
    licence: "MIT",
    home: "https://github.com/zalandoresearch/fashion-mnist",
    classes: &[
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ],
    files: &[
        File {
            name: "train-images-idx3-ubyte.gz",
            bytes: 26_421_880,
            sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            from: &[
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-images-idx3-ubyte.gz",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
            ],
        },
        File {
            name: "train-labels-idx1-ubyte.gz",
            bytes: 29_515,
            sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            from: &[
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-labels-idx1-ubyte.gz",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
            ],
        },
        File {
            name: "t10k-images-idx3-ubyte.gz",
            bytes: 4_422_102,
            sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            from: &[
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-images-idx3-ubyte.gz",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz",
            ],
        },
        File {
            name: "t10k-labels-idx1-ubyte.gz",
            bytes: 5_148,
            sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            from: &[
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-labels-idx1-ubyte.gz",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
            ],
        },
    ],
};

/// 60,000 + 10,000 grey pictures of written digits, 28x28 (LeCun, Bottou, Bengio and Haffner
/// 1998).
pub const MNIST: Set = Set {
    name: "mnist",
    about: "60,000 + 10,000 grey pictures of written digits, 28x28, 10 classes",
    licence: "CC BY-SA 3.0",
    home: "http://yann.lecun.com/exdb/mnist/",
    classes: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    files: &[
        File {
            name: "train-images-idx3-ubyte.gz",
            bytes: 9_912_422,
            sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            from: &[
                "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
                "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
            ],
        },
        File {
            name: "train-labels-idx1-ubyte.gz",
            bytes: 28_881,
            sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            from: &[
                "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
                "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
            ],
        },
        File {
            name: "t10k-images-idx3-ubyte.gz",
            bytes: 1_648_877,
            sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            from: &[
                "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz",
                "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
            ],
        },
        File {
            name: "t10k-labels-idx1-ubyte.gz",
            bytes: 4_542,
            sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            from: &[
                "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
                "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
            ],
        },
    ],
};

/// The set of that name.
///
/// # Errors
/// [`Error::Unknown`] with the nearest names.
pub fn named(name: &str) -> Result<&'static Set> {
    let known = || SETS.iter().map(|s| s.name);
    let found = SETS.iter().find(|s| s.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| Error::unknown("data set", name, known()))
}

/// One split of a set, with labels and the names of the classes, from where [`root`] finds it.
///
/// # Errors
/// [`Error::Setting`] if the set is not on this machine (the message says how to get it); those
/// of [`idx::images`].
pub fn load(set: &Set, split: Split) -> Result<Images> {
    let folder =
        root::find(set.name).ok_or_else(|| Error::setting("data", root::absent(set.name)))?;
    load_from(set, &folder, split)
}

/// One split of a set, from the folder that holds its files.
///
/// # Errors
/// Those of [`idx::images`].
pub fn load_from(set: &Set, folder: &Path, split: Split) -> Result<Images> {
    let split = split.prefix();
    let pictures = folder.join(format!("{split}-images-idx3-ubyte.gz"));
    let labels = folder.join(format!("{split}-labels-idx1-ubyte.gz"));
    let mut images = idx::images(&pictures, Some(&labels))?;
    let numbers = images.labels.take().unwrap_or_default();
    images.with_labels(numbers, set.classes.iter().map(|c| (*c).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fetch::verify;

    #[test]
    fn the_table_is_sound() {
        for set in SETS {
            assert_eq!(named(set.name).unwrap(), set);
            for file in set.files {
                assert_eq!(file.sha256.len(), 64);
                assert!(
                    file.sha256.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
                );
                assert!(!file.from.is_empty() && file.from.iter().all(|a| a.ends_with(file.name)));
            }
        }
        let said = named("fashion").unwrap_err().to_string();
        assert!(said.contains("did you mean `fashion-mnist`?"), "{said}");
    }

    #[test]
    fn the_real_sets_are_as_published() {
        for set in SETS {
            let folder = crate::data_or_skip!(set.name);
            verify(set, &folder).unwrap();
            for (split, n) in [(Split::Train, 60_000), (Split::Test, 10_000)] {
                let images = load_from(set, &folder, split).unwrap();
                assert_eq!((images.n, images.shape()), (n, [1, 28, 28]));
                assert_eq!(images.class_count(), 10);
                let labels = images.labels.as_ref().unwrap();
                if set.name == "fashion-mnist" {
                    let each = |c| labels.iter().filter(|l| **l == c).count();
                    assert!((0..10).all(|c| each(c) == n / 10), "classes are balanced");
                }
                let padded = images.padded(32, 32, 0).unwrap();
                assert_eq!(padded.stride(), 1024);
                assert_eq!(padded.cropped(28, 28).unwrap(), images);
            }
        }
    }
}
