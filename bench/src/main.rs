//! Measures lxcrun beside its peers: one bundle, one run, turn by turn, CPU and wall.
#![forbid(unsafe_code)]

mod bundle;
mod peer;
mod report;
mod sandbox;
mod stopwatch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::bundle::Bundles;
use crate::peer::{Group, Peer};
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stopwatch::Stopwatch;

/// Measures lxcrun beside its peers
#[derive(Parser)]
struct Args {
    /// How often everything is measured
    #[arg(long, env = "BENCH_RUNS", default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Who takes part; all but lxcrun and floor are looked for on PATH
    #[arg(long, value_delimiter = ',', default_value = "lxcrun,crun,runc,youki,lxc-execute,floor")]
    peers: Vec<String>,
    /// The lxcrun to measure [default: the one built beside this program]
    #[arg(long)]
    lxcrun: Option<PathBuf>,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/runs")]
    out: PathBuf,
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
    let out = std::path::absolute(&args.out)?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;

    let sandbox = Sandbox::enter()?;
    let stopwatch = Stopwatch::new(sandbox.dir())?;
    let bundles = Bundles::create(sandbox.dir())?;
    let mut report = Report::new(args.runs, &peers);

    for group in Group::ALL {
        let mut fit: Vec<&Peer> = peers.iter().filter(|peer| peer.takes_part_in(group)).collect();
        // Round 0 warms the caches and doesn't count. Each round begins with another peer.
        for round in 0..=args.runs {
            for turn in 0..fit.len() {
                let peer = fit[(round as usize + turn) % fit.len()];
                match peer.measure(group, &bundles, &stopwatch) {
                    Ok(samples) if round > 0 => report.add(peer, &samples),
                    Ok(_) => {}
                    Err(err) => {
                        report.failed(group, peer, &err);
                        stopwatch.settle()?; // what it left would be counted as the next one's
                    }
                }
            }
            fit.retain(|peer| !report.has_failed(group, peer));
        }
    }

    let path = report.write(&out)?;
    writeln!(std::io::stdout(), "{report}\n{}", path.display())?;
    Ok(report.is_complete())
}

fn find_peers(args: &Args) -> Result<Vec<Peer>> {
    let me = std::env::current_exe()?;
    let beside = |name: &str| me.with_file_name(name);
    let mut peers = Vec::new();
    for name in &args.peers {
        let program = match name.as_str() {
            "lxcrun" => args.lxcrun.clone().unwrap_or_else(|| beside("lxcrun")),
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
