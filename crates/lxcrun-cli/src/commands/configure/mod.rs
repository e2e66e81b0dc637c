//! `configure`: registers this runtime with an engine, in what is there already.

mod file;
mod json;
mod toml;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use self::file::ConfigFile;
use super::print_text;
use crate::cli::{self, EngineName};

/// What the runtime is called in every configuration.
const NAME: &str = "lxcrun";
/// Our shim, as containerd and Docker call it, and its program.
const SHIM: (&str, &str) = ("io.containerd.lxcrun.v2", "containerd-shim-lxcrun-v2");

/// What is to be in the file, or no longer.
#[derive(Debug)]
struct Wanted {
    program: String,
    default: bool,
    shim: bool,
    /// Whether containerd finds a shim by its path. One before 1.7 reads the path, and takes runc's shim.
    shim_by_path: bool,
    remove: bool,
    /// The file as it was before anything of ours was in it, where that is known: empty when there was none.
    before: Option<String>,
}

impl Wanted {
    /// Our shim, which is installed beside this program.
    fn shim_program(&self) -> String {
        Path::new(&self.program).with_file_name(SHIM.1).display().to_string()
    }
}

/// What a file says of this runtime.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    registered: bool,
    /// The default runtime, whoever that is.
    default: Option<String>,
}

impl Found {
    fn is_none_of_ours(&self) -> bool {
        !self.registered && self.default.as_deref() != Some(NAME)
    }
}

pub fn configure(args: &cli::Configure) -> anyhow::Result<()> {
    let engine = args.engine;
    if args.shim && matches!(engine, EngineName::Podman | EngineName::Crio) {
        bail!("configure: --shim is for docker and containerd: the others use no shims");
    }
    let path = cli::given(&args.file).map_or_else(|| usual_file(engine), |path| Ok(path.into()))?;
    let file = ConfigFile::open(&path)?;
    let wanted = Wanted {
        before: file.backup()?,
        program: program(cli::given(&args.runtime))?,
        default: args.default,
        shim: args.shim,
        shim_by_path: args.shim && engine == EngineName::Containerd && containerd_release() >= Some((1, 7)),
        remove: args.remove,
    };
    let text = if wanted.remove && !file.is_there() {
        String::new()
    } else {
        change(engine, file.text(), &wanted).with_context(|| file.path().display().to_string())?
    };
    if args.dry_run {
        return print_text(&text);
    }
    let name = file.path().display().to_string();
    let is = if wanted.remove { "is not registered" } else { "is registered" };
    let kept = to_keep(engine, &file, &wanted).with_context(|| file.path().display().to_string())?;
    let Some(backup) = file.replace(&text, kept.as_deref())? else {
        return print_text(&format!("{name}: {NAME} {is} already\n"));
    };
    let backup = backup.map(|path| format!(" (as it was at first: {})", path.display())).unwrap_or_default();
    print_text(&format!("{name}: {NAME} {is}{backup}\n{}\n", reload(engine)))?;
    if wanted.shim_by_path && !Path::new(&wanted.shim_program()).is_file() {
        tracing::warn!("{} is not there", wanted.shim_program());
    } else if wanted.shim && !wanted.shim_by_path && !on_path(SHIM.1) {
        tracing::warn!("{} is not on this PATH, where {engine:?} looks for it", SHIM.1);
    }
    Ok(())
}

/// What the backup is to be, if it is to be another one: the file as it was before this command's first change, with the
/// default that this command takes the place of.
fn to_keep(engine: EngineName, file: &ConfigFile, wanted: &Wanted) -> anyhow::Result<Option<String>> {
    let Some(before) = &wanted.before else { return Ok(Some(file.text().to_owned())) };
    if wanted.remove {
        return Ok(None);
    }
    let now = find(engine, file.text())?;
    if now.is_none_of_ours() {
        return Ok(Some(file.text().to_owned()));
    }
    let is_replaced = wanted.default && now.default.as_deref() != Some(NAME);
    if is_replaced && find(engine, before).map_or(true, |then| then.default != now.default) {
        let without =
            Wanted { remove: true, before: Some(before.clone()), program: String::new(), ..*wanted };
        return change(engine, file.text(), &without).map(Some);
    }
    Ok(None)
}

