//! Curves as SVG: loss over steps, distance over evaluations, accuracy over noise.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::{Error, Result};

/// How an axis is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Equal steps for equal differences.
    #[default]
    Linear,
    /// Equal steps for equal factors. Points at 0 and below cannot be drawn and are left out.
    Log,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// How it is drawn.
    pub scale: Scale,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Linear }
    }

    /// A logarithmic axis.
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log }
    }

    fn shows(&self, v: f64) -> bool {
        v.is_finite() && (self.scale == Scale::Linear || v > 0.0)
    }
}

/// A plot of curves that share their axes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plot {
    /// What stands above it.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The curves: a name and the points `(x, y)`, joined in this order.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
    /// Dashed horizontal lines: noise floors, bars to be reached.
    pub levels: Vec<(String, f64)>,
}

/// Width and height of a plot.
const SIZE: (u32, u32) = (760, 460);

/// Colours that people with the usual colour deficiencies tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// Draws a plot and returns it as the text of an SVG file, which needs no fonts here and is the
/// same on every machine.
///
/// Values that are not finite, or not positive on a logarithmic axis, are left out and the curve
/// is interrupted there. A curve of up to 40 points shows them as dots.
///
/// # Errors
/// [`Error::Setting`] if there is nothing to draw or the plot cannot be drawn.
pub fn line_plot(plot: &Plot) -> Result<String> {
    let shown = || plot.curves.iter().flat_map(|(_, c)| c).filter(|p| plot.shows(**p));
    let xs = range(shown().map(|p| p.0), &plot.x);
    let levels = plot.levels.iter().map(|l| l.1).filter(|v| plot.y.shows(*v));
    let ys = range(shown().map(|p| p.1).chain(levels), &plot.y);
    let (Some((x0, x1)), Some((y0, y1))) = (xs, ys) else {
        return Err(Error::setting("plot", "has no points that can be drawn"));
    };
    match (plot.x.scale, plot.y.scale) {
        (Scale::Linear, Scale::Linear) => draw(plot, x0..x1, y0..y1),
        (Scale::Linear, Scale::Log) => draw(plot, x0..x1, (y0..y1).log_scale()),
        (Scale::Log, Scale::Linear) => draw(plot, (x0..x1).log_scale(), y0..y1),
        (Scale::Log, Scale::Log) => draw(plot, (x0..x1).log_scale(), (y0..y1).log_scale()),
    }
}

impl Plot {
    fn shows(&self, (x, y): (f64, f64)) -> bool {
        self.x.shows(x) && self.y.shows(y)
    }
}

/// The range of an axis with a little room, and never empty.
fn range(values: impl Iterator<Item = f64>, axis: &Axis) -> Option<(f64, f64)> {
    let ends = |(low, high): (f64, f64), v: f64| (low.min(v), high.max(v));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), ends);
    if low > high {
        return None;
    }
    if axis.scale == Scale::Log {
        let room = (high / low).powf(0.04).max(1.05);
        return Some((low / room, high * room));
    }
    let room = (0.04 * (high - low)).max(0.02 * high.abs()).max(1e-9);
    // Counts and errors start at 0, not a little below it.
    let bottom = if low >= 0.0 && low < 2.0 * room { 0.0 } else { low - room };
    Some((bottom, high + room))
}

