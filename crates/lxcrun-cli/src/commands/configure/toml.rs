//! The configurations in TOML: podman's, containerd's and CRI-O's. Comments and order stay.

use anyhow::{Context, bail};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use super::{Found, NAME, SHIM, Wanted, former_default};

/// Those that podman and its relatives take for granted when the file doesn't say.
const SUPPORT_JSON: [&str; 6] = ["crun", "runc", "kata", "runsc", "youki", "krun"];

/// The plugin of containerd that has the runtimes, by the version of the file.
const CRI_PLUGINS: [(i64, &str); 2] = [(2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.runtime")];

/// The shim of runc and all that are called like it.
const RUNC: &str = "io.containerd.runc.v2";
/// What else has a shim: a program.
const PATH: &str = "runtime_path";

/// Where an engine's configuration has what we change.
pub struct Places {
    /// The table with the default, and its key.
    section: Vec<&'static str>,
    default: &'static str,
}

impl Places {
    pub fn podman(_: &mut Table) -> anyhow::Result<Self> {
        Ok(Self { section: vec!["engine"], default: "runtime" })
    }

    pub fn crio(_: &mut Table) -> anyhow::Result<Self> {
        Ok(Self { section: vec!["crio", "runtime"], default: "default_runtime" })
    }

    /// By the version of the file, which an empty one need not have.
    pub fn containerd(root: &mut Table) -> anyhow::Result<Self> {
        let version = match root.get("version").and_then(Item::as_integer) {
            None if root.is_empty() => 2,
            version => version.unwrap_or(1),
        };
        let Some((_, plugin)) = CRI_PLUGINS.iter().find(|(known, _)| *known == version) else {
            bail!("is of version {version}, not 2 or 3: see `containerd config migrate`");
        };
        Ok(Self { section: vec!["plugins", plugin, "containerd"], default: "default_runtime_name" })
    }

    fn runtimes(&self) -> Vec<&'static str> {
        [&*self.section, &["runtimes"]].concat()
    }
}

/// What finds the places in a file.
type Finder = fn(&mut Table) -> anyhow::Result<Places>;

pub fn find(text: &str, places: Finder) -> anyhow::Result<Found> {
    let mut document: DocumentMut = text.parse().context("is not TOML")?;
    let root = document.as_table_mut();
    let places = places(root)?;
    let registered = existing(root, &places.runtimes())?.is_some_and(|runtimes| runtimes.contains_key(NAME));
    let default =
        existing(root, &places.section)?.and_then(|s| s.get(places.default)?.as_str().map(str::to_owned));
    Ok(Found { registered, default })
}

/// Takes out our runtime, and brings back the default that it has replaced.
fn remove(root: &mut Table, wanted: &Wanted, find_places: Finder) -> anyhow::Result<()> {
    let places = find_places(root)?;
    take(root, &places.runtimes(), NAME)?;
    let section = existing(root, &places.section)?;
    if section.is_none_or(|section| section.get(places.default).and_then(Item::as_str) != Some(NAME)) {
        return Ok(());
    }
    let was = |before: &str| {
        let mut document: DocumentMut = before.parse().context("is not TOML")?;
        let root = document.as_table_mut();
        let there = find_places(root)?;
        let value = existing(root, &there.section)?.and_then(|s| s.get(there.default)?.as_value().cloned());
        Ok((value.as_ref().and_then(Value::as_str).map(str::to_owned), value))
    };
    match former_default(wanted, places.default, was)? {
        Some(value) => {
            put(table(root, &places.section)?, places.default, value);
            Ok(())
        }
        None => take(root, &places.section, places.default),
    }
}

/// Whether the file as it was before had nothing at `path`. Not where that is unknown.
fn was_without(wanted: &Wanted, path: impl FnOnce(&mut Table) -> Option<Vec<&'static str>>) -> bool {
    let Some(Ok(mut before)) = wanted.before.as_ref().map(|text| text.parse::<DocumentMut>()) else {
        return false;
    };
    let root = before.as_table_mut();
    let Some(path) = path(root) else { return false };
    let Some((key, parents)) = path.split_last() else { return false };
    existing(root, parents).is_ok_and(|parent| parent.is_none_or(|parent| !parent.contains_key(key)))
}

pub fn podman(text: &str, wanted: &Wanted) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse().context("is not TOML")?;
    if wanted.remove {
        let root = document.as_table_mut();
        remove(root, wanted, Places::podman)?;
        const NAMES: &str = "runtime_supports_json";
        if let Some(engine) = existing(root, &["engine"])?
            && let Some(names) = engine.get_mut(NAMES).and_then(Item::as_array_mut)
        {
            names.retain(|name| name.as_str() != Some(NAME));
            let is_ours = names.iter().map(Value::as_str).eq(SUPPORT_JSON.map(Some));
            if is_ours && was_without(wanted, |_| Some(vec!["engine", NAMES])) {
                take(root, &["engine"], NAMES)?;
            }
        }
        return Ok(document.to_string());
    }
    let engine = table(document.as_table_mut(), &["engine"])?;
    let names = engine.entry("runtime_supports_json").or_insert(value(Array::from_iter(SUPPORT_JSON)));
    let names = names.as_array_mut().context("engine.runtime_supports_json is not a list")?;
    if !names.iter().any(|name| name.as_str() == Some(NAME)) {
        names.push(NAME);
    }
    if wanted.default {
        put(engine, "runtime", NAME.into());
    }
    let programs = Array::from_iter([wanted.program.as_str()]);
    put(table(document.as_table_mut(), &["engine", "runtimes"])?, NAME, programs.into());
    Ok(document.to_string())
}

