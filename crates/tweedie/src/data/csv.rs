//! Tables as comma-separated text, packed with gzip or not.
//!
//! The first row names the columns. [`numbers`] reads a table of numbers in which cells may be
//! missing, such as a multivariate time series; [`text`] reads the cells as they are written.

use std::io::Read;
use std::path::Path;

use super::bytes;
use crate::{Error, Result};

/// How a table is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What stands between the cells of a row; a comma.
    pub delimiter: u8,
    /// Columns that are no numbers (dates, names) and are left out of [`Table`].
    pub skip: Vec<String>,
    /// What a missing cell says, whatever its case; nothing, `na`, `n/a`, `nan`, `null`, `none`
    /// and `?`.
    pub missing: Vec<String>,
    /// The most rows; 50 million.
    pub max_rows: usize,
    /// The most bytes that the file may unpack to; 4 GiB.
    pub max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delimiter: b',',
            skip: Vec::new(),
            missing: ["", "na", "n/a", "nan", "null", "none", "?"].map(String::from).to_vec(),
            max_rows: 50_000_000,
            max_bytes: 4 << 30,
        }
    }
}

/// A table of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The names of the columns that are numbers.
    pub names: Vec<String>,
    /// How many rows there are.
    pub rows: usize,
    /// The numbers, `[rows, names.len()]`; NaN where a cell is missing, and nowhere else.
    pub data: Vec<f64>,
}

impl Table {
    /// Row `i`, `[names.len()]`; `None` beyond the end.
    pub fn row(&self, i: usize) -> Option<&[f64]> {
        let width = self.names.len();
        self.data.get(i.checked_mul(width)?..(i + 1).checked_mul(width)?)
    }

    /// The column of that name, `[rows]`.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is none, with the nearest that exist.
    pub fn column(&self, name: &str) -> Result<Vec<f64>> {
        let at =
            self.names.iter().position(|n| n == name).ok_or_else(|| {
                Error::unknown("column", name, self.names.iter().map(String::as_str))
            })?;
        Ok(self.data.iter().skip(at).step_by(self.names.len()).copied().collect())
    }

    /// How many cells are missing.
    pub fn missing(&self) -> usize {
        self.data.iter().filter(|v| v.is_nan()).count()
    }
}

/// A table of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The names of the columns.
    pub names: Vec<String>,
    /// The cells of each row, as many as there are names.
    pub rows: Vec<Vec<String>>,
}

impl Text {
    /// The cells of the column of that name, `[rows]`.
    pub fn column(&self, name: &str) -> Option<Vec<&str>> {
        let at = self.names.iter().position(|n| n == name)?;
        Some(self.rows.iter().map(|r| r[at].as_str()).collect())
    }
}

/// Reads a table of numbers.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Unknown`] if a column in `skip` does not
/// exist; [`Error::Format`] if a cell is neither a finite number nor missing, if a row has another
/// number of cells than the header, if a column's name is empty or stands twice, if no column is
/// left, or if the file is damaged or beyond the limits.
pub fn numbers(path: &Path, options: &Options) -> Result<Table> {
    let mut rows = Rows::open(path, options)?;
    let known = || rows.names.iter().map(String::as_str);
    if let Some(skip) = options.skip.iter().find(|s| !rows.names.contains(s)) {
        return Err(Error::unknown("column", skip, known()));
    }
    let kept: Vec<usize> =
        (0..rows.names.len()).filter(|i| !options.skip.contains(&rows.names[*i])).collect();
    if kept.is_empty() {
        return Err(Error::format(path, "", "has no columns of numbers"));
    }
    let names = kept.iter().map(|i| rows.names[*i].clone()).collect();
    let mut table = Table { names, rows: 0, data: Vec::new() };
    while let Some((row, cells)) = rows.next()? {
        for (&i, name) in kept.iter().zip(&table.names) {
            table.data.push(number(&cells[i], options).ok_or_else(|| {
                let why = format!("`{}` in column `{name}` is not a number", &cells[i]);
                Error::format(path, format!("row {row}"), why)
            })?);
        }
        table.rows += 1;
    }
    Ok(table)
}

/// Reads a table of text. [`Options::skip`] and [`Options::missing`] play no part.
///
/// # Errors
/// As [`numbers`], except for what cells say.
pub fn text(path: &Path, options: &Options) -> Result<Text> {
    let mut rows = Rows::open(path, options)?;
    let mut table = Text { names: rows.names.clone(), rows: Vec::new() };
    while let Some((_, cells)) = rows.next()? {
        table.rows.push(cells.iter().map(str::to_owned).collect());
    }
    Ok(table)
}

/// A cell as a number, NaN if it is missing, nothing if it is something else.
fn number(cell: &str, options: &Options) -> Option<f64> {
    let cell = cell.trim();
    if options.missing.iter().any(|m| m.eq_ignore_ascii_case(cell)) {
        return Some(f64::NAN);
    }
    cell.parse().ok().filter(|v: &f64| v.is_finite())
}

/// A file that is gone through row by row.
struct Rows<'a> {
    path: &'a Path,
    names: Vec<String>,
    from: csv::Reader<Bounded<Box<dyn Read>>>,
    cells: csv::StringRecord,
    /// The row that was read last; the header is row 1.
    row: usize,
    options: &'a Options,
}

