//! Charts as SVG, and their numbers as CSV beside them, in `target/bench`.
//!
//! Written here and not by a crate, because a file that is shown on light pages and on dark ones needs its colours in a
//! style sheet, which those that draw charts do not write. Lines differ in dash and mark as well as in colour.

use std::fmt::Write as _;

use crate::report;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 430.0;
/// Of the area that is drawn upon: left, top, right, bottom.
const AREA: [f64; 4] = [78.0, 56.0, 736.0, 330.0];
/// The names of series: where they begin, and how far one line is below the other.
const LEGEND: [f64; 2] = [392.0, 18.0];
const STYLE: &str = "<style>
  svg { font: 13px system-ui, sans-serif; background: #fff; --ink: #1f2328; --soft: #59636e; --grid: #d1d9e0;
    --s0: #0969da; --s1: #bc4c00; --s2: #1a7f37; --s3: #8250df; }
  @media (prefers-color-scheme: dark) { svg { background: #0d1117; --ink: #f0f6fc; --soft: #9198a1; --grid: #3d444d;
    --s0: #4493f8; --s1: #f0883e; --s2: #3fb950; --s3: #ab7df8; } }
  text { fill: var(--ink); } .soft { fill: var(--soft); } .title { font-size: 16px; font-weight: 600; }
  .grid { stroke: var(--grid); } .line { fill: none; stroke-width: 2; }
</style>";
const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// With its unit.
    pub(crate) label: &'static str,
    /// Else it begins at nothing.
    pub(crate) logarithmic: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over one axis.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// At most four; such without points are left out.
    pub(crate) series: Vec<Series>,
}

/// One bar below the other.
#[derive(Debug)]
pub(crate) struct Bars {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) rows: Vec<(String, f64)>,
}

/// Where values of an axis lie on the paper.
#[derive(Clone, Copy, Debug)]
struct Scale {
    logarithmic: bool,
    from: f64,
    to: f64,
    paper: [f64; 2],
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let measure = |value: f64| if self.logarithmic { value.ln() } else { value };
        let [from, to] = [measure(self.from), measure(self.to)];
        // A single value has no extent: it lies in the middle.
        let share = if to > from {
            (measure(value) - from) / (to - from)
        } else {
            0.5
        };
        self.paper[0] + share * (self.paper[1] - self.paper[0])
    }
}

impl Chart {
    /// `NAME.svg` and `NAME.csv`; says where.
    pub(crate) fn write(mut self, name: &str) {
        self.series.retain(|series| !series.points.is_empty());
        write_files(name, &self.svg(), &self.csv());
    }

    fn svg(&self) -> String {
        let [left, top, right, bottom] = AREA;
        let (xs, ys) = (self.values(|point| point.0), self.values(|point| point.1));
        let x = Scale {
            logarithmic: self.x.logarithmic,
            from: xs[0],
            to: *xs.last().unwrap(),
            paper: [left + 14.0, right - 14.0],
        };
        let most = *ys.last().unwrap();
        let marks = if self.y.logarithmic {
            logarithmic_marks(ys[0], most)
        } else {
            marks(most)
        };
        let y = Scale {
            logarithmic: self.y.logarithmic,
            from: marks[0],
            to: *marks.last().unwrap(),
            paper: [bottom, top],
        };
        let mut svg = opened(self.title, HEIGHT);
        for mark in marks {
            grid(&mut svg, [left, y.at(mark), right, y.at(mark)]);
            let place = [left - 8.0, y.at(mark) + 4.0];
            label(&mut svg, place, "end", &short(mark));
        }
        for value in xs {
            let place = [x.at(value), bottom + 20.0];
            label(&mut svg, place, "middle", &short(value));
        }
        let middle = f64::midpoint(left, right);
        label(&mut svg, [middle, bottom + 42.0], "middle", self.x.label);
        label(&mut svg, [left - 60.0, top - 14.0], "start", self.y.label);
        for (number, series) in self.series.iter().enumerate() {
            line(&mut svg, number, series, &x, &y);
            key(&mut svg, number, series.name);
        }
        svg + "</svg>\n"
    }

    /// Sorted, each once.
    fn values(&self, of: fn(&(f64, f64)) -> f64) -> Vec<f64> {
        let points = self.series.iter().flat_map(|series| &series.points);
        let mut values: Vec<f64> = points.map(of).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    }