pub fn crio(text: &str, wanted: &Wanted) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse().context("is not TOML")?;
    let root = document.as_table_mut();
    if wanted.remove {
        remove(root, wanted, Places::crio)?;
        return Ok(document.to_string());
    }
    if wanted.default {
        put(table(root, &["crio", "runtime"])?, "default_runtime", NAME.into());
    }
    let ours = table(root, &["crio", "runtime", "runtimes", NAME])?;
    put(ours, "runtime_path", wanted.program.as_str().into());
    put(ours, "runtime_type", "oci".into());
    put(ours, "runtime_root", "/run/lxcrun".into());
    Ok(document.to_string())
}

pub fn containerd(text: &str, wanted: &Wanted) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse().context("is not TOML")?;
    if document.is_empty() && !wanted.remove {
        document["version"] = value(2);
    }
    let root = document.as_table_mut();
    let section = Places::containerd(root)?.section;
    if wanted.remove {
        remove(root, wanted, Places::containerd)?;
        take_usual(root, wanted, &section)?;
        return Ok(document.to_string());
    }
    let of = |rest: &[&'static str]| [&*section, &["runtimes"], rest].concat();
    if wanted.default {
        put(table(root, &section)?, "default_runtime_name", NAME.into());
    }
    // A file that names any runtime has to name the usual one, too: containerd knows no other then.
    let default =
        existing(root, &section)?.and_then(|s| s.get("default_runtime_name")?.as_str().map(str::to_owned));
    if default.is_none_or(|name| name == "runc") {
        let runc = table(root, &of(&["runc"]))?;
        runc.entry("runtime_type").or_insert(value(RUNC));
    }
    // The kubelet's driver of cgroups is the same for all runtimes.
    let runc = existing(root, &of(&["runc", "options"]))?;
    let systemd = runc.and_then(|options| options.get("SystemdCgroup")?.as_bool());
    let (ours, options) = (of(&[NAME]), of(&[NAME, "options"]));
    // containerd 2 asks no runtime of another type for its features, and takes options of runc's shim for those of this type
    // alone. So our shim has it, too, where it is found by its path. Only containerd 2 reads files of another version than 2.
    let by_path = wanted.shim && (wanted.shim_by_path || section.contains(&CRI_PLUGINS[1].1));
    put(table(root, &ours)?, "runtime_type", if wanted.shim && !by_path { SHIM.0 } else { RUNC }.into());
    let is_our_shim = |path: &Item| path.as_str().is_some_and(|path| path.ends_with(SHIM.1));
    if by_path {
        put(table(root, &ours)?, PATH, wanted.shim_program().into());
    } else if existing(root, &ours)?.and_then(|ours| ours.get(PATH)).is_some_and(is_our_shim) {
        take(root, &ours, PATH)?;
    }
    if wanted.shim {
        take(root, &options, "BinaryName")?;
    } else {
        put(table(root, &options)?, "BinaryName", wanted.program.as_str().into());
    }
    if wanted.shim && !by_path {
        // By a cgroup's path ours sees, too, that it is systemd's.
        take(root, &options, "SystemdCgroup")?;
    } else if let Some(systemd) = systemd {
        table(root, &options)?.entry("SystemdCgroup").or_insert(value(systemd));
    }
    Ok(document.to_string())
}

