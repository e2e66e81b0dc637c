//! What containerd's configuration says for this runtime: with the keys of runc's shim.
//!
//! They come as runc's own message (Docker, `ctr`), or as TOML, in containerd's configuration or in a file that it names
//! (Kubernetes, `ctr run --runtime-config-path`).

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use containerd_shim_protos::bootstrap_api::BootstrapParams;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci;
use serde::Deserialize;

use crate::flags::Flags;

/// Where states are unless `Root` says otherwise; below it is a directory for each of containerd's namespaces.
pub const ROOT: &str = "/run/containerd/lxcrun";
/// The file of a bundle that remembers the state root for `delete`, which is told no options.
const REMEMBERED: &str = "lxcrun-root";

/// The options of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Options {
    /// Move the root instead of pivot_root(2).
    pub no_pivot_root: bool,
    /// Keep the shim's session keyring.
    pub no_new_keyring: bool,
    /// The cgroup of the shim.
    pub shim_cgroup: String,
    /// The owner of pipes and fifos.
    pub io_uid: u32,
    pub io_gid: u32,
    binary_name: String,
    root: String,
    /// Have systemd make a scope for the container. Also done for a cgroup path that only systemd understands.
    pub systemd_cgroup: bool,
    pub criu_image_path: String,
    pub criu_work_path: String,
    /// Where CRIU is: found by PATH, as always.
    criu_path: String,
}

/// The options of a runtime that containerd knows nothing about: `runtimeoptions.v1.Options`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Generic {
    #[prost(string, tag = "2")]
    config_path: String,
    #[prost(bytes = "vec", tag = "3")]
    config_body: Vec<u8>,
}

/// What the client of containerd 1 (`ctr run --uidmap`) tells a runtime that it doesn't know:
/// `containerd.linux.runc.CreateOptions`. Fields of checkpoints are in it, too, and have never meant anything here.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Old {
    #[prost(bool, tag = "1")]
    no_pivot_root: bool,
    #[prost(bool, tag = "8")]
    no_new_keyring: bool,
    #[prost(string, tag = "9")]
    shim_cgroup: String,
    #[prost(uint32, tag = "10")]
    io_uid: u32,
    #[prost(uint32, tag = "11")]
    io_gid: u32,
    #[prost(string, tag = "12")]
    criu_work_path: String,
    #[prost(string, tag = "13")]
    criu_image_path: String,
}

impl Options {
    /// Those that `start` gets.
    pub fn from_stdin(flags: &Flags) -> anyhow::Result<Self> {
        let mut input = Vec::new();
        std::io::stdin().read_to_end(&mut input).context("cannot read the options")?;
        Self::of_start(&input, flags)
    }

    /// containerd 2.3 and later say more than the options, which are an extension then. What else they say, command line and
    /// environment do, too. Each message can be read as the other: what counts is whether it names the container of the
    /// command line.
    fn of_start(input: &[u8], flags: &Flags) -> anyhow::Result<Self> {
        match BootstrapParams::parse_from_bytes(input) {
            Ok(params) if params.instance_id == flags.id && params.namespace == flags.namespace => {
                for any in params.extensions.iter().filter_map(|extension| extension.value.as_ref()) {
                    // Others are for somebody else.
                    if let Some(options) = Self::known(any)? {
                        return Ok(options);
                    }
                }
                Ok(Self::default())
            }
            _ => Self::of(&Any::parse_from_bytes(input).context("the options")?),
        }
    }

    /// Those of a container.
    pub fn of(any: &Any) -> anyhow::Result<Self> {
        if any.type_url.is_empty() {
            return Ok(Self::default());
        }
        Self::known(any)?
            .with_context(|| format!("options of the type {} are not for this runtime", any.type_url))
    }

    /// The options in a message, if it is one of options.
    fn known(any: &Any) -> anyhow::Result<Option<Self>> {
        let options = match any.type_url.rsplit('/').next().unwrap_or_default() {
            "containerd.runc.v1.Options" => {
                oci::Options::parse_from_bytes(&any.value).context("the options")?.into()
            }
            "containerd.linux.runc.CreateOptions" => {
                let old: Old = prost::Message::decode(&*any.value).context("the options")?;
                old.into()
            }
            "runtimeoptions.v1.Options" => {
                let generic: Generic = prost::Message::decode(&*any.value).context("the options")?;
                Self::from_toml(&generic)?
            }
            _ => return Ok(None),
        };
        options.check()?;
        Ok(Some(options))
    }

    fn from_toml(generic: &Generic) -> anyhow::Result<Self> {
        let text = if generic.config_path.is_empty() {
            String::from_utf8(generic.config_body.clone()).context("the options")?
        } else {
            fs::read_to_string(&generic.config_path)
                .with_context(|| format!("the options in {}", generic.config_path))?
        };
        toml::from_str(&text).context("the options")
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.binary_name.is_empty(),
            "the option BinaryName = {:?} is for runc's shim; this one is the runtime itself",
            self.binary_name
        );
        ensure!(
            self.criu_path.is_empty(),
            "the option CriuPath is gone from containerd: criu is found by PATH"
        );
        ensure!(
            self.root.is_empty() || self.root.starts_with('/'),
            "the option Root = {:?} is no absolute path",
            self.root
        );
        Ok(())
    }

    /// The state root of containers in a namespace.
    pub fn state_root(&self, namespace: &str) -> PathBuf {
        Path::new(if self.root.is_empty() { ROOT } else { &self.root }).join(namespace)
    }

    /// Moves the shim to its cgroup, on every hierarchy.
    pub fn join_shim_cgroup(&self, pid: u32) -> anyhow::Result<()> {
        if self.shim_cgroup.is_empty() {
            return Ok(());
        }
        lxcrun::enter_cgroup(&self.shim_cgroup, pid)
            .with_context(|| format!("the option ShimCgroup = {:?}", self.shim_cgroup))
    }
}

