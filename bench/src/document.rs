//! docs/performance.md and its plots: written by a run of everything, never by hand.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::machine::Machine;
use crate::plot;
use crate::report::{Group, Report};

const HEAD: &str = "\
# Performance

Written by `make bench`, which measures lxcrun beside its peers: turn by turn, in one run, on one bundle, each round
beginning with another. A figure is the median of all rounds; the middle half of them is in parentheses. The last column
is lxcrun's share of the best peer's. CPU is the user and system time of the command and of everything that descends
from it. The floor does what the kernel must do for this bundle (namespaces, cgroups, mounts, pivot_root, exec, wait), and
nothing else.
";

pub fn write(dir: &Path, report: &Report, machine: &Machine) -> Result<()> {
    let plots = dir.join("performance");
    fs::create_dir_all(&plots).with_context(|| format!("cannot create {}", plots.display()))?;
    let mut text = HEAD.to_owned();
    let Machine { date, kernel, processor, cpus, memory, cgroups, runs, .. } = machine;
    write!(
        text,
        "\n{runs} rounds on {date} UTC: {cpus} × {processor}, {memory}, Linux {kernel}, cgroup {cgroups}.\n\n\
         | | version | command line of `run` |\n|---|---|---|\n"
    )?;
    for [name, version, run] in &machine.peers {
        writeln!(text, "| {name} | {version} | `{run}` |")?;
    }
    for group in Group::ALL.into_iter().filter(|group| report.of(*group).next().is_some()) {
        let file = format!("{}.svg", group.key());
        fs::write(plots.join(&file), plot::svg(report, group)?)?;
        let title = group.title();
        write!(text, "\n## {title}\n\n![{title}](performance/{file})\n\n{}", report.table(group)?)?;
    }
    let path = dir.join("performance.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