/// Takes out the usual runtime and the file's version, which this command has put into a file that had neither.
fn take_usual(root: &mut Table, wanted: &Wanted, section: &[&'static str]) -> anyhow::Result<()> {
    const TYPE: &str = "runtime_type";
    let runtimes = [section, &["runtimes"]].concat();
    let runc = existing(root, &[&*runtimes, &["runc"]].concat())?;
    let is_ours =
        runc.is_some_and(|runc| runc.len() == 1 && runc.get(TYPE).and_then(Item::as_str) == Some(RUNC));
    let path = |before: &mut Table| Some([&*Places::containerd(before).ok()?.runtimes(), &["runc"]].concat());
    if is_ours && was_without(wanted, path) {
        take(root, &runtimes, "runc")?;
    }
    if root.len() == 1 && was_without(wanted, |_| Some(vec!["version"])) {
        root.remove("version");
    }
    Ok(())
}

/// The table at `path`, made where it is missing.
fn table<'t>(root: &'t mut dyn TableLike, path: &[&str]) -> anyhow::Result<&'t mut dyn TableLike> {
    let Some((name, rest)) = path.split_first() else { return Ok(root) };
    let inline = root.is_dotted() || root.get(name).is_some_and(Item::is_inline_table);
    let missing = || match inline {
        true => Item::Value(InlineTable::new().into()),
        false => {
            let mut table = Table::new();
            // Only the last one needs a heading.
            table.set_implicit(!rest.is_empty());
            Item::Table(table)
        }
    };
    let next = root.entry(name).or_insert_with(missing);
    let next = next.as_table_like_mut().with_context(|| format!("{name} is not a table"))?;
    table(next, rest)
}

/// The table at `path`, if it is there.
fn existing<'t>(root: &'t mut dyn TableLike, path: &[&str]) -> anyhow::Result<Option<&'t mut dyn TableLike>> {
    let Some((name, rest)) = path.split_first() else { return Ok(Some(root)) };
    match root.get_mut(name) {
        None => Ok(None),
        Some(item) => {
            existing(item.as_table_like_mut().with_context(|| format!("{name} is not a table"))?, rest)
        }
    }
}

/// Sets a value, and leaves what is around it: white space, comments.
fn put(table: &mut dyn TableLike, key: &str, new: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let around = old.decor().clone();
            *old = new;
            *old.decor_mut() = around;
        }
        None => drop(table.insert(key, Item::Value(new))),
    }
}

