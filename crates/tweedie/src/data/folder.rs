//! A folder of PNG and JPEG pictures.
//!
//! Three layouts are known, those that the field uses:
//! - a table beside the pictures (`metadata.csv`, `captions.csv` or `labels.csv`) with a column
//!   `file_name` and a column `text` (or `caption`), `label`, or both;
//! - one folder for each class (`cats/1.png`, `dogs/1.png`): the classes are the sorted names;
//! - pictures alone.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use super::picture::{self, Limits, Target};
use super::{Images, csv};
use crate::{Error, Result};

/// The tables that are looked for, in this order.
const TABLES: [&str; 3] = ["metadata.csv", "captions.csv", "labels.csv"];

/// How the pictures of a folder are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What every picture is brought to; without a size they must be of one size.
    pub target: Target,
    /// What a picture may cost.
    pub limits: Limits,
    /// The most bytes that the whole set may take in memory; 8 GiB.
    pub max_total: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { target: Target::default(), limits: Limits::default(), max_total: 8 << 30 }
    }
}

/// One picture that the folder lists.
struct Entry {
    file: PathBuf,
    label: Option<u32>,
    caption: Option<String>,
}

/// Reads a folder of pictures, sorted by path (with a table: in the table's order).
///
/// Hidden files and files that do not end in `.png`, `.jpg` or `.jpeg` are passed over. Pictures
/// are turned as their EXIF orientation says.
///
/// # Errors
/// [`Error::Io`] if the folder or a file cannot be read; [`Error::Format`] if there are no
/// pictures, if pictures stand beside class folders, if a picture is damaged, beyond the limits
/// or (without a size in the target) of another size than the first, or if the table names files
/// that are not there; [`Error::Setting`] if an option makes no sense.
pub fn read(dir: &Path, options: &Options) -> Result<Images> {
    let Options { target, limits, max_total } = options;
    target.check(limits)?;
    let (entries, classes) = list(dir)?;
    let Some(first) = entries.first() else {
        return Err(Error::format(dir, "", "has no PNG or JPEG pictures"));
    };
    let (height, width) = match target.size {
        Some(size) => size,
        None => picture::dimensions(&first.file, limits)?,
    };
    let shape = [entries.len(), target.channels, height, width];
    let total = shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
    let Some(total) = total.filter(|t| *t as u64 <= *max_total) else {
        let why = format!("holds {shape:?} bytes, the limit is {max_total}");
        return Err(Error::format(dir, "", why));
    };
    let mut data = vec![0; total];
    // Every picture is decoded on its own into its own place; of several errors the first one in
    // the list is told, so that the answer does not depend on the number of threads.
    let outcomes: Vec<Result<()>> = data
        .par_chunks_mut(total / entries.len())
        .zip(&entries)
        .map(|(out, entry)| picture::decode(&entry.file, (height, width), target, limits, out))
        .collect();
    outcomes.into_iter().collect::<Result<()>>()?;

    let set = Images::new(shape, data)?;
    let set = match entries.iter().map(|e| e.label).collect::<Option<Vec<_>>>() {
        Some(labels) => set.with_labels(labels, classes)?,
        None => set,
    };
    match entries.into_iter().map(|e| e.caption).collect::<Option<Vec<_>>>() {
        Some(captions) => set.with_captions(captions),
        None => Ok(set),
    }
}

