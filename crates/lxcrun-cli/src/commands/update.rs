//! `update`

use std::io::Read;

use anyhow::Context;
use lxcrun::Container;
use lxcrun::oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::size::parse_size;
use crate::cli;

pub fn update(container: &Container, args: &cli::Update) -> anyhow::Result<()> {
    let resources = match cli::given(&args.resources) {
        Some(path) => read(path)?,
        None => from_options(args)?,
    };
    check_rdt(args)?;
    let schemata = [&args.l3_cache_schema, &args.mem_bw_schema];
    let schemata = schemata.into_iter().filter_map(|s| s.as_deref()).flat_map(str::lines);
    let lines: Vec<&str> = schemata.filter(|line| !line.is_empty()).collect();
    Ok(container.update_with_schemata(&resources, &lines)?)
}

/// Intel RDT needs its file system mounted.
fn check_rdt(args: &cli::Update) -> anyhow::Result<()> {
    let given = |schema: &Option<String>| schema.as_ref().is_some_and(|s| !s.is_empty());
    for (name, wanted, feature) in [
        ("Intel RDT/CAT: l3 cache schema", given(&args.l3_cache_schema), "L3"),
        ("Intel RDT/MBA: memory bandwidth schema", given(&args.mem_bw_schema), "MB"),
    ] {
        if wanted && !std::path::Path::new("/sys/fs/resctrl/info").join(feature).exists() {
            anyhow::bail!("{name} is not enabled: this host has no /sys/fs/resctrl/info/{feature}");
        }
    }
    Ok(())
}

fn read(path: &std::path::Path) -> anyhow::Result<LinuxResources> {
    let name = || format!("--resources {}", path.display());
    let mut text = Vec::new();
    if path == std::path::Path::new("-") {
        std::io::stdin().read_to_end(&mut text).with_context(name)?;
    } else {
        text = std::fs::read(path).with_context(name)?;
    }
    lxcrun::parse_resources(&text).map_err(anyhow::Error::msg).with_context(name)
}

fn from_options(args: &cli::Update) -> anyhow::Result<LinuxResources> {
    for (name, value) in
        [("kernel-memory", &args.kernel_memory), ("kernel-memory-tcp", &args.kernel_memory_tcp)]
    {
        if value.is_some() {
            tracing::warn!("--{name} is obsolete and has no effect");
        }
    }
    // An empty value is none, and so is a 0: engines pass on what they were not told.
    let text = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let size = |name: &str, value: &Option<String>| {
        text(value)
            .as_deref()
            .map(parse_size)
            .transpose()
            .with_context(|| format!("invalid value for {name}"))
    };
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(size("memory", &args.memory)?)
        .set_reservation(size("memory-reservation", &args.memory_reservation)?)
        .set_swap(size("memory-swap", &args.memory_swap)?);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(args.cpu_share)
        .set_quota(args.cpu_quota)
        .set_period(args.cpu_period)
        .set_burst(args.cpu_burst)
        .set_realtime_period(args.cpu_rt_period)
        .set_realtime_runtime(args.cpu_rt_runtime)
        .set_idle(args.cpu_idle)
        .set_cpus(text(&args.cpuset_cpus))
        .set_mems(text(&args.cpuset_mems));
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory)).set_cpu(Some(cpu));
    if let Some(limit) = args.pids_limit.filter(|limit| *limit != 0) {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if args.blkio_weight.is_some_and(|weight| weight != 0) {
        let mut io = LinuxBlockIo::default();
        io.set_weight(args.blkio_weight);
        resources.set_block_io(Some(io));
    }
    Ok(resources)
}
