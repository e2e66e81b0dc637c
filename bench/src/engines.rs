//! A container from `docker run`, `podman run` and `ctr run` to its end: what a user of an engine waits for.
//!
//! Only the clock counts: an engine's daemon and its shims are nobody's children here.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use lxcrun_test::engines::{self, Containerd, Docker, Engine, IMAGE, Podman};
use serde_json::{Value, json};

use crate::Bench;
use crate::peer::{Kind, OURS, Peer};
use crate::report::{Group, Metric, Report};

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let fit: Vec<&Peer> = bench.peers.iter().filter(|peer| peer.kind == Kind::Oci).collect();
    let others = fit.iter().filter(|peer| peer.name != "runc"); // dockerd knows runc
    let runtimes = others.map(|peer| (peer.name.clone(), json!({ "path": peer.program })));
    let runtimes: serde_json::Map<String, Value> = runtimes.collect();
    let settings = json!({ "runtimes": runtimes, "exec-opts": ["native.cgroupdriver=cgroupfs"] });
    let docker = Docker::configured(&settings.to_string());
    docker.call(&["load", "--input", "/run/image/image.tar"]);
    let (podman, containerd) = (Podman::get(), Containerd::get());
    let parent = format!("/{}", podman.sandbox().name());
    bench.rounds(Group::Engines, &fit, report, |peer, report| {
        let program = peer.program.display().to_string();
        let mut add = |row: &str, mut command: Command| {
            let wall = time(&mut command)?;
            report.add(Group::Engines, row, Metric::Wall, &peer.name, wall);
            Ok::<(), anyhow::Error>(())
        };
        let words = ["docker", "run", "--rm", "--pull", "never", "--runtime", &peer.name, IMAGE, "true"];
        add("docker run --rm", inside(&docker, &words))?;
        let words = ["podman", "--runtime", &program, "--cgroup-manager", "cgroupfs", "run", "--rm"];
        let more = ["--pull", "never", "--cgroup-parent", &parent, IMAGE, "true"];
        add("podman run --rm", inside(podman, &[&words[..], &more].concat()))?;
        let ctr = |runtime: [&str; 2]| {
            let words = ["ctr", "--namespace", containerd.sandbox().name(), "run", "--rm"];
            inside(containerd, &[&words[..], &runtime, &[IMAGE, "bench", "true"]].concat())
        };
        let runcs_shim = ["--runc-binary", &program];
        add("ctr run --rm, runc's shim", ctr(runcs_shim))?;
        let own_shim = if peer.name == OURS { ["--runtime", "io.containerd.lxcrun.v2"] } else { runcs_shim };
        add("ctr run --rm, lxcrun's shim beside runc's", ctr(own_shim))
    });
    engines::end();
    Ok(())
}

fn inside(engine: &dyn Engine, words: &[&str]) -> Command {
    let mut command = engine.sandbox().command(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Milliseconds.
fn time(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let output = command.output()?;
    let wall = start.elapsed();
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, words.trim());
    Ok(wall.as_secs_f64() * 1e3)
}