/// The pictures of a folder and the names of its classes.
fn list(dir: &Path) -> Result<(Vec<Entry>, Vec<String>)> {
    for name in TABLES {
        let path = dir.join(name);
        if path.try_exists().map_err(Error::io(&path))? {
            return from_table(dir, &path);
        }
    }
    let (files, folders) = children(dir)?;
    if folders.is_empty() {
        let entries = files.into_iter().map(|file| Entry { file, label: None, caption: None });
        return Ok((entries.collect(), Vec::new()));
    }
    if let Some(file) = files.first() {
        let why = "stands beside class folders; give every picture a class or none";
        return Err(Error::format(file, "", why));
    }
    let mut entries = Vec::new();
    let mut classes = Vec::new();
    for folder in folders {
        let (files, below) = children(&folder)?;
        if let Some(deeper) = below.first() {
            return Err(Error::format(deeper, "", "is a folder inside a class folder"));
        }
        if files.is_empty() {
            return Err(Error::format(&folder, "", "has no PNG or JPEG pictures"));
        }
        let label = Some(classes.len() as u32);
        entries.extend(files.into_iter().map(|file| Entry { file, label, caption: None }));
        classes.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    Ok((entries, classes))
}

/// The pictures and the folders in `dir`, each sorted by name.
fn children(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            folders.push(path);
        } else if is_picture(&path) {
            files.push(path);
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

fn is_picture(path: &Path) -> bool {
    let end = path.extension().unwrap_or_default().to_ascii_lowercase();
    end == "png" || end == "jpg" || end == "jpeg"
}

/// The pictures that a table names. Labels are numbers, or names that are numbered in order.
fn from_table(dir: &Path, path: &Path) -> Result<(Vec<Entry>, Vec<String>)> {
    let table = csv::text(path, &csv::Options::default())?;
    let column = |names: &[&str]| names.iter().find_map(|n| table.column(n));
    let Some(files) = column(&["file_name", "file"]) else {
        return Err(Error::format(path, "file_name", "is not among the columns"));
    };
    let labels = column(&["label", "class"]);
    let captions = column(&["text", "caption"]);
    if labels.is_none() && captions.is_none() {
        let why = "has neither a column `text` (or `caption`) nor a column `label`";
        return Err(Error::format(path, "", why));
    }
    let names: BTreeSet<&str> = labels.iter().flatten().copied().collect();
    let numbered = names.iter().all(|n| n.parse::<u32>().is_ok());
    let classes: Vec<&str> = if numbered { Vec::new() } else { names.into_iter().collect() };
    let number = |name: &str| match name.parse() {
        Ok(label) if numbered => Some(label),
        _ => classes.binary_search(&name).ok().map(|i| i as u32),
    };
    let mut entries = Vec::with_capacity(files.len());
    for (row, name) in files.iter().enumerate() {
        let at = || format!("row {}", row + 2);
        let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if name.is_empty() || !inside {
            let why = format!("`{name}` is not the name of a file in the folder");
            return Err(Error::format(path, at(), why));
        }
        let file = dir.join(name);
        if !is_picture(&file) || !file.is_file() {
            let why = format!("there is no PNG or JPEG picture `{name}` in the folder");
            return Err(Error::format(path, at(), why));
        }
        let label = labels.as_ref().and_then(|l| number(l[row]));
        let caption = captions.as_ref().map(|c| c[row].to_owned());
        entries.push(Entry { file, label, caption });
    }
    Ok((entries, classes.into_iter().map(String::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn at(&self, name: &str) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }
        fn rgb(&self, name: &str, w: u32, h: u32, f: impl Fn(u32, u32) -> [u8; 3]) {
            RgbImage::from_fn(w, h, |x, y| Rgb(f(x, y))).save(self.at(name)).unwrap();
        }
        fn read(&self, options: &Options) -> Result<Images> {
            read(self.0.path(), options)
        }
        fn said(&self, options: &Options) -> String {
            self.read(options).unwrap_err().to_string()
        }
    }

    fn sized(height: usize, width: usize) -> Options {
        let target = Target { size: Some((height, width)), channels: 3 };
        Options { target, ..Options::default() }
    }

    #[test]
    fn pictures_are_planar_and_sorted() {
        let dir = Dir::new();
        dir.rgb("b.png", 3, 2, |x, y| [x as u8, y as u8, 200]);
        dir.rgb("a.PNG", 3, 2, |_, _| [1, 2, 3]);
        dir.rgb(".hidden.png", 9, 9, |_, _| [0; 3]);
        std::fs::write(dir.at("notes.txt"), "no picture").unwrap();
        let set = dir.read(&Options::default()).unwrap();
        assert_eq!((set.n, set.shape()), (2, [3, 2, 3]));
        assert_eq!(set.get(0).unwrap()[..7], [1, 1, 1, 1, 1, 1, 2]);
        assert_eq!(set.get(1).unwrap()[..12], [0, 1, 2, 0, 1, 2, 0, 0, 0, 1, 1, 1]);
        assert_eq!((set.labels, set.captions), (None, None));
    }

    #[test]
    fn the_order_is_that_of_the_names_whatever_the_system_says() {
        // Written in an order of their own, and enough of them that a folder's own order is not
        // theirs by chance.
        let dir = Dir::new();
        for i in 0..40_u16 {
            let k = (i * 7 % 40) as u8;
            dir.rgb(&format!("class{:02}/{:02}.png", k % 4, k), 1, 1, |_, _| [k; 3]);
        }
        let set = dir.read(&Options::default()).unwrap();
        let found: Vec<u8> = set.data.iter().step_by(3).copied().collect();
        let wanted: Vec<u8> = (0..4).flat_map(|c| (0..10).map(move |i| 4 * i + c)).collect();
        assert_eq!(found, wanted);
        assert_eq!(set.labels.unwrap(), (0..40).map(|i| i / 10).collect::<Vec<u32>>());
    }

    #[test]
    fn grey_pictures_stay_exact_and_colour_becomes_luma() {
        let dir = Dir::new();
        GrayImage::from_fn(4, 4, |x, y| Luma([(40 * x + y) as u8])).save(dir.at("a.png")).unwrap();
        dir.rgb("b.png", 4, 4, |_, _| [255, 255, 255]);
        let set = dir
            .read(&Options { target: Target { size: None, channels: 1 }, ..Options::default() })
            .unwrap();
        assert_eq!(set.get(0).unwrap()[..5], [0, 40, 80, 120, 1]);
        assert_eq!(set.get(1).unwrap()[0], 255);
    }

    #[test]
    fn classes_are_the_sorted_folders() {
        let dir = Dir::new();
        for name in ["dogs/1.png", "cats/2.png", "cats/1.png"] {
            dir.rgb(name, 2, 2, |_, _| [name.len() as u8; 3]);
        }
        let set = dir.read(&Options::default()).unwrap();
        assert_eq!(set.labels, Some(vec![0, 0, 1]));
        assert_eq!(set.classes, ["cats", "dogs"]);
        dir.rgb("loose.png", 2, 2, |_, _| [0; 3]);
        assert!(dir.said(&Options::default()).contains("loose.png: stands beside class folders"));
        std::fs::remove_file(dir.at("loose.png")).unwrap();
        std::fs::create_dir(dir.at("empty")).unwrap();
        assert!(dir.said(&Options::default()).contains("empty: has no PNG"));
        std::fs::create_dir(dir.at("cats/deep")).unwrap();
        assert!(dir.said(&Options::default()).contains("inside a class folder"));
    }

    #[test]
    fn a_table_gives_order_captions_and_labels() {
        let dir = Dir::new();
        for name in ["a.png", "b.png", "sub/c.png"] {
            dir.rgb(name, 2, 2, |_, _| [name.as_bytes()[0]; 3]);
        }
        let table = |text: &str| std::fs::write(dir.at("metadata.csv"), text).unwrap();
        table("file_name,text,label\nb.png,\"a dog, wet\",dog\nsub/c.png,,cat\na.png,x,dog\n");
        let set = dir.read(&Options::default()).unwrap();
        assert_eq!(set.get(0).unwrap()[0], b'b');
        assert_eq!(set.captions.unwrap(), ["a dog, wet", "", "x"]);
        assert_eq!(
            (set.labels, set.classes),
            (Some(vec![1, 0, 1]), vec!["cat".into(), "dog".into()])
        );
        table("file_name,label\na.png,10\nb.png,2\n");
        let set = dir.read(&Options::default()).unwrap();
        assert_eq!((set.labels, set.classes.len()), (Some(vec![10, 2]), 0), "numbers stay");
        table("file_name,text\n../a.png,x\n");
        assert!(dir.said(&Options::default()).contains("`row 2`: `../a.png` is not the name"));
        table("file_name,text\na.png,x\nz.png,x\n");
        assert!(dir.said(&Options::default()).contains("`row 3`: there is no PNG"));
        table("name,text\na.png,x\n");
        assert!(dir.said(&Options::default()).contains("`file_name`: is not among the columns"));
        table("file_name\na.png\n");
        assert!(dir.said(&Options::default()).contains("has neither"));
    }

    #[test]
    fn sizes_must_agree_unless_one_is_given() {
        let dir = Dir::new();
        dir.rgb("a.png", 4, 4, |_, _| [0; 3]);
        dir.rgb("b.png", 5, 4, |_, _| [0; 3]);
        assert!(dir.said(&Options::default()).contains("b.png: is 5x4, the first picture is 4x4"));
        assert_eq!(dir.read(&sized(4, 4)).unwrap().n, 2);
        let tight = Options { max_total: 2 * 3 * 16 - 1, ..sized(4, 4) };
        assert!(dir.said(&tight).contains("the limit is 95"));
        std::fs::write(dir.at("b.png"), "no picture").unwrap();
        assert!(dir.said(&sized(4, 4)).contains("b.png: "));
    }

    #[test]
    fn a_folder_without_pictures_is_named() {
        let dir = Dir::new();
        assert!(dir.said(&Options::default()).contains("has no PNG or JPEG pictures"));
        assert!(matches!(read(&dir.at("none"), &Options::default()), Err(Error::Io { .. })));
    }

    #[test]
    fn real_photographs_are_read() {
        let kodak = crate::data_or_skip!("kodak24");
        let set = read(&kodak, &sized(48, 64)).unwrap();
        assert_eq!((set.n, set.shape()), (24, [3, 48, 64]));
        // Some stand and some lie, so that they cannot be read without a size.
        assert!(read(&kodak, &Options::default()).is_err());
        // Resizing keeps the mean of a photograph that is cut to its own proportion.
        let whole = image::open(kodak.join("kodim01.png")).unwrap().into_rgb8();
        let mean = |d: &[u8]| d.iter().map(|b| f64::from(*b)).sum::<f64>() / d.len() as f64;
        let small = read(&kodak, &sized(64, 96)).unwrap();
        let apart = mean(&whole) - mean(small.get(0).unwrap());
        assert!(apart.abs() < 0.5, "{apart}");
    }
}
