//! `run -- CMD`: a bundle made from options.

use std::collections::HashSet;
use std::env::VarError;
use std::path::Path;

use anyhow::{Context, bail};
use lxcrun::oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxNamespaceType, LinuxPids,
    LinuxResources, Process, Root, Spec,
};
use lxcrun::{Bundle, ContainerId};

use super::exec::parse_user;
use super::mount::parse_mount;
use super::rootless;
use super::size::parse_size;
use crate::cli::{self, Friendly, Network};
use crate::rootfs;

/// What a program gets that nobody took anything from: Docker's default.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The id and the bundle for a command line without one.
pub fn bundle(args: &cli::Run) -> anyhow::Result<(ContainerId, Bundle)> {
    let wanted = &args.friendly;
    let id: ContainerId = match &wanted.name {
        Some(name) => name.parse()?,
        None => format!("lxcrun-{}", std::process::id()).parse()?,
    };
    let rootfs = match &wanted.rootfs {
        Some(path) => std::fs::canonicalize(path).with_context(|| format!("--rootfs {}", path.display()))?,
        None => rootfs::default_rootfs()?,
    };
    let spec = spec(&id, &rootfs, args)?;
    Ok((id, Bundle::from_spec(&rootfs, &spec)?))
}

/// `--lxc-conf`
pub fn lxc_config(args: &cli::Run) -> anyhow::Result<Vec<(String, String)>> {
    let pair = |text: &String| {
        let (key, value) =
            text.split_once('=').with_context(|| format!("--lxc-conf {text}: is not KEY=VALUE"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    args.friendly.lxc_conf.iter().map(pair).collect()
}

fn spec(id: &ContainerId, rootfs: &Path, args: &cli::Run) -> anyhow::Result<Spec> {
    let wanted = &args.friendly;
    let mut spec = lxcrun::default_spec();
    let mut root = Root::default();
    root.set_path(rootfs.to_owned()).set_readonly(Some(wanted.read_only));
    spec.set_root(Some(root)).set_hostname(Some(wanted.hostname.clone().unwrap_or_else(|| short(id))));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &wanted.mount {
        mounts.push(parse_mount(mount).with_context(|| format!("--mount {mount}"))?);
    }
    spec.set_mounts(Some(mounts));
    let process = spec.process().clone().unwrap_or_default();
    spec.set_process(Some(self::process(process, args)?));
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_resources(Some(resources(wanted)?));
    if wanted.network == Network::Host {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain(|n| n.typ() != LinuxNamespaceType::Network);
        linux.set_namespaces(Some(namespaces));
    }
    spec.set_linux(Some(linux));
    rootless::adapt(&mut spec)?;
    Ok(spec)
}

/// `process` as the options want it.
fn process(mut process: Process, args: &cli::Run) -> anyhow::Result<Process> {
    let wanted = &args.friendly;
    let env = environment(process.env().clone().unwrap_or_default(), wanted)?;
    let all: HashSet<Capability> = CAPABILITIES.into_iter().collect();
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(all.clone())).set_effective(Some(all.clone())).set_permitted(Some(all));
    process
        .set_args(Some(args.command.clone()))
        .set_env(Some(env))
        .set_terminal(Some(wanted.tty))
        .set_no_new_privileges(Some(false))
        .set_rlimits(None)
        .set_capabilities(Some(capabilities));
    if let Some(directory) = &wanted.workdir {
        process.set_cwd(directory.clone());
    }
    if let Some(user) = &wanted.user {
        process.set_user(parse_user(user, process.user())?);
    }
    Ok(process)
}

/// `env` with what `--env` says; of a name that is there already the new value counts.
fn environment(mut env: Vec<String>, wanted: &Friendly) -> anyhow::Result<Vec<String>> {
    env.retain(|e| wanted.tty || !e.starts_with("TERM="));
    for variable in &wanted.env {
        let variable = match variable.split_once('=') {
            Some(_) => variable.clone(),
            None => match std::env::var(variable) {
                Ok(value) => format!("{variable}={value}"),
                Err(VarError::NotPresent) => continue,
                Err(VarError::NotUnicode(_)) => bail!("--env {variable}: its value is not UTF-8"),
            },
        };
        let name = format!("{}=", variable.split('=').next().unwrap_or_default());
        env.retain(|e| !e.starts_with(&name));
        env.push(variable);
    }
    Ok(env)
}

/// A host name has 64 bytes at most.
fn short(id: &ContainerId) -> String {
    id.as_str().chars().take(64).collect()
}

fn resources(wanted: &Friendly) -> anyhow::Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    let mut deny = LinuxDeviceCgroup::default();
    deny.set_allow(false).set_access(Some("rwm".into()));
    resources.set_devices(Some(vec![deny]));
    if let Some(limit) = &wanted.memory {
        let limit = parse_size(limit).context("--memory")?;
        if limit == 0 {
            bail!("--memory 0: is no limit to a specification; without --memory there is none");
        }
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit));
        resources.set_memory(Some(memory));
    }
    if let Some(cpus) = wanted.cpus {
        const PERIOD: u64 = 100_000;
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        // checked to be small just below
        let quota = (cpus * PERIOD as f64) as i64;
        if !(cpus.is_finite() && (1_000..=100_000_000).contains(&quota)) {
            bail!("--cpus: {cpus} is not between 0.01 and 1000");
        }
        let mut cpu = LinuxCpu::default();
        cpu.set_period(Some(PERIOD)).set_quota(Some(quota));
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = wanted.pids {
        if limit == 0 {
            bail!("--pids 0: is no limit to a specification; without --pids there is none");
        }
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}