    fn csv(&self) -> String {
        let mut csv = quoted(self.x.label);
        for series in &self.series {
            let _ = write!(csv, ",{}", quoted(series.name));
        }
        for x in self.values(|point| point.0) {
            let _ = write!(csv, "\n{x}");
            for series in &self.series {
                let found = series
                    .points
                    .iter()
                    .find(|point| point.0.total_cmp(&x).is_eq());
                let value = found.map_or_else(String::new, |point| format!("{:.3}", point.1));
                let _ = write!(csv, ",{value}");
            }
        }
        csv + "\n"
    }
}

impl Bars {
    /// `NAME.svg` and `NAME.csv`; says where.
    pub(crate) fn write(&self, name: &str) {
        let head = format!("part,{}\n", quoted(self.unit));
        let rows = self.rows.iter();
        let rows: String = rows
            .map(|(word, value)| format!("{},{value:.1}\n", quoted(word)))
            .collect();
        write_files(name, &self.svg(), &(head + &rows));
    }

    fn svg(&self) -> String {
        const ROW: f64 = 30.0;
        let (from, to) = (220.0, WIDTH - 80.0);
        let most = self.rows.iter().fold(0.0, |most: f64, row| most.max(row.1));
        let bottom = AREA[1] + ROW * self.rows.len() as f64;
        let mut svg = opened(self.title, bottom + 40.0);
        for (number, (word, value)) in self.rows.iter().enumerate() {
            let top = AREA[1] + ROW * number as f64;
            // What is left over after the parts may be nothing, or less by chance.
            let width = (value.max(0.0) / most.max(f64::MIN_POSITIVE) * (to - from)).max(1.0);
            label(&mut svg, [from - 10.0, top + 17.0], "end", word);
            let _ = writeln!(
                svg,
                r#"<rect x="{from}" y="{top:.1}" width="{width:.1}" height="22" rx="3" fill="var(--s0)"/>"#
            );
            let place = [from + width + 8.0, top + 17.0];
            label(&mut svg, place, "start", &format!("{value:.0}"));
        }
        label(&mut svg, [from, bottom + 20.0], "start", self.unit);
        svg + "</svg>\n"
    }
}

fn opened(title: &str, height: f64) -> String {
    let title = escaped(title);
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>{title}</title>
{STYLE}
<text class="title" x="18" y="26">{title}</text>
"#
    )
}

fn grid(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        svg,
        r#"<line class="grid" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
    );
}

fn label(svg: &mut String, [x, y]: [f64; 2], anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        svg,
        r#"<text class="soft" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    );
}

fn line(svg: &mut String, number: usize, series: &Series, x: &Scale, y: &Scale) {
    let mut path = String::new();
    for point in &series.points {
        let _ = write!(path, "{:.1},{:.1} ", x.at(point.0), y.at(point.1));
    }
    let (path, dash) = (path.trim_end(), DASHES[number]);
    let _ = writeln!(
        svg,
        r#"<polyline class="line" stroke="var(--s{number})" stroke-dasharray="{dash}" points="{path}"/>"#
    );
    for point in &series.points {
        mark(svg, number, [x.at(point.0), y.at(point.1)]);
    }
}

/// A circle, a square, a triangle or a diamond.
fn mark(svg: &mut String, number: usize, [x, y]: [f64; 2]) {
    let corners: &[[f64; 2]] = match number {
        0 => {
            let _ = writeln!(
                svg,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="var(--s0)"/>"#
            );
            return;
        }
        1 => &[[-4.0, -4.0], [4.0, -4.0], [4.0, 4.0], [-4.0, 4.0]],
        2 => &[[0.0, -5.0], [5.0, 4.0], [-5.0, 4.0]],
        _ => &[[0.0, -5.0], [5.0, 0.0], [0.0, 5.0], [-5.0, 0.0]],
    };
    let mut points = String::new();
    for [right, down] in corners {
        let _ = write!(points, "{:.1},{:.1} ", x + right, y + down);
    }
    let points = points.trim_end();
    let _ = writeln!(
        svg,
        r#"<polygon points="{points}" fill="var(--s{number})"/>"#
    );
}

