//! `checkpoint` and `restore`

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use lxcrun::{Bundle, CgroupsMode, CheckpointOptions, Container, ContainerId, RestoreOptions};

use super::{absolute, run};
use crate::cli::{self, Cli};
use crate::relay::Signals;

/// As in runc the container is gone afterwards, unless it runs on.
pub fn checkpoint(root: &Path, args: &cli::Checkpoint, inherited: Vec<OwnedFd>) -> anyhow::Result<()> {
    let id: ContainerId = args.id.parse()?;
    let options = CheckpointOptions {
        image_path: image_path(&args.criu)?,
        work_path: absolute(&args.criu.work_path)?,
        parent_path: cli::given(&args.parent_path).map(Path::to_owned),
        leave_running: args.leave_running,
        tcp_established: args.criu.tcp_established,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.criu.link_remap,
        ext_unix_sk: args.criu.ext_unix_sk,
        shell_job: args.criu.shell_job,
        lazy_pages: args.criu.lazy_pages,
        status_fd: inherited.into_iter().next(),
        page_server: args.page_server.as_deref().map(page_server).transpose()?,
        file_locks: args.criu.file_locks,
        pre_dump: args.pre_dump,
        cgroups_mode: cgroups_mode(&args.criu),
        auto_dedup: args.criu.auto_dedup,
    };
    let container = Container::load(root, &id)?;
    container.checkpoint(&options)?;
    if !args.leave_running && !args.pre_dump {
        container.delete()?;
    }
    Ok(())
}

pub fn restore(root: &Path, cli: &Cli, args: &cli::Restore) -> anyhow::Result<ExitCode> {
    let id: ContainerId = args.id.parse()?;
    let bundle = Bundle::open(super::directory(&args.bundle))?;
    let mut options = RestoreOptions {
        image_path: image_path(&args.criu)?,
        work_path: absolute(&args.criu.work_path)?,
        stdio: None,
        console_socket: absolute(&args.console_socket)?,
        pid_file: absolute(&args.pid_file)?,
        detach: args.detach,
        tcp_established: args.criu.tcp_established,
        ext_unix_sk: args.criu.ext_unix_sk,
        shell_job: args.criu.shell_job,
        file_locks: args.criu.file_locks,
        link_remap: args.criu.link_remap,
        cgroups_mode: cgroups_mode(&args.criu),
        systemd_cgroup: cli.global.systemd_cgroup,
        auto_dedup: args.criu.auto_dedup,
        lazy_pages: args.criu.lazy_pages,
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
        cancelled: None,
    };
    if args.detach {
        lxcrun::restore(root, &id, &bundle, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Signals::block()?;
    options.cancelled = Some(Signals::of_end()?);
    let mut container = lxcrun::restore(root, &id, &bundle, options)?;
    let ended = run::until_end(&mut container, &signals);
    Ok(ExitCode::from(run::first_failure(ended, container.delete())?.code()))
}

fn image_path(args: &cli::Criu) -> std::io::Result<PathBuf> {
    std::path::absolute(cli::given(&args.image_path).unwrap_or(Path::new("checkpoint")))
}

/// The descriptor of `--status-fd`, if there is one.
pub fn take_status_fd(args: &cli::Checkpoint) -> anyhow::Result<Vec<OwnedFd>> {
    let Some(number) = args.status_fd.filter(|fd| *fd != -1) else { return Ok(Vec::new()) };
    anyhow::ensure!(number > 2, "--status-fd: {number} is not a descriptor for it");
    let taken = kernel::take_inherited(number);
    Ok(vec![taken.with_context(|| format!("--status-fd: descriptor {number} is not open"))?])
}

/// `ADDRESS:PORT`; an IPv6 address is in brackets.
fn page_server(text: &str) -> anyhow::Result<(String, u16)> {
    let wrong = || format!("--page-server: {text:?} is not ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').with_context(wrong)?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    anyhow::ensure!(!address.is_empty(), wrong());
    Ok((address.into(), port.parse().with_context(wrong)?))
}

fn cgroups_mode(args: &cli::Criu) -> Option<CgroupsMode> {
    Some(match args.manage_cgroups_mode? {
        cli::CgroupsMode::Ignore => CgroupsMode::Ignore,
        cli::CgroupsMode::Soft => CgroupsMode::Soft,
        cli::CgroupsMode::Full => CgroupsMode::Full,
        cli::CgroupsMode::Strict => CgroupsMode::Strict,
    })
}