impl From<oci::Options> for Options {
    fn from(given: oci::Options) -> Self {
        Self {
            no_pivot_root: given.no_pivot_root,
            no_new_keyring: given.no_new_keyring,
            shim_cgroup: given.shim_cgroup,
            io_uid: given.io_uid,
            io_gid: given.io_gid,
            binary_name: given.binary_name,
            root: given.root,
            systemd_cgroup: given.systemd_cgroup,
            criu_image_path: given.criu_image_path,
            criu_work_path: given.criu_work_path,
            criu_path: String::new(),
        }
    }
}

impl From<Old> for Options {
    fn from(given: Old) -> Self {
        Self {
            no_pivot_root: given.no_pivot_root,
            no_new_keyring: given.no_new_keyring,
            shim_cgroup: given.shim_cgroup,
            io_uid: given.io_uid,
            io_gid: given.io_gid,
            criu_image_path: given.criu_image_path,
            criu_work_path: given.criu_work_path,
            ..Self::default()
        }
    }
}

/// Remembers a state root in the bundle.
pub fn remember_root(bundle: &Path, root: &Path) -> std::io::Result<()> {
    fs::write(bundle.join(REMEMBERED), root.as_os_str().as_encoded_bytes())
}

/// The state root of the bundle's container.
pub fn remembered_root(bundle: &Path, namespace: &str) -> PathBuf {
    match fs::read_to_string(bundle.join(REMEMBERED)) {
        Ok(root) => root.into(),
        Err(_) => Options::default().state_root(namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};

    fn generic(body: &str) -> Any {
        let generic = Generic { config_path: String::new(), config_body: body.into() };
        let value = prost::Message::encode_to_vec(&generic);
        Any { type_url: "types.containerd.io/runtimeoptions.v1.Options".into(), value, ..Any::default() }
    }

    #[test]
    fn options_are_runcs_in_either_form() {
        let message =
            oci::Options { systemd_cgroup: true, root: "/r".into(), io_uid: 7, ..oci::Options::default() };
        let value = message.write_to_bytes().unwrap();
        let any = Any { type_url: "containerd.runc.v1.Options".into(), value, ..Any::default() };
        let wanted = Options { systemd_cgroup: true, root: "/r".into(), io_uid: 7, ..Options::default() };
        assert_eq!(Options::of(&any).unwrap(), wanted);
        assert_eq!(Options::of(&generic("SystemdCgroup = true\nRoot = \"/r\"\nIoUid = 7")).unwrap(), wanted);
        let old = Old { no_pivot_root: true, io_uid: 7, io_gid: 8, ..Old::default() };
        let value = prost::Message::encode_to_vec(&old);
        let any = Any { type_url: "containerd.linux.runc.CreateOptions".into(), value, ..Any::default() };
        let of_old = Options { no_pivot_root: true, io_uid: 7, io_gid: 8, ..Options::default() };
        assert_eq!(Options::of(&any).unwrap(), of_old);
        assert_eq!(wanted.state_root("n"), Path::new("/r/n"));
        assert_eq!(
            Options::of(&Any::default()).unwrap().state_root("n"),
            Path::new("/run/containerd/lxcrun/n")
        );
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        for body in ["BinaryName = \"runc\"", "Root = \"relative\"", "Nonsense = 1", "IoUid = \"x\""] {
            assert!(Options::of(&generic(body)).is_err(), "{body}");
        }
        assert!(Options::of(&Any { type_url: "other".into(), ..Any::default() }).is_err());
    }

    #[test]
    fn containerd_may_say_more_than_options() {
        let flags = Flags { id: "web".into(), namespace: "k8s.io".into(), ..Flags::default() };
        let start = |id: &str, extensions: Vec<Any>| {
            let value = |any| Extension { value: MessageField::some(any), ..Extension::default() };
            let params = BootstrapParams {
                instance_id: id.into(),
                namespace: "k8s.io".into(),
                log_level: EnumOrUnknown::from_i32(-4),
                containerd_ttrpc_address: "/c.sock.ttrpc".into(),
                extensions: extensions.into_iter().map(value).collect(),
                ..BootstrapParams::default()
            };
            Options::of_start(&params.write_to_bytes().unwrap(), &flags)
        };
        let any = |type_url: &str, value| Any { type_url: type_url.into(), value, ..Any::default() };
        let foreign = || any("containerd.io/cri.v1.PodSandboxConfig", b"\xff".to_vec());
        assert_eq!(start("web", vec![]).unwrap(), Options::default());
        assert_eq!(start("web", vec![foreign()]).unwrap(), Options::default());
        let wanted = Options { root: "/r".into(), ..Options::default() };
        let message = oci::Options { root: "/r".into(), ..oci::Options::default() };
        let runcs = any("containerd.runc.v1.Options", message.write_to_bytes().unwrap());
        assert_eq!(start("web", vec![foreign(), runcs.clone()]).unwrap(), wanted);
        assert_eq!(start("web", vec![generic("Root = \"/r\"")]).unwrap(), wanted);
        let other = start("other", vec![]).unwrap_err().to_string();
        assert!(other.contains("options of the type other"), "{other}");

        // As every containerd before it.
        assert_eq!(Options::of_start(&runcs.write_to_bytes().unwrap(), &flags).unwrap(), wanted);
        assert_eq!(Options::of_start(b"", &flags).unwrap(), Options::default());
    }
}
