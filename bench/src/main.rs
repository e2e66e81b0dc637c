//! Measures lxcrun beside its peers: one bundle, one run, turn by turn, CPU and wall.
#![forbid(unsafe_code)]

mod bundle;
mod commands;
mod crowd;
mod document;
mod engines;
mod instructions;
mod machine;
mod memory;
mod peer;
mod plot;
mod report;
mod sandbox;
mod stopwatch;
mod throughput;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::bundle::Bundles;
use crate::machine::Machine;
use crate::peer::{OURS, Peer, Worker};
use crate::report::{Group, Report};
use crate::sandbox::Sandbox;
use crate::stopwatch::Stopwatch;

/// Measures lxcrun beside its peers
#[derive(Parser)]
struct Args {
    /// How often everything is measured
    #[arg(long, env = "BENCH_RUNS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Who takes part; all but lxcrun and floor are looked for on PATH
    #[arg(long, value_delimiter = ',', default_values = peer::ORDER)]
    peers: Vec<String>,
    /// The lxcrun to measure; the engines of the test harness look for it in the variable, too
    #[arg(long = "lxcrun", env = "RUNTIME")]
    lxcrun: PathBuf,
    /// What is measured [default: everything]
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/runs")]
    out: PathBuf,
    /// Where performance.md and its plots go, after a run of everything
    #[arg(long)]
    docs: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("lxcrun-bench: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if every peer could do everything that was asked of it.
fn run(args: &Args) -> Result<bool> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "run as root: containers with cgroups are what it measures"
    );
    let peers = find_peers(args)?;
    let machine = Machine::probe(args.runs, &peers)?;
    let out = std::path::absolute(&args.out)?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;

    let sandbox = Sandbox::enter()?;
    let watch = Stopwatch::new(sandbox.dir())?;
    let bundles = Bundles::create(sandbox.dir())?;
    let bench = Bench { runs: args.runs, peers, watch, bundles };
    let mut report = Report::default();
    let wanted = |group: &Group| args.only.is_empty() || args.only.contains(group);
    for group in Group::ALL.into_iter().filter(wanted) {
        let measured = match group {
            Group::Warm | Group::Cold => commands::measure(&bench, group, &mut report),
            Group::Engines => engines::measure(&bench, &mut report),
            Group::Crowd => crowd::measure(&bench, &mut report),
            Group::Throughput => throughput::measure(&bench, &mut report),
            Group::Memory => memory::measure(&bench, &mut report),
            Group::Instructions => instructions::measure(&bench, &mut report),
        };
        if let Err(err) = measured {
            report.failed(group, OURS, &err);
        }
        writeln!(std::io::stdout(), "{}\n\n{}", group.title(), report.table(group)?)?;
    }

    let path = report.write(&out, &machine)?;
    if let (Some(docs), true) = (&args.docs, args.only.is_empty() && report.is_complete()) {
        document::write(docs, &report, &machine)?;
    }
    report.failures().try_for_each(|failure| writeln!(std::io::stdout(), "failed: {failure}"))?;
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(report.is_complete())
}

/// Who takes part, and what they work with.
struct Bench {
    runs: u32,
    peers: Vec<Peer>,
    watch: Stopwatch,
    bundles: Bundles,
}

impl Bench {
    fn worker<'a>(&'a self, peer: &'a Peer) -> Worker<'a> {
        Worker::new(peer, &self.bundles, &self.watch)
    }

    /// Has peers take turns; each round begins with another. Round 0 warms the caches and doesn't count. Who fails takes
    /// no further part.
    fn rounds(
        &self,
        group: Group,
        peers: &[&Peer],
        report: &mut Report,
        mut measure: impl FnMut(&Peer, &mut Report) -> Result<()>,
    ) {
        let mut warmed = Report::default();
        for round in 0..=self.runs {
            for turn in 0..peers.len() {
                let peer = peers[(round as usize + turn) % peers.len()];
                if report.has_failed(group, &peer.name) {
                    continue;
                }
                let counts = if round == 0 { &mut warmed } else { &mut *report };
                if let Err(err) = measure(peer, counts) {
                    report.failed(group, &peer.name, &err);
                }
            }
        }
    }
}

fn find_peers(args: &Args) -> Result<Vec<Peer>> {
    let me = std::env::current_exe()?;
    let beside = |name: &str| me.with_file_name(name);
    let mut peers = Vec::new();
    for name in &args.peers {
        let program = match name.as_str() {
            "lxcrun" => args.lxcrun.clone(),
            "floor" => beside("lxcrun-bench-floor"),
            other => match on_path(other) {
                Some(program) => program,
                None => {
                    eprintln!("lxcrun-bench: {other} is not on PATH and left out");
                    continue;
                }
            },
        };
        ensure!(program.is_file(), "{} is missing: build it first", program.display());
        peers.push(Peer::new(name, std::path::absolute(program)?));
    }
    ensure!(!peers.is_empty(), "nobody takes part");
    Ok(peers)
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
