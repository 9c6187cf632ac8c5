//! Contact sheets: many pictures with their labels on one page.

use font8x8::UnicodeFonts;

use crate::data::Images;
use crate::error::{Error, Result};

/// One picture of a sheet and what is written below it.
#[derive(Clone, Debug)]
pub struct Panel {
    /// A set that holds the picture.
    pub image: Images,
    /// Which one of the set.
    pub index: usize,
    /// What is written below; broken at spaces to the width of the picture.
    pub label: String,
}

/// How a sheet is laid out.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// What stands at the head.
    pub title: String,
    /// Pictures in a row.
    pub columns: usize,
    /// How many times a pixel is repeated each way, so that small pictures can be seen.
    pub zoom: usize,
    /// Lines of label below each picture.
    pub label_lines: usize,
}

const PAPER: [u8; 3] = [250, 249, 246];
const INK: [u8; 3] = [38, 40, 46];
const FAINT: [u8; 3] = [120, 122, 130];
const GAP: usize = 14;
const GLYPH: usize = 8;
const LINE: usize = 11;

impl Sheet {
    /// Lays the panels out.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where there is nothing to lay out, a picture does not exist or the page
    /// would be larger than 16,384 pixels a side.
    pub fn draw(&self, panels: &[Panel]) -> Result<Images> {
        let (columns, zoom) = (self.columns.max(1), self.zoom.max(1));
        let cell = |f: fn(&Images) -> usize| panels.iter().map(|p| f(&p.image)).max().unwrap_or(0);
        let (width, height) = (cell(|i| i.width) * zoom, cell(|i| i.height) * zoom);
        let rows = panels.len().div_ceil(columns);
        let head = if self.title.is_empty() { 0 } else { 2 * LINE + GAP };
        let label = self.label_lines * LINE + if self.label_lines > 0 { 4 } else { 0 };
        let page_width = GAP + columns * (width + GAP);
        let page_height = GAP + head + rows * (height + label + GAP);
        if panels.is_empty() || page_width.max(page_height) > 16_384 {
            let why =
                format!("{} pictures make a page of {page_width}x{page_height}", panels.len());
            return Err(Error::setting("sheet", why));
        }
        let mut page = Page::new(page_width, page_height);
        page.text(GAP, GAP, &self.title, INK, 2, page_width - 2 * GAP);
        for (i, panel) in panels.iter().enumerate() {
            let x = GAP + i % columns * (width + GAP);
            let y = GAP + head + i / columns * (height + label + GAP);
            page.picture(x, y, panel, zoom)?;
            let fits = (width / GLYPH).max(1);
            for (line, text) in broken(&panel.label, fits, self.label_lines).iter().enumerate() {
                page.text(x, y + height + 4 + line * LINE, text, FAINT, 1, width);
            }
        }
        Images::new([1, 3, page_height, page_width], page.planes)
    }
}

/// A text broken at spaces into lines of at most `fits` characters; what is left over ends in dots.
fn broken(text: &str, fits: usize, lines: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word: String = word.chars().take(fits).collect();
        match out.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= fits => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => out.push(word),
        }
    }
    if out.len() > lines {
        out.truncate(lines);
        if let Some(last) = out.last_mut() {
            *last = last.chars().take(fits.saturating_sub(2)).collect::<String>() + "..";
        }
    }
    out
}

struct Page {
    width: usize,
    height: usize,
    planes: Vec<u8>,
}

impl Page {
    fn new(width: usize, height: usize) -> Self {
        let planes = PAPER.iter().flat_map(|&v| std::iter::repeat_n(v, width * height)).collect();
        Self { width, height, planes }
    }

    fn put(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            for (c, v) in colour.into_iter().enumerate() {
                self.planes[(c * self.height + y) * self.width + x] = v;
            }
        }
    }

    fn picture(&mut self, x0: usize, y0: usize, panel: &Panel, zoom: usize) -> Result<()> {
        let image = &panel.image;
        let Some(planes) = image.get(panel.index) else {
            let why = format!("picture {} of {} was asked for", panel.index, image.n);
            return Err(Error::setting("sheet", why));
        };
        let size = image.height * image.width;
        for y in 0..image.height * zoom {
            for x in 0..image.width * zoom {
                let at = y / zoom * image.width + x / zoom;
                let of = |c: usize| planes[c.min(image.channels - 1) * size + at];
                self.put(x0 + x, y0 + y, [of(0), of(1), of(2)]);
            }
        }
        Ok(())
    }

    fn text(
        &mut self,
        x0: usize,
        y0: usize,
        text: &str,
        colour: [u8; 3],
        scale: usize,
        room: usize,
    ) {
        let fits = room / (GLYPH * scale);
        for (i, c) in text.chars().take(fits).enumerate() {
            let glyph = font8x8::BASIC_FONTS.get(c).or_else(|| font8x8::LATIN_FONTS.get(c));
            let Some(glyph) = glyph.or_else(|| font8x8::BASIC_FONTS.get('?')) else { continue };
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..GLYPH).filter(|c| bits >> c & 1 == 1) {
                    for (dy, dx) in (0..scale * scale).map(|k| (k / scale, k % scale)) {
                        let x = x0 + (i * GLYPH + column) * scale + dx;
                        self.put(x, y0 + row * scale + dy, colour);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_shows_every_picture_and_label() {
        let panel = |v: u8, label: &str| Panel {
            image: Images::new([1, 1, 4, 4], vec![v; 16]).unwrap(),
            index: 0,
            label: label.into(),
        };
        let sheet = Sheet { title: "two".into(), columns: 2, zoom: 8, label_lines: 2 };
        let page = sheet.draw(&[panel(10, "one"), panel(200, "")]).unwrap();
        assert_eq!(page.width, GAP + 2 * (32 + GAP));
        for v in [10, 200] {
            assert_eq!(page.data.iter().filter(|&&p| p == v).count(), 3 * 32 * 32, "{v}");
        }
        assert!(page.data.contains(&FAINT[0]) && page.data.contains(&INK[0]));
        assert!(sheet.draw(&[]).is_err());
    }

    #[test]
    fn labels_break_at_spaces() {
        assert_eq!(broken("a large red circle", 8, 3), ["a large", "red", "circle"]);
        assert_eq!(broken("a large red circle", 8, 2), ["a large", "red.."]);
    }
}
