//! `start`: leaves a process behind that serves the task API, or finds the one of the container's pod.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use sha2::{Digest, Sha256};

use crate::flags::Flags;
use crate::options::Options;

/// Where the serving process finds its socket.
pub const SOCKET_FD: i32 = 3;
/// Where sockets of shims are, as those of others.
const SOCKETS: &str = "/run/containerd/s";
/// Containers with the same value of one of these share a shim: runc's shim and Kubernetes name groups by them.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Prints where the API is served. The bundle is the working directory.
pub fn start(flags: &Flags) -> anyhow::Result<()> {
    let options = Options::from_stdin(flags)?;
    let bundle = std::env::current_dir().context("the bundle")?;
    let group = group(&bundle)?.unwrap_or_else(|| flags.id.clone());
    let socket = socket_path(&flags.address, &flags.namespace, &group);
    let address = format!("unix://{}", socket.display());
    let mut server = listen(&socket)?.map(|listener| spawn(flags, listener)).transpose()?;
    let told = server.as_ref().map_or(Ok(()), |server| {
        adjust_oom_score(server.id());
        options.join_shim_cgroup(server.id())
    });
    let told = told.and_then(|()| {
        fs::write(bundle.join("address"), &address).context("cannot write the bundle's file address")?;
        std::io::stdout().write_all(address.as_bytes()).context("cannot tell the address")
    });
    if let (Err(_), Some(server)) = (&told, &mut server) {
        // Nobody will ever ask it to end.
        let _ = fs::remove_file(&socket);
        let _ = server.kill();
    }
    told
}

/// The pod that the container belongs to, by its annotations.
fn group(bundle: &Path) -> anyhow::Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: std::collections::HashMap<String, String>,
    }
    let path = bundle.join("config.json");
    let mut config = Vec::new();
    fs::File::open(&path)
        .and_then(|mut f| f.read_to_end(&mut config))
        .with_context(|| path.display().to_string())?;
    let mut spec: Annotated = serde_json::from_slice(&config).with_context(|| path.display().to_string())?;
    Ok(GROUPS.iter().find_map(|name| spec.annotations.remove(*name)))
}

/// One socket for each containerd, namespace and group.
fn socket_path(containerd: &str, namespace: &str, group: &str) -> PathBuf {
    let digest = Sha256::digest(format!("lxcrun/{containerd}/{namespace}/{group}"));
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(SOCKETS).join(name)
}

/// A listening socket, or none when somebody listens there already.
fn listen(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    fs::create_dir_all(SOCKETS).context(SOCKETS)?;
    // A socket that nobody listens at yet is not one that was left behind.
    let sockets = fs::File::open(SOCKETS).context(SOCKETS)?;
    retry_on_intr(|| flock(&sockets, FlockOperation::LockExclusive)).context(SOCKETS)?;
    let what = || format!("cannot listen at {}", path.display());
    match UnixListener::bind(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            // Left by one that was killed.
            fs::remove_file(path).with_context(what)?;
            UnixListener::bind(path).map(Some).with_context(what)
        }
        bound => bound.map(Some).with_context(what),
    }
}

/// Starts the process that serves. It needs no word of ours: connections wait at the socket until it takes them.
fn spawn(flags: &Flags, listener: UnixListener) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("our own path")?);
    command.arg0("containerd-shim-lxcrun-v2");
    command.args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &flags.address]);
    if flags.debug {
        command.arg("-debug");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mapping = FdMapping { parent_fd: OwnedFd::from(listener), child_fd: SOCKET_FD };
    command.fd_mappings(vec![mapping])?;
    command.spawn().context("cannot start the serving process")
}

/// The kernel shall end a shim rather than containerd, which is our parent. Less than we have can't always be had, and
/// is no reason to fail.
fn adjust_oom_score(pid: u32) {
    let path = format!("/proc/{}/oom_score_adj", std::os::unix::process::parent_id());
    let parents = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = parents.filter(|score| *score < 1000) {
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_socket_of_its_own() {
        let path = socket_path("/run/containerd/containerd.sock", "default", "a");
        assert_eq!(path.file_name().unwrap().len(), 64);
        assert_ne!(path, socket_path("/run/containerd/containerd.sock", "default", "b"));
        assert_ne!(path, socket_path("/run/containerd/containerd.sock", "other", "a"));
        assert_ne!(path, socket_path("/run/other.sock", "default", "a"));
    }

    #[test]
    fn the_group_is_that_of_the_annotations() {
        let bundle = std::env::temp_dir().join(format!("lxcrun-shim-group-{}", std::process::id()));
        fs::create_dir_all(&bundle).unwrap();
        let group_of = |config: &str| {
            fs::write(bundle.join("config.json"), config).unwrap();
            group(&bundle).unwrap()
        };
        assert_eq!(group_of("{}"), None);
        assert_eq!(
            group_of(r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}"#),
            Some("pod".into())
        );
        fs::remove_dir_all(&bundle).unwrap();
    }
}
