//! The figures: medians, their spread, and lxcrun's share of the best peer's.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::peer::{FLOOR, ORDER, OURS};
use crate::stopwatch::Sample;

/// Tables, in their order.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    Warm,
    Cold,
    Engines,
    Crowd,
    Throughput,
    Memory,
    Instructions,
}

impl Group {
    pub const ALL: [Self; 7] = [
        Self::Warm,
        Self::Cold,
        Self::Engines,
        Self::Crowd,
        Self::Throughput,
        Self::Memory,
        Self::Instructions,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Warm => "Commands",
            Self::Cold => "Commands, with caches dropped before",
            Self::Engines => "Under engines",
            Self::Crowd => "With many containers alive",
            Self::Throughput => "Many at a time",
            Self::Memory => "Memory",
            Self::Instructions => "Instructions",
        }
    }

    /// The name of its plot.
    pub fn key(self) -> &'static str {
        match self {
            Self::Warm => "commands",
            Self::Cold => "cold",
            Self::Engines => "engines",
            Self::Crowd => "crowd",
            Self::Throughput => "throughput",
            Self::Memory => "memory",
            Self::Instructions => "instructions",
        }
    }
}

/// What a figure is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Milliseconds of processor time.
    Cpu,
    /// Milliseconds on the clock.
    Wall,
    /// Containers per second.
    Rate,
    /// KiB.
    Memory,
    /// Thousands.
    Instructions,
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU, ms",
            Self::Wall => "wall, ms",
            Self::Rate => "per second",
            Self::Memory => "KiB",
            Self::Instructions => "thousand",
        }
    }

    fn best(self, figures: impl Iterator<Item = f64>) -> Option<f64> {
        match self {
            Self::Rate => figures.reduce(f64::max),
            Self::Cpu | Self::Wall | Self::Memory | Self::Instructions => figures.reduce(f64::min),
        }
    }
}

/// One row of a table.
pub struct Row {
    pub group: Group,
    pub name: String,
    pub metric: Metric,
    /// Who took part, with all that was measured.
    pub peers: Vec<(String, Vec<f64>)>,
}

impl Row {
    /// Ours in terms of the best peer's.
    pub fn ratio(&self) -> Option<f64> {
        let medians = |ours: bool| {
            let fit = self.peers.iter().filter(move |(name, _)| (name == OURS) == ours && name != FLOOR);
            fit.map(|(_, samples)| Summary::of(samples).median)
        };
        let (ours, best) = (medians(true).next()?, self.metric.best(medians(false))?);
        (best > 0.0).then(|| ours / best)
    }
}

#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    failures: Vec<(Group, String, String)>,
}

impl Report {
    pub fn add_sample(&mut self, group: Group, row: &str, peer: &str, sample: Sample) {
        self.add(group, row, Metric::Cpu, peer, sample.cpu.as_secs_f64() * 1e3);
        self.add(group, row, Metric::Wall, peer, sample.wall.as_secs_f64() * 1e3);
    }

    pub fn add(&mut self, group: Group, name: &str, metric: Metric, peer: &str, figure: f64) {
        let same = |row: &&mut Row| row.group == group && row.name == name && row.metric == metric;
        let row = match self.rows.iter_mut().find(same) {
            Some(row) => row,
            None => {
                self.rows.push(Row { group, name: name.to_owned(), metric, peers: Vec::new() });
                let last = self.rows.len() - 1;
                &mut self.rows[last]
            }
        };
        match row.peers.iter_mut().find(|(name, _)| name == peer) {
            Some((_, samples)) => samples.push(figure),
            None => row.peers.push((peer.to_owned(), vec![figure])),
        }
    }

    /// A peer that couldn't do what was asked of it takes no further part in the group.
    pub fn failed(&mut self, group: Group, peer: &str, err: &anyhow::Error) {
        self.failures.push((group, peer.to_owned(), format!("{err:#}")));
    }

