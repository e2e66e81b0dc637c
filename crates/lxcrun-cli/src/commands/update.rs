//! `update`

use std::io::Read;

use anyhow::Context;
use lxcrun::Container;
use lxcrun::oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::size::parse_size;
use crate::cli;

pub fn update(container: &Container, args: &cli::Update) -> anyhow::Result<()> {
    let resources = match &args.resources {
        Some(path) => read(path)?,
        None => from_options(args)?,
    };
    Ok(container.update(&resources)?)
}

fn read(path: &std::path::Path) -> anyhow::Result<LinuxResources> {
    let name = || format!("--resources {}", path.display());
    let mut text = Vec::new();
    if path == std::path::Path::new("-") {
        std::io::stdin().read_to_end(&mut text).with_context(name)?;
    } else {
        text = std::fs::read(path).with_context(name)?;
    }
    serde_json::from_slice(&text).with_context(name)
}

fn from_options(args: &cli::Update) -> anyhow::Result<LinuxResources> {
    let size = |name: &str, text: &Option<String>| {
        text.as_deref().map(parse_size).transpose().with_context(|| name.to_owned())
    };
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(size("--memory", &args.memory)?)
        .set_reservation(size("--memory-reservation", &args.memory_reservation)?)
        .set_swap(size("--memory-swap", &args.memory_swap)?);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(args.cpu_share)
        .set_quota(args.cpu_quota)
        .set_period(args.cpu_period)
        .set_burst(args.cpu_burst)
        .set_realtime_period(args.cpu_rt_period)
        .set_realtime_runtime(args.cpu_rt_runtime)
        .set_idle(args.cpu_idle)
        .set_cpus(args.cpuset_cpus.clone())
        .set_mems(args.cpuset_mems.clone());
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory)).set_cpu(Some(cpu));
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if args.blkio_weight.is_some() {
        let mut io = LinuxBlockIo::default();
        io.set_weight(args.blkio_weight);
        resources.set_block_io(Some(io));
    }
    Ok(resources)
}