/// The name of a series beside a piece of its line; two in a row.
fn key(svg: &mut String, number: usize, name: &str) {
    let x = AREA[0] + 330.0 * (number % 2) as f64;
    let y = LEGEND[0] + LEGEND[1] * (number / 2) as f64;
    let dash = DASHES[number];
    let _ = writeln!(
        svg,
        r#"<line class="line" stroke="var(--s{number})" stroke-dasharray="{dash}" x1="{x}" y1="{y}" x2="{}" y2="{y}"/>"#,
        x + 34.0
    );
    mark(svg, number, [x + 17.0, y]);
    label(svg, [x + 44.0, y + 4.0], "start", name);
}

/// From nothing to at least `most`, in about five equal steps of 1, 2 or 5 and noughts.
fn marks(most: f64) -> Vec<f64> {
    let rough = most.max(f64::MIN_POSITIVE) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    let count = (most / step).ceil().max(1.0) as usize;
    (0..=count).map(|number| number as f64 * step).collect()
}

/// 1, 2 and 5 with noughts, from the last one below to the first one above.
fn logarithmic_marks(least: f64, most: f64) -> Vec<f64> {
    let (least, most) = (least.max(1e-6), most.max(1e-6));
    let mut marks = Vec::new();
    let mut power = 10_f64.powf(least.log10().floor());
    loop {
        for times in [1.0, 2.0, 5.0] {
            let mark = times * power;
            if mark <= least {
                marks.clear();
            }
            marks.push(mark);
            if mark >= most && marks.len() > 1 {
                return marks;
            }
        }
        power *= 10.0;
    }
}

/// 1500 as 1.5 k.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        1e6.. => (value / 1e6, " M"),
        1e4.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn write_files(name: &str, svg: &str, csv: &str) {
    let directory = report::directory();
    std::fs::write(directory.join(format!("{name}.csv")), csv).unwrap();
    let path = directory.join(format!("{name}.svg"));
    std::fs::write(&path, svg).unwrap();
    println!("drawn: {}", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: Vec<Series>) -> Chart {
        Chart {
            title: "a < b & c",
            x: Axis {
                label: "clients",
                logarithmic: true,
            },
            y: Axis {
                label: "1/s",
                logarithmic: false,
            },
            series,
        }
    }

    #[test]
    fn a_chart_has_every_point_and_no_number_that_is_none() {
        let one = Series {
            name: "one",
            points: vec![(1.0, 10.0), (512.0, 30.0)],
        };
        let other = Series {
            name: "other",
            points: vec![(1.0, 0.0)],
        };
        let chart = chart(vec![one, other]);
        let svg = chart.svg();
        assert_eq!(
            svg.matches("<circle").count(),
            3,
            "two points, one in the key"
        );
        assert_eq!(svg.matches("<polygon").count(), 2);
        assert!(svg.contains("a &lt; b &amp; c"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(
            chart.csv(),
            "\"clients\",\"one\",\"other\"\n1,10.000,0.000\n512,30.000,\n"
        );
    }

    #[test]
    fn a_single_point_is_drawn() {
        let one = Series {
            name: "one",
            points: vec![(16.0, 3.0)],
        };
        let svg = chart(vec![one]).svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_scale_goes_from_end_to_end() {
        let scale = Scale {
            logarithmic: true,
            from: 1.0,
            to: 10_000.0,
            paper: [0.0, 100.0],
        };
        for (value, place) in [(1.0, 0.0), (100.0, 50.0), (10_000.0, 100.0)] {
            assert!((scale.at(value) - place).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn marks_are_round_and_hold_every_value() {
        assert_eq!(marks(870.0), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(logarithmic_marks(3.0, 40.0), [2.0, 5.0, 10.0, 20.0, 50.0]);
        for value in [1e-4, 0.7, 1.0, 999.0, 1e7] {
            assert!(*marks(value).last().unwrap() >= value);
            let marks = logarithmic_marks(value, value);
            assert!(
                marks[0] <= value && *marks.last().unwrap() >= value,
                "{marks:?}"
            );
        }
    }

    #[test]
    fn numbers_are_short() {
        let said = [0.5, 8.0, 512.0, 1008.0, 25_000.0, 1e6, 1e7].map(short);
        assert_eq!(said, ["0.5", "8", "512", "1008", "25 k", "1 M", "10 M"]);
    }
}