/// Removes a key, and its table when nothing is left there.
fn take(root: &mut dyn TableLike, path: &[&str], key: &str) -> anyhow::Result<()> {
    let Some(inner) = existing(root, path)? else { return Ok(()) };
    let found = inner.remove(key).is_some();
    if let (true, true, [parents @ .., name]) = (found, inner.is_empty(), path) {
        take(root, parents, name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            program: "/bin/lxcrun".into(),
            default: false,
            shim: false,
            shim_by_path: false,
            remove: false,
            before: None,
        }
    }

    const CONTAINERD: &str = r#"# ours
version = 2 # as ever

[plugins."io.containerd.grpc.v1.cri".containerd]
  # the default
  default_runtime_name = "runc" # stays

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
"#;

    #[test]
    fn containerd_keeps_comments_and_takes_the_cgroup_driver_over() {
        let new = containerd(CONTAINERD, &wanted()).unwrap();
        let added = "\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lxcrun]\nruntime_type = \
            \"io.containerd.runc.v2\"\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lxcrun.options]\n\
            BinaryName = \"/bin/lxcrun\"\nSystemdCgroup = true\n";
        assert_eq!(new, format!("{CONTAINERD}{added}"));
        assert_eq!(containerd(&new, &wanted()).unwrap(), new);
        assert_eq!(containerd(&new, &Wanted { remove: true, ..wanted() }).unwrap(), CONTAINERD);
        let default = containerd(&new, &Wanted { default: true, shim: true, ..wanted() }).unwrap();
        assert!(default.contains("default_runtime_name = \"lxcrun\" # stays"), "{default}");
        assert!(!default.contains("BinaryName"), "{default}");
    }

    #[test]
    fn containerd_has_no_options_for_our_own_shim_by_its_name() {
        let shim = Wanted { shim: true, ..wanted() };
        let new = containerd(CONTAINERD, &shim).unwrap();
        let added = "\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lxcrun]\nruntime_type = \
            \"io.containerd.lxcrun.v2\"\n";
        assert_eq!(new, format!("{CONTAINERD}{added}"));
        let other = containerd(&new, &wanted()).unwrap();
        assert!(other.contains("BinaryName"), "{other}");
        assert_eq!(containerd(&other, &shim).unwrap(), new);
        assert_eq!(containerd(&new, &Wanted { remove: true, ..wanted() }).unwrap(), CONTAINERD);
        let own = format!(
            "{new}[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lxcrun.options]\n\
            ConfigPath = \"/etc/lxcrun.toml\"\n"
        );
        assert_eq!(containerd(&own, &shim).unwrap(), own, "what somebody else has written stays");
    }

    #[test]
    fn containerd_has_our_own_shim_by_its_path_with_runcs_type() {
        let name = Wanted { shim: true, ..wanted() };
        let path = Wanted { shim: true, shim_by_path: true, ..wanted() };
        let new = containerd(CONTAINERD, &path).unwrap();
        let runtimes = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes";
        let added = format!(
            "\n{runtimes}.lxcrun]\nruntime_type = \"io.containerd.runc.v2\"\nruntime_path = \
            \"/bin/containerd-shim-lxcrun-v2\"\n\n{runtimes}.lxcrun.options]\nSystemdCgroup = true\n"
        );
        assert_eq!(new, format!("{CONTAINERD}{added}"));
        for before in [CONTAINERD.to_owned(), new.clone()] {
            for other in [&name, &wanted(), &path] {
                let other = containerd(&before, other).unwrap();
                assert_eq!(containerd(&other, &path).unwrap(), new, "{other}");
            }
        }
        for other in [&name, &wanted()] {
            assert!(!containerd(&new, other).unwrap().contains("runtime_path"));
        }
        assert_eq!(containerd(&new, &Wanted { remove: true, ..wanted() }).unwrap(), CONTAINERD);
        // What only containerd 2 reads.
        let new = containerd("version = 3\n", &name).unwrap();
        assert!(new.contains("runtime_path") && !new.contains("options"), "{new}");
    }

    #[test]
    fn containerd_has_other_plugins_in_other_versions() {
        let new = containerd("version = 3\n", &wanted()).unwrap();
        assert!(
            new.contains("[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.lxcrun]"),
            "{new}"
        );
        let new = containerd("", &wanted()).unwrap();
        assert!(new.starts_with("version = 2\n") && new.contains("containerd.runtimes.runc]\n"), "{new}");
        assert!(containerd("root = \"/x\"\n", &wanted()).is_err());
        let inline = "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { containerd = {} } }\n";
        let new = containerd(inline, &wanted()).unwrap();
        assert!(new.parse::<DocumentMut>().is_ok() && new.contains("runtimes.lxcrun.runtime_type"), "{new}");
    }

    #[test]
    fn podman_keeps_what_others_have_said() {
        let text =
            "[engine]\n# mine\nruntime_supports_json = [\"crun\"]\n\n[engine.runtimes]\nx = [\"/x\"]\n";
        let new = podman(text, &wanted()).unwrap();
        let expected = "[engine]\n# mine\nruntime_supports_json = [\"crun\", \"lxcrun\"]\n\n[engine.runtimes]\nx = \
            [\"/x\"]\nlxcrun = [\"/bin/lxcrun\"]\n";
        assert_eq!(new, expected);
        assert_eq!(podman(&new, &Wanted { remove: true, ..wanted() }).unwrap(), text);
        let new = podman("", &Wanted { default: true, ..wanted() }).unwrap();
        assert!(new.contains("runtime = \"lxcrun\"") && new.contains("\"crun\""), "{new}");
    }

    #[test]
    fn crio_has_a_file_of_its_own() {
        let new = crio("", &Wanted { default: true, ..wanted() }).unwrap();
        let expected = "[crio.runtime]\ndefault_runtime = \"lxcrun\"\n\n[crio.runtime.runtimes.lxcrun]\nruntime_path = \
            \"/bin/lxcrun\"\nruntime_type = \"oci\"\nruntime_root = \"/run/lxcrun\"\n";
        assert_eq!(new, expected);
        let known = Wanted { remove: true, before: Some(String::new()), ..wanted() };
        assert_eq!(crio(&new, &known).unwrap(), "");
    }

    /// An engine's part of the command.
    type Change = fn(&str, &Wanted) -> anyhow::Result<String>;

    #[test]
    fn the_default_that_was_replaced_comes_back() {
        let files: [(Change, &str); 3] = [
            (podman, "[engine]\nruntime = \"crun\" # mine\n"),
            (containerd, CONTAINERD),
            (crio, "[crio.runtime]\ndefault_runtime = \"crun\" # mine\n"),
        ];
        for (change, text) in files {
            let new = change(text, &Wanted { default: true, ..wanted() }).unwrap();
            let remove = |before: Option<&str>| {
                change(&new, &Wanted { remove: true, before: before.map(str::to_owned), ..wanted() })
            };
            assert_eq!(remove(Some(text)).unwrap(), text);
            for before in [None, Some("["), Some(&*new)] {
                let refused = format!("{:#}", remove(before).unwrap_err());
                assert!(refused.contains(": is lxcrun") && refused.contains("backup"), "{refused}");
            }
        }
    }

    #[test]
    fn what_was_made_for_containerd_and_podman_goes_again() {
        let files: [(Change, &str); 5] = [
            (podman, ""),
            (podman, "[engine]\nevents_logger = \"file\"\n"),
            (containerd, ""),
            (containerd, "version = 2\n"),
            (containerd, "version = 3\n\n[plugins.\"io.containerd.cri.v1.runtime\"]\nmax = 3\n"),
        ];
        for (change, text) in files {
            for default in [false, true] {
                let new = change(text, &Wanted { default, ..wanted() }).unwrap();
                let known = Wanted { remove: true, before: Some(text.into()), ..wanted() };
                assert_eq!(change(&new, &known).unwrap(), text, "{new}");
            }
        }
        // What is somebody's stays: it was there, or is not known not to have been.
        let runc = "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \
            \"io.containerd.runc.v2\"\n";
        let new = containerd(runc, &wanted()).unwrap();
        for before in [None, Some(runc.to_owned())] {
            assert_eq!(containerd(&new, &Wanted { remove: true, before, ..wanted() }).unwrap(), runc);
        }
    }

    #[test]
    fn what_is_of_another_kind_is_an_error() {
        assert!(podman("engine = 1\n", &wanted()).is_err());
        assert!(crio("[crio]\nruntime = \"x\"\n", &wanted()).is_err());
        assert!(containerd("version = 2\nplugins = [", &wanted()).is_err());
    }
}
