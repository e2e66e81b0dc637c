//! Memory: the smallest limit that a container starts with, what stays beside it, and the size of the programs.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Bench;
use crate::peer::{Kind, Peer, Worker};
use crate::report::{Group, Metric, Report};

const ID: &str = "bench";

/// In KiB; a limit holds when it has so many times in a row.
const STEP: u32 = 64;
const LARGEST: u32 = 16 << 10;
const TIMES: u32 = 3;

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for peer in bench.peers.iter().filter(|peer| peer.kind == Kind::Oci) {
        let worker = bench.worker(peer);
        let mut add = |row, figure: Result<f64>| match figure {
            Ok(kib) => report.add(Group::Memory, row, Metric::Memory, &peer.name, kib),
            Err(err) => report.failed(Group::Memory, &peer.name, &err),
        };
        add("smallest limit for /bin/true", smallest_limit(&worker));
        add("beside an idle container, after create and start", after_create(&worker));
        add("beside an idle container, run in the foreground", beside_run(&worker));
        add("the program's file", size(peer));
        worker.clean_up(ID);
        bench.watch.settle()?;
    }
    Ok(())
}

fn smallest_limit(worker: &Worker<'_>) -> Result<f64> {
    for limit in (1..=LARGEST / STEP).map(|n| n * STEP) {
        let bundle = worker.bundles.limited_to(u64::from(limit) << 10)?;
        let holds = || {
            let runs = worker.watch.run(&mut worker.run_command(&bundle, ID)?);
            if runs.is_err() {
                worker.clean_up(ID);
                worker.watch.settle()?;
            }
            runs
        };
        if (0..TIMES).all(|_| holds().is_ok()) {
            return Ok(f64::from(limit));
        }
    }
    bail!("does not start with {LARGEST} KiB")
}

/// Of all our descendants but the container's own process.
fn after_create(worker: &Worker<'_>) -> Result<f64> {
    worker.create_and_start(&worker.bundles.stays, ID)?;
    let beside = pss_beside(worker);
    worker.oci(["delete", "--force", ID])?;
    worker.watch.settle()?;
    beside
}

fn beside_run(worker: &Worker<'_>) -> Result<f64> {
    let mut command = worker.command(["run", "--pid-file"]);
    command.arg(worker.pid_file(ID)).arg("--bundle").arg(&worker.bundles.stays).arg(ID);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _absent = fs::remove_file(worker.pid_file(ID));
    let mut run = command.spawn().context("cannot run it")?;
    let beside = until_runs(worker, &mut run).and_then(|()| pss_beside(worker));
    worker.oci(["kill", ID, "KILL"])?;
    run.wait()?;
    worker.watch.settle()?;
    beside
}

fn until_runs(worker: &Worker<'_>, run: &mut Child) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let runs = || {
        let pid = fs::read_to_string(worker.pid_file(ID)).ok()?;
        let program = fs::read_link(format!("/proc/{}/exe", pid.trim())).ok()?;
        program.ends_with("busybox").then_some(())
    };
    while runs().is_none() {
        if Instant::now() > deadline || run.try_wait()?.is_some() {
            bail!("the program does not run");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn pss_beside(worker: &Worker<'_>) -> Result<f64> {
    // Idle is who has had nothing to do for a while, and has given back by then what it gives back at all.
    std::thread::sleep(Duration::from_secs(2));
    let init: u32 = fs::read_to_string(worker.pid_file(ID))?.trim().parse()?;
    let others = descendants(std::process::id())?.into_iter().filter(|pid| *pid != init);
    Ok(others.filter_map(pss).sum())
}

fn descendants(of: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    for pid in children.unwrap_or_default().split_whitespace() {
        let pid = pid.parse()?;
        found.push(pid);
        found.extend(descendants(pid)?);
    }
    Ok(found)
}

/// In KiB; none for a process that has ended.
fn pss(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn size(peer: &Peer) -> Result<f64> {
    Ok(fs::metadata(&peer.program)?.len() as f64 / 1024.0)
}
