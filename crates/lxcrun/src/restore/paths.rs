//! What CRIU finds on the host by its path, and whether that keeps it from a /tmp of its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{RestoreOptions, joined_namespaces};
use crate::config::{MountKind, Plan};

/// Where CRIU makes a directory.
pub(super) const TMP: &str = "/tmp";

/// What CRIU finds on the host by its path, and CRIU itself.
pub(super) fn paths_on_host(
    plan: &Plan,
    config_file: Option<&str>,
    options: &RestoreOptions,
) -> Vec<PathBuf> {
    let mut paths = vec![options.image_path.clone()];
    paths.extend(options.work_path.clone());
    paths.extend(plan.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { source, .. } => Some(source.clone()),
        _ => None,
    }));
    paths.extend(joined_namespaces(plan).into_iter().map(|namespace| namespace.file.into()));
    paths.extend(config_file.map(PathBuf::from));
    if configurations_name_tmp(config_file, |name| std::env::var_os(name)) {
        paths.push(TMP.into());
    }
    let programs = std::env::var_os("PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&programs).filter(|path| path.exists()));
    paths
}

/// Whether a configuration of CRIU's names a file in /tmp, such as its log. Besides `given` it reads some unasked: criu(8),
/// "CONFIGURATION FILES".
fn configurations_name_tmp(given: Option<&str>, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let of_user = variable("HOME").map(|home| Path::new(&home).join(".criu/default.conf"));
    let of_caller = variable("CRIU_CONFIG_FILE").map(PathBuf::from);
    let all = [Some("/etc/criu/default.conf".into()), of_user, of_caller, given.map(PathBuf::from)];
    all.into_iter().flatten().any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(TMP)))
}

/// Whether a path leads into /tmp, or to what /tmp is seen in; one that can't be looked at may.
pub(super) fn needs_tmp(path: &Path) -> bool {
    let (Ok(tmp), Ok(path)) = (fs::canonicalize(TMP), fs::canonicalize(path)) else { return true };
    path.starts_with(&tmp) || tmp.starts_with(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_tmp_is_needed_by_what_is_in_it_or_has_it_in_it() {
        let directory = tempfile::tempdir_in(TMP).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        assert!(needs_tmp(directory.path()));
        assert!(needs_tmp(Path::new("/")));
        assert!(needs_tmp(Path::new("/no/such/place")));
        assert!(!needs_tmp(&link), "it leads elsewhere");
        assert!(!needs_tmp(Path::new("/usr")));
    }

    #[test]
    fn the_hosts_tmp_is_needed_by_what_a_configuration_of_criu_names() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        fs::create_dir_all(home.join(".criu")).unwrap();
        let [own, other] = ["own.conf", "other.conf"].map(|name| directory.path().join(name));
        let names_tmp = |own: Option<&Path>| {
            configurations_name_tmp(own.and_then(Path::to_str), |name| match name {
                "HOME" => Some(home.clone().into()),
                "CRIU_CONFIG_FILE" => Some(other.clone().into()),
                _ => None,
            })
        };
        fs::write(&own, "log-file restore.log\n").unwrap();
        assert!(!names_tmp(Some(&own)));
        for file in [&own, &other, &home.join(".criu/default.conf")] {
            fs::write(file, "log-file /tmp/restore.log\n").unwrap();
            assert!(names_tmp(Some(&own)), "{}", file.display());
            fs::remove_file(file).unwrap();
        }
        assert!(!names_tmp(None));
    }
}