fn find(engine: EngineName, text: &str) -> anyhow::Result<Found> {
    match engine {
        EngineName::Docker => json::find(text),
        EngineName::Podman => toml::find(text, toml::Places::podman),
        EngineName::Containerd => toml::find(text, toml::Places::containerd),
        EngineName::Crio => toml::find(text, toml::Places::crio),
    }
}

/// The default to go back to, where it is this runtime now: `was` finds it in the file as it was before.
fn former_default<T>(
    wanted: &Wanted,
    key: &str,
    was: impl FnOnce(&str) -> anyhow::Result<(Option<String>, T)>,
) -> anyhow::Result<T> {
    let unknown = || {
        format!("{key}: is {NAME}, and what it was before is not known: say so there, and call this again")
    };
    let before =
        wanted.before.as_ref().context("there is no backup (.lxcrun-backup)").with_context(unknown)?;
    let (name, value) =
        was(before).context("the backup (.lxcrun-backup) can't be read").with_context(unknown)?;
    if name.as_deref() == Some(NAME) {
        bail!("{}: the backup (.lxcrun-backup) names {NAME}, too", unknown());
    }
    Ok(value)
}

/// The new text of a file.
fn change(engine: EngineName, text: &str, wanted: &Wanted) -> anyhow::Result<String> {
    match engine {
        EngineName::Docker => json::docker(text, wanted),
        EngineName::Podman => toml::podman(text, wanted),
        EngineName::Containerd => toml::containerd(text, wanted),
        EngineName::Crio => toml::crio(text, wanted),
    }
}

fn usual_file(engine: EngineName) -> anyhow::Result<PathBuf> {
    Ok(match engine {
        EngineName::Docker => "/etc/docker/daemon.json".into(),
        EngineName::Podman if lxcrun::is_ordinary_user() => {
            let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
            let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
            config
                .context("configure: HOME is not set: name the file by --file")?
                .join("containers/containers.conf")
        }
        EngineName::Podman => "/etc/containers/containers.conf".into(),
        EngineName::Containerd => "/etc/containerd/config.toml".into(),
        EngineName::Crio => "/etc/crio/crio.conf.d/50-lxcrun.conf".into(),
    })
}

/// The absolute path of the program to register.
fn program(given: Option<&Path>) -> anyhow::Result<String> {
    let path = match given {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_exe().context("configure: cannot find this program: use --runtime")?,
    };
    let name = path.to_str().with_context(|| format!("configure: {} is not UTF-8", path.display()))?;
    Ok(name.to_owned())
}

fn reload(engine: EngineName) -> &'static str {
    match engine {
        EngineName::Docker => "Reload it: systemctl reload docker (or send dockerd SIGHUP)",
        EngineName::Podman => "Nothing to reload: podman reads it each time",
        EngineName::Containerd => "Restart it: systemctl restart containerd (containers run on)",
        EngineName::Crio => "Restart it: systemctl restart crio (containers run on)",
    }
}

/// That of the containerd on this PATH: the third word that it says of itself.
fn containerd_release() -> Option<(u32, u32)> {
    let output = Command::new("containerd").arg("--version").stdin(Stdio::null()).output().ok()?;
    release(&String::from_utf8(output.stdout).ok()?)
}

fn release(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_whitespace().nth(2)?.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_known_by_its_words() {
        let debian = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n";
        assert_eq!(release(debian), Some((1, 6)));
        assert_eq!(release("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7\n"), Some((2, 1)));
        assert_eq!(
            release("containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da\n"),
            Some((1, 7))
        );
        for nothing in ["", "containerd", "a b c", "a b 2"] {
            assert_eq!(release(nothing), None);
        }
    }
}