    pub fn has_failed(&self, group: Group, peer: &str) -> bool {
        self.failures.iter().any(|(of, who, _)| *of == group && who == peer)
    }

    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    pub fn of(&self, group: Group) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.group == group)
    }

    /// Every peer of the group.
    pub fn peers(&self, group: Group) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.of(group).flat_map(|row| &row.peers) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names.sort_by_key(|name| ORDER.iter().position(|known| known == name));
        names
    }

    /// The group as a table in Markdown.
    pub fn table(&self, group: Group) -> Result<String> {
        let peers = self.peers(group);
        let mut text = format!("| | | {} | {OURS} is |\n", peers.join(" | "));
        writeln!(text, "|---|---|{}", "---:|".repeat(peers.len() + 1))?;
        let mut last = "";
        for row in self.of(group) {
            write!(text, "| {} | {} |", if row.name == last { "" } else { &row.name }, row.metric.name())?;
            last = &row.name;
            for peer in &peers {
                match row.peers.iter().find(|(name, _)| name == peer) {
                    Some((_, samples)) => write!(text, " {} |", Summary::of(samples))?,
                    None => text += " |",
                }
            }
            match row.ratio() {
                Some(ratio) => writeln!(text, " {ratio:.2} × |")?,
                None => text += " |\n",
            }
        }
        Ok(text)
    }

    /// Writes the JSON, named for the day and the machine.
    pub fn write(&self, dir: &Path, machine: &Machine) -> Result<PathBuf> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let mut report = machine.json();
        report["rows"] = rows.into();
        report["failures"] = self.failures().collect::<Vec<String>>().into();
        let path = dir.join(format!("{}-{}.json", machine.date.replace(':', ""), machine.host));
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|(group, peer, reason)| format!("{peer}, {:?}: {reason}", group.title()))
    }
}

impl Row {
    fn json(&self) -> Value {
        let peers = self.peers.iter().map(|(name, samples)| {
            let Summary { median, low, high } = Summary::of(samples);
            let samples: Vec<f64> = samples.iter().copied().map(rounded).collect();
            let figures = json!({
                "median": rounded(median), "p25": rounded(low), "p75": rounded(high), "samples": samples
            });
            (name.clone(), figures)
        });
        json!({
            "group": self.group.key(),
            "row": self.name,
            "unit": self.metric.name(),
            "peers": peers.collect::<serde_json::Map<_, _>>(),
            "ratio_to_best_peer": self.ratio().map(rounded),
        })
    }
}

/// As finely as the kernel counts.
fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

/// The median and the middle half.
pub struct Summary {
    pub median: f64,
    low: f64,
    high: f64,
}

impl Summary {
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { median: quantile(&sorted, 2), low: quantile(&sorted, 1), high: quantile(&sorted, 3) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.median < 100.0 { 2 } else { 0 };
        let Self { median, low, high } = self;
        if low == high {
            return write!(f, "{median:.digits$}");
        }
        write!(f, "{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

/// The value that so many quarters of the sorted samples lie below; between two, their mean by distance.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let position = (sorted.len() - 1) * quarters;
    let (below, rest) = (position / 4, position % 4);
    let above = sorted[(below + 1).min(sorted.len() - 1)];
    sorted[below] + (above - sorted[below]) * [0.0, 0.25, 0.5, 0.75][rest]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_an_odd_and_an_even_number() {
        assert_eq!([1, 2, 3].map(|quarters| quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], quarters)), [2.0, 3.0, 4.0]);
        assert_eq!([1, 2, 3].map(|quarters| quantile(&[1.0, 2.0], quarters)), [1.25, 1.5, 1.75]);
        assert_eq!(quantile(&[7.0], 2), 7.0);
    }

    #[test]
    fn the_best_peer_is_neither_us_nor_the_floor() {
        let mut report = Report::default();
        for (peer, figure) in [(OURS, 6.0), ("crun", 4.0), ("runc", 8.0), (FLOOR, 1.0)] {
            report.add(Group::Warm, "run", Metric::Cpu, peer, figure);
            report.add(Group::Throughput, "run", Metric::Rate, peer, figure);
        }
        assert_eq!(report.rows[0].ratio(), Some(1.5));
        assert_eq!(report.rows[1].ratio(), Some(0.75));
        let table = report.table(Group::Warm).unwrap();
        assert!(table.ends_with("| run | CPU, ms | 6.00 | 4.00 | 8.00 | 1.00 | 1.50 × |\n"), "{table}");
    }
}