fn draw<X, Y>(plot: &Plot, x: X, y: Y) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    put(plot, x, y, &SVGBackend::with_string(&mut svg, SIZE).into_drawing_area())
        .map_err(|e| Error::setting("plot", format!("cannot be drawn: {e}")))?;
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn put<X, Y>(plot: &Plot, x: X, y: Y, area: &Area) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(&plot.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(66)
        .build_cartesian_2d(x, y)?;
    let ends = chart.x_range();
    chart
        .configure_mesh()
        .x_desc(&plot.x.label)
        .y_desc(&plot.y.label)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_label_formatter(&|v| label(*v))
        .y_label_formatter(&|v| label(*v))
        .draw()?;
    for (i, (name, points)) in plot.curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let mut named = false;
        for run in points.split(|p| !plot.shows(*p)).filter(|run| !run.is_empty()) {
            let line = chart.draw_series(LineSeries::new(run.to_vec(), colour.stroke_width(2)))?;
            if !named {
                line.label(name).legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
                named = true;
            }
            // A run of a single point has no line and would not be seen.
            if points.len() <= 40 || run.len() == 1 {
                chart.draw_series(run.iter().map(|p| Circle::new(*p, 3, colour.filled())))?;
            }
        }
    }
    for (i, (name, level)) in plot.levels.iter().filter(|l| plot.y.shows(l.1)).enumerate() {
        let colour = COLOURS[COLOURS.len() - 1 - i % COLOURS.len()];
        let line = [(ends.start, *level), (ends.end, *level)];
        chart
            .draw_series(DashedLineSeries::new(line, 6, 4, colour.stroke_width(1)))?
            .label(name)
            .legend(move |(x, y)| {
                plotters::element::DashedPathElement::new([(x, y), (x + 18, y)], 6, 4, colour)
            });
    }
    if plot.curves.len() + plot.levels.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// A number on an axis, without a tail of zeros.
fn label(v: f64) -> String {
    let size = v.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{v:.0e}");
    }
    let text = format!("{v:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(x: Axis, y: Axis) -> Plot {
        Plot {
            title: "Frechet distance & <evaluations>".into(),
            x,
            y,
            curves: vec![
                ("ddim".into(), vec![(10.0, 30.0), (20.0, 12.0), (50.0, 7.0)]),
                ("heun".into(), vec![(10.0, 44.0), (20.0, f64::NAN), (50.0, 5.0)]),
            ],
            levels: vec![("noise floor".into(), 3.0)],
        }
    }

    #[test]
    fn all_scales_draw_all_curves() {
        for x in [Axis::linear("evaluations"), Axis::log("evaluations")] {
            for y in [Axis::linear("distance"), Axis::log("distance")] {
                let svg = line_plot(&plot(x.clone(), y)).unwrap();
                assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
                for word in
                    ["ddim", "heun", "noise floor", "evaluations", "&amp; &lt;evaluations&gt;"]
                {
                    assert!(svg.contains(word), "{word}");
                }
                assert_eq!(
                    svg.matches("<circle").count(),
                    5,
                    "the point that is no number is left out"
                );
                assert!(!svg.contains("NaN"));
            }
        }
    }

    #[test]
    fn the_picture_is_the_same_each_time() {
        let p = plot(Axis::log("x"), Axis::log("y"));
        assert_eq!(line_plot(&p).unwrap(), line_plot(&p).unwrap());
    }

    #[test]
    fn extreme_values_are_drawn_and_nothing_is_refused() {
        for curve in [
            vec![(0.0, 0.0)],
            vec![(5.0, -3.0), (5.0, -3.0)],
            vec![(1e-300, 1e300), (1.0, 1.0)],
            vec![(-1e12, 1e-12), (1e12, 2e-12)],
        ] {
            let p = Plot { curves: vec![("a".into(), curve)], ..Plot::default() };
            assert!(line_plot(&p).unwrap().contains("<circle"));
        }
        let long: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let p = Plot { curves: vec![("a".into(), long)], ..Plot::default() };
        assert!(!line_plot(&p).unwrap().contains("<circle"));
        assert!(line_plot(&Plot::default()).is_err());
        let only_negative = Plot {
            y: Axis::log("y"),
            curves: vec![("a".into(), vec![(1.0, -1.0)])],
            ..Plot::default()
        };
        assert!(line_plot(&only_negative).is_err());
    }

    #[test]
    fn labels_have_no_tails() {
        for (v, wanted) in
            [(0.0, "0"), (0.25, "0.25"), (100.0, "100"), (-2.0, "-2"), (1e7, "1e7"), (1e-5, "1e-5")]
        {
            assert_eq!(label(v), wanted);
        }
    }
}