impl<'a> Rows<'a> {
    /// Opens a file and reads the names of its columns.
    fn open(path: &'a Path, options: &'a Options) -> Result<Self> {
        let mut from = csv::ReaderBuilder::new()
            .delimiter(options.delimiter)
            .trim(csv::Trim::Headers)
            .from_reader(Bounded { from: bytes::open(path)?, left: options.max_bytes });
        let header = from.headers().map_err(|e| wrong(path, 1, e))?;
        // Some programs begin a UTF-8 file with a mark that is not part of the first name.
        let names: Vec<String> =
            header.iter().map(|n| n.trim_start_matches('\u{feff}').to_owned()).collect();
        if names.is_empty() {
            return Err(Error::format(path, "", "is empty where a row of column names was wanted"));
        }
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() || names[..i].contains(name) {
                let why = format!("column {} is called `{name}`, wanted a name of its own", i + 1);
                return Err(Error::format(path, "row 1", why));
            }
        }
        let cells = csv::StringRecord::new();
        Ok(Self { path, names, from, cells, row: 1, options })
    }

    /// The next row with its number, if there is one.
    fn next(&mut self) -> Result<Option<(usize, &csv::StringRecord)>> {
        self.row += 1;
        if !self.from.read_record(&mut self.cells).map_err(|e| wrong(self.path, self.row, e))? {
            return Ok(None);
        }
        if self.row - 1 > self.options.max_rows {
            let why = format!("has more than {} rows", self.options.max_rows);
            return Err(Error::format(self.path, "", why));
        }
        Ok(Some((self.row, &self.cells)))
    }
}

/// Says what is wrong with a file in our own terms.
fn wrong(path: &Path, row: usize, error: csv::Error) -> Error {
    let row = format!("row {row}");
    match error.into_kind() {
        csv::ErrorKind::Io(source) => bytes::blame(path, source),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let why = format!("has {len} cells, the header has {expected_len}");
            Error::format(path, row, why)
        }
        csv::ErrorKind::Utf8 { .. } => Error::format(path, row, "is not UTF-8"),
        kind => Error::format(path, row, format!("{kind:?}")),
    }
}

/// A reader that fails, and does not merely end, beyond a number of bytes.
struct Bounded<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            let why = "it unpacks to more bytes than the limit";
            std::io::Error::new(std::io::ErrorKind::InvalidData, why)
        })?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(data: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), data).unwrap();
        file
    }

    fn said(data: &[u8], options: &Options) -> String {
        numbers(file(data).path(), options).unwrap_err().to_string()
    }

    fn without(names: &[&str]) -> Options {
        Options { skip: names.iter().map(|n| (*n).to_owned()).collect(), ..Options::default() }
    }

    const SERIES: &[u8] = b"\xef\xbb\xbfdate, a,b\r\n2016-07-01,1.5,-2e3\r\n\"x, y\", NaN ,\r\n";

    #[test]
    fn numbers_with_gaps_packed_or_not() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(SERIES).unwrap();
        for data in [SERIES.to_vec(), gz.finish().unwrap()] {
            let t = numbers(file(&data).path(), &without(&["date"])).unwrap();
            assert_eq!((t.names.join(" ").as_str(), t.rows, t.missing()), ("a b", 2, 2));
            assert_eq!(t.row(0), Some(&[1.5, -2000.0][..]));
            assert!(t.row(1).unwrap().iter().all(|v| v.is_nan()));
            assert_eq!(t.row(2), None);
            assert_eq!(t.column("b").unwrap()[0], -2000.0);
            assert_eq!(t.column("c").unwrap_err().to_string(), "no column is called `c`");
        }
    }

    #[test]
    fn what_is_not_a_table_is_named_with_its_row() {
        let plain = Options::default();
        let dates = said(SERIES, &plain);
        assert!(dates.contains("`row 2`: `2016-07-01` in column `date`"), "{dates}");
        assert!(said(b"a\n1\ninf\n", &plain).contains("`row 3`: `inf` in column `a`"));
        assert!(said(b"a,b\n1,2\n3\n", &plain).contains("`row 3`: has 1 cells, the header has 2"));
        assert!(said(b"a,a\n1,2\n", &plain).contains("column 2 is called `a`"));
        assert!(said(b"a,\n1,2\n", &plain).contains("column 2 is called ``"));
        assert!(said(b"", &plain).contains("is empty"));
        assert!(said(b"date\nx\n", &without(&["date"])).contains("no columns of numbers"));
        assert!(said(b"date\nx\n", &without(&["dates"])).contains("did you mean `date`"));
        assert!(said(b"a\n\xff\n", &plain).contains("is not UTF-8"));
        assert!(
            said(b"a\n1\n2\n", &Options { max_rows: 1, ..plain.clone() }).contains("more than 1")
        );
        assert!(said(b"a\n1\n2\n", &Options { max_bytes: 5, ..plain }).contains("than the limit"));
    }

    #[test]
    fn text_is_kept_as_it_is_written() {
        let t = text(file(b"file_name,text\na.png,\"one, two\n\"\n").path(), &Options::default());
        assert_eq!(t.unwrap().column("text").unwrap(), ["one, two\n"]);
    }

    #[test]
    fn the_real_tables_are_read() {
        let ett = crate::data_or_skip!("ett");
        let t = numbers(&ett.join("ETTh1.csv.gz"), &without(&["date"])).unwrap();
        assert_eq!((t.rows, t.names.len(), t.missing()), (17_420, 7, 0));
        let rates = crate::data_or_skip!("exchange-rates");
        let path = rates.join("daily.csv.gz");
        let names = text(&path, &Options::default()).unwrap().names;
        let t = numbers(&path, &without(&[&names[0]])).unwrap();
        assert_eq!((t.rows, t.names.len()), (12_240, 34));
        assert_eq!(t.data.len() - t.missing(), 217_806, "the number of cells that are filled");
    }
}
