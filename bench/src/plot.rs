//! Bars, as SVG: a row of them for each line of a table, as long as its longest.

use std::fmt::Write;

use anyhow::Result;

use crate::report::{Group, Report, Row, Summary};

const COLOURS: [&str; 6] = ["#c8553d", "#588b8b", "#8a6f4e", "#93b7be", "#5c5470", "#bdbdbd"];
const WIDTH: f64 = 760.0;
const LABELS: f64 = 300.0;
const FIGURES: f64 = 70.0;
const BAR: f64 = 11.0;
const GAP: f64 = 10.0;

pub fn svg(report: &Report, group: Group) -> Result<String> {
    let peers = report.peers(group);
    let colour =
        |name: &str| COLOURS[peers.iter().position(|peer| *peer == name).unwrap_or(0) % COLOURS.len()];
    let mut bars = String::new();
    let mut y = legend(&mut bars, &peers, colour)?;
    for row in report.of(group) {
        y = row_of_bars(&mut bars, row, y, colour)? + GAP;
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" font-family=\"sans-serif\" \
         font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n"
    ))
}

/// Returns where the next thing goes.
fn legend<'c>(svg: &mut String, peers: &[&str], colour: impl Fn(&str) -> &'c str) -> Result<f64> {
    let mut x = LABELS;
    for peer in peers {
        writeln!(svg, "<rect x=\"{x}\" y=\"6\" width=\"9\" height=\"9\" fill=\"{}\"/>", colour(peer))?;
        writeln!(svg, "<text x=\"{}\" y=\"14\">{peer}</text>", x + 13.0)?;
        x += 75.0;
    }
    Ok(26.0)
}

fn row_of_bars<'c>(svg: &mut String, row: &Row, top: f64, colour: impl Fn(&str) -> &'c str) -> Result<f64> {
    let medians: Vec<(&str, f64)> =
        row.peers.iter().map(|(name, samples)| (name.as_str(), Summary::of(samples).median)).collect();
    let longest = medians.iter().map(|(_, median)| *median).fold(f64::MIN_POSITIVE, f64::max);
    let label = format!("{}, {}", row.name, row.metric.name());
    writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
        LABELS - 8.0,
        top + BAR - 2.0
    )?;
    let mut y = top;
    for (name, median) in medians {
        let width = (WIDTH - LABELS - FIGURES) * median / longest;
        let height = BAR - 1.0;
        writeln!(
            svg,
            "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{}\"/>",
            colour(name)
        )?;
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\">{median:.digits$}</text>",
            LABELS + width + 4.0,
            y + BAR - 2.0,
            digits = if median < 100.0 { 2 } else { 0 }
        )?;
        y += BAR;
    }
    Ok(y)
}
