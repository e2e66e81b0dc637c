//! Saving a task to images, and making it again from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use containerd_shim_protos::api::CheckpointTaskRequest;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci;
use lxcrun::{CgroupsMode, CheckpointOptions, RestoreOptions};

use crate::task::Task;

/// What the client of containerd 1 tells a runtime that it doesn't know: `containerd.linux.runc.CheckpointOptions`. The last two
/// fields have changed places since.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Old {
    #[prost(bool, tag = "1")]
    exit: bool,
    #[prost(bool, tag = "2")]
    open_tcp: bool,
    #[prost(bool, tag = "3")]
    external_unix_sockets: bool,
    #[prost(bool, tag = "4")]
    terminal: bool,
    #[prost(bool, tag = "5")]
    file_locks: bool,
    #[prost(string, repeated, tag = "6")]
    empty_namespaces: Vec<String>,
    #[prost(string, tag = "7")]
    cgroups_mode: String,
    #[prost(string, tag = "8")]
    work_path: String,
    #[prost(string, tag = "9")]
    image_path: String,
}

impl From<Old> for oci::CheckpointOptions {
    fn from(old: Old) -> Self {
        Self {
            exit: old.exit,
            open_tcp: old.open_tcp,
            external_unix_sockets: old.external_unix_sockets,
            terminal: old.terminal,
            file_locks: old.file_locks,
            empty_namespaces: old.empty_namespaces,
            cgroups_mode: old.cgroups_mode,
            work_path: old.work_path,
            image_path: old.image_path,
            ..Self::default()
        }
    }
}

impl Task {
    pub fn checkpoint(&self, request: &CheckpointTaskRequest) -> anyhow::Result<()> {
        let wanted = match &*request.options.type_url {
            "" => oci::CheckpointOptions::default(),
            name if name.ends_with("containerd.runc.v1.CheckpointOptions") => {
                oci::CheckpointOptions::parse_from_bytes(&request.options.value).context("the options")?
            }
            name if name.ends_with("containerd.linux.runc.CheckpointOptions") => {
                let old: Old = prost::Message::decode(&*request.options.value).context("the options")?;
                old.into()
            }
            other => bail!("options of the type {other} are not for a checkpoint"),
        };
        if !wanted.empty_namespaces.is_empty() {
            bail!("emptyNamespaces {:?}: the network's alone is left empty, always", wanted.empty_namespaces);
        }
        // containerd 1 looks for the client's directory in runc's options alone, and asks for one of its own then.
        let images = [&wanted.image_path, &request.path].into_iter().find(|path| !path.is_empty());
        let options = CheckpointOptions {
            image_path: images.context("no directory for the images")?.into(),
            work_path: path(&wanted.work_path),
            leave_running: !wanted.exit,
            tcp_established: wanted.open_tcp,
            ext_unix_sk: wanted.external_unix_sockets,
            shell_job: wanted.terminal,
            file_locks: wanted.file_locks,
            cgroups_mode: cgroups_mode(&wanted.cgroups_mode)?,
            ..CheckpointOptions::default()
        };
        Ok(self.container()?.checkpoint(&options)?)
    }

    /// The restored init is a child of this process: LXC takes no part in it.
    pub fn restore(self: &Arc<Self>, images: &Path) -> anyhow::Result<()> {
        let bundle = self.open_bundle()?;
        let opened = self.init.uris.open(self.owner(bundle.spec().process().as_ref()))?;
        *self.init.io() = opened.io;
        let options = RestoreOptions {
            image_path: images.into(),
            work_path: path(&self.options.criu_work_path),
            stdio: opened.stdio,
            systemd_cgroup: self.is_in_scope(&bundle),
            ..RestoreOptions::default()
        };
        let restored = lxcrun::restore(&self.root, &self.id, &bundle, options);
        self.adopt(restored.inspect_err(|_| self.init.io().close())?)
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn cgroups_mode(text: &str) -> anyhow::Result<Option<CgroupsMode>> {
    Ok(match text {
        "" => None,
        "ignore" => Some(CgroupsMode::Ignore),
        "soft" => Some(CgroupsMode::Soft),
        "full" => Some(CgroupsMode::Full),
        "strict" => Some(CgroupsMode::Strict),
        other => bail!("cgroupsMode {other:?} is none of ignore, soft, full and strict"),
    })
}
