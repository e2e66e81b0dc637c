//! The figures: medians, their spread, and lxcrun's share of each peer's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::system::uname;
use serde_json::{Value, json};

use crate::peer::{Group, Peer, Samples};

/// The one that the others are compared with, if it takes part.
const OURS: &str = "lxcrun";

pub struct Report {
    runs: u32,
    peers: Vec<Value>,
    names: Vec<String>,
    figures: BTreeMap<(&'static str, String), Figures>,
    failures: Vec<Failure>,
}

/// A peer that couldn't do what was asked of it, and takes no further part in the group.
struct Failure {
    group: Group,
    peer: String,
    reason: String,
}

/// Milliseconds, one a round.
#[derive(Default)]
struct Figures {
    cpu: Vec<f64>,
    wall: Vec<f64>,
}

impl Report {
    pub fn new(runs: u32, peers: &[Peer]) -> Self {
        let describe =
            |peer: &Peer| json!({ "name": peer.name, "version": peer.version(), "run": peer.command_line() });
        Self {
            runs,
            peers: peers.iter().map(describe).collect(),
            names: peers.iter().map(|peer| peer.name.clone()).collect(),
            figures: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    pub fn add(&mut self, peer: &Peer, samples: &Samples) {
        for (row, sample) in samples {
            let figures = self.figures.entry((row, peer.name.clone())).or_default();
            figures.cpu.push(sample.cpu.as_secs_f64() * 1e3);
            figures.wall.push(sample.wall.as_secs_f64() * 1e3);
        }
    }

    pub fn failed(&mut self, group: Group, peer: &Peer, err: &anyhow::Error) {
        self.failures.push(Failure { group, peer: peer.name.clone(), reason: format!("{err:#}") });
    }

    pub fn has_failed(&self, group: Group, peer: &Peer) -> bool {
        self.failures.iter().any(|failure| failure.group == group && failure.peer == peer.name)
    }

    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// Writes the JSON, named for the day and the machine.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H%M"]).output()?.stdout;
        let date = String::from_utf8(date)?.trim().to_owned();
        let machine = uname();
        let host = machine.nodename().to_string_lossy();
        let mut rows = serde_json::Map::new();
        for row in rows_in_order() {
            let peers = self.figures_of(row).map(|(name, figures)| (name.to_owned(), figures.to_json()));
            rows.insert(row.to_owned(), Value::Object(peers.collect()));
        }
        let report = json!({
            "date": date,
            "host": host,
            "kernel": machine.release().to_string_lossy(),
            "cpus": std::thread::available_parallelism()?.get(),
            "runs": self.runs,
            "peers": self.peers,
            "rows": rows,
            "failures": self.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        let path = dir.join(format!("{date}-{host}.json"));
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn figures_of(&self, row: &'static str) -> impl Iterator<Item = (&str, &Figures)> {
        self.names
            .iter()
            .filter_map(move |name| Some((name.as_str(), self.figures.get(&(row, name.clone()))?)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Medians of {} rounds, with the middle half; milliseconds.", self.runs)?;
        for row in rows_in_order() {
            let ours = self.figures.get(&(row, OURS.to_owned()));
            let mut peers = self.figures_of(row).peekable();
            if peers.peek().is_none() {
                continue;
            }
            write!(f, "\n{row:<20} {:>8} {:>15} {:>8} {:>15}", "cpu", "", "wall", "")?;
            writeln!(f, "{}", if ours.is_some() { "   lxcrun is, in cpu and wall" } else { "" })?;
            for (name, figures) in peers {
                write!(f, "  {name:<18} {} {}", Summary::of(&figures.cpu), Summary::of(&figures.wall))?;
                match ours {
                    Some(ours) if name != OURS => writeln!(
                        f,
                        "   {:.2} x  {:.2} x",
                        Summary::of(&ours.cpu).median / Summary::of(&figures.cpu).median,
                        Summary::of(&ours.wall).median / Summary::of(&figures.wall).median,
                    )?,
                    _ => writeln!(f)?,
                }
            }
        }
        for failure in &self.failures {
            writeln!(f, "\nfailed: {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in \"{}\": {}", self.peer, self.group.rows().join(", "), self.reason)
    }
}

fn rows_in_order() -> impl Iterator<Item = &'static str> {
    Group::ALL.into_iter().flat_map(|group| group.rows().iter().copied())
}

impl Figures {
    fn to_json(&self) -> Value {
        let one = |samples: &[f64]| {
            let Summary { median, low, high } = Summary::of(samples);
            let samples: Vec<f64> = samples.iter().copied().map(micros).collect();
            json!({ "median": micros(median), "p25": micros(low), "p75": micros(high), "samples": samples })
        };
        json!({ "cpu_ms": one(&self.cpu), "wall_ms": one(&self.wall) })
    }
}

/// As finely as the kernel counts.
fn micros(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}

struct Summary {
    median: f64,
    low: f64,
    high: f64,
}

impl Summary {
    fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { median: quantile(&sorted, 2), low: quantile(&sorted, 1), high: quantile(&sorted, 3) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = format!("({:.2}-{:.2})", self.low, self.high);
        write!(f, "{:>8.2} {spread:>15}", self.median)
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
    use super::quantile;

    #[test]
    fn quantiles_of_an_odd_and_an_even_number() {
        assert_eq!([1, 2, 3].map(|quarters| quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], quarters)), [2.0, 3.0, 4.0]);
        assert_eq!([1, 2, 3].map(|quarters| quantile(&[1.0, 2.0], quarters)), [1.25, 1.5, 1.75]);
        assert_eq!(quantile(&[7.0], 2), 7.0);
    }
}
