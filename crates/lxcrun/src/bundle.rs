//! An OCI bundle: a directory with a config.json.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::{Error, Result, json};

/// Nobody writes a config.json of this size: a larger one is a mistake or an attack.
const MAX_CONFIG: u64 = 16 << 20;

/// Most are smaller, and read in one go.
const USUAL_CONFIG: usize = 16 << 10;

/// The newest release of the runtime specification that this crate implements.
pub const OCI_VERSION: &str = "1.3.0";

/// A bundle, opened.
#[derive(Debug, Clone)]
pub struct Bundle {
    path: PathBuf,
    spec: Spec,
    config: Vec<u8>,
}

impl Bundle {
    /// Reads and parses `config.json` in `directory`.
    ///
    /// # Errors
    /// [`Error::Bundle`] with the field when the file is missing, too large, no JSON, or of another type than
    /// the specification says, and when `ociVersion` is not a 1.x release.
    pub fn open(directory: &Path) -> Result<Self> {
        let refuse = |field: &str, reason: String| Error::Bundle {
            bundle: directory.into(),
            field: field.into(),
            reason,
        };
        let path = std::fs::canonicalize(directory).map_err(|e| refuse("directory", e.to_string()))?;
        let file = open_config(&path).map_err(|reason| refuse("config.json", reason))?;
        let mut config = Vec::with_capacity(USUAL_CONFIG);
        file.take(MAX_CONFIG + 1)
            .read_to_end(&mut config)
            .map_err(|e| refuse("config.json", e.to_string()))?;
        if config.len() as u64 > MAX_CONFIG {
            return Err(refuse("config.json", "is larger than 16 MiB".into()));
        }
        Self::from_config(path, config)
    }

    /// Takes a specification that was made in memory, for a bundle at `directory`.
    ///
    /// # Errors
    /// [`Error::Bundle`] when `ociVersion` is not a 1.x release.
    pub fn from_spec(directory: &Path, spec: &Spec) -> Result<Self> {
        let config = serde_json::to_vec(spec).map_err(|e| Error::Bundle {
            bundle: directory.into(),
            field: "spec".into(),
            reason: e.to_string(),
        })?;
        Self::from_config(directory.into(), config)
    }

    /// Parses the bytes of a config.json.
    pub(crate) fn from_config(path: PathBuf, config: Vec<u8>) -> Result<Self> {
        let refuse =
            |field: &str, reason: String| Error::Bundle { bundle: path.clone(), field: field.into(), reason };
        let spec = parse(&config).map_err(|(field, reason)| refuse(&field, reason))?;
        check_version(spec.version()).map_err(|reason| refuse("ociVersion", reason))?;
        Ok(Self { path, spec, config })
    }

    /// The absolute path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parsed config.json.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The bytes of config.json.
    pub(crate) fn config(&self) -> &[u8] {
        &self.config
    }
}

/// Opens config.json without waiting for who may write to it, as a fifo would.
fn open_config(bundle: &Path) -> Result<std::fs::File, String> {
    let mut open = std::fs::OpenOptions::new();
    let file = open.read(true).custom_flags(libc::O_NONBLOCK).open(bundle.join("config.json"));
    let file = file.map_err(|e| e.to_string())?;
    let kind = file.metadata().map_err(|e| e.to_string())?.file_type();
    // Of a directory reading says what it is.
    if kind.is_file() || kind.is_dir() { Ok(file) } else { Err("is no file".into()) }
}

/// Field and reason of a config.json that can't be parsed.
type ParseError = (String, String);

/// Parses a specification, also for a container that was made from it before.
pub(crate) fn parse(config: &[u8]) -> Result<Spec, ParseError> {
    let value =
        || serde_json::from_slice::<serde_json::Value>(config).map_err(|e| name_field(json::whole(&e)));
    // A platform that oci-spec (0.10) does not know.
    if contains(config, b"\"freebsd\"") {
        let json = value()?;
        if json.get("freebsd").is_some() {
            return Err(("freebsd".into(), "is not a property of a Linux container".into()));
        }
    }
    let misnamed = SCHEDULER_FLAGS.iter().any(|(name, _)| contains(config, name.as_bytes()));
    if misnamed || contains(config, b"\"memoryPolicy\"") || contains(config, b"\"ioPriority\"") {
        let mut json = value()?;
        rename_scheduler_flags(json.pointer_mut("/process/scheduler/flags"));
        check_io_priority(json.pointer("/process/ioPriority"))
            .map_err(|reason| ("process.ioPriority.class".into(), reason))?;
        drop_empty_memory_policy(json.get_mut("linux"));
        return json::from_value(json).map_err(name_field);
    }
    json::from_slice(config).map_err(name_field)
}

/// Parses the process of an exec, as `--process` has it.
///
/// # Errors
/// The field and the reason.
pub fn parse_process(json: &[u8]) -> Result<oci_spec::runtime::Process, String> {
    let mut json: serde_json::Value = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    rename_scheduler_flags(json.pointer_mut("/scheduler/flags"));
    check_io_priority(json.get("ioPriority")).map_err(|reason| format!("ioPriority.class: {reason}"))?;
    json::from_value(json).map_err(without_field)
}

/// Parses limits, as `update --resources` has them.
///
/// # Errors
/// The field and the reason.
pub fn parse_resources(json: &[u8]) -> Result<oci_spec::runtime::LinuxResources, String> {
    json::from_slice(json).map_err(without_field)
}

fn without_field((path, reason): json::Problem) -> String {
    if path == "." { reason } else { format!("{path}: {reason}") }
}

/// Without a mode it is none, as in runc.
fn drop_empty_memory_policy(linux: Option<&mut serde_json::Value>) {
    let Some(linux) = linux.and_then(serde_json::Value::as_object_mut) else { return };
    if linux.get("memoryPolicy").and_then(|policy| policy.as_object()).is_some_and(serde_json::Map::is_empty)
    {
        linux.remove("memoryPolicy");
    }
}

/// The specification requires the class, and oci-spec (0.10) takes one of its own for none.
fn check_io_priority(wanted: Option<&serde_json::Value>) -> Result<(), String> {
    match wanted.and_then(serde_json::Value::as_object) {
        Some(wanted) if !wanted.keys().any(|key| key.eq_ignore_ascii_case("class")) => {
            Err("is missing".into())
        }
        _ => Ok(()),
    }
}

fn name_field((path, reason): json::Problem) -> ParseError {
    let field = if path == "." || path.starts_with('?') { "config.json".into() } else { path };
    // The words are runc's.
    let reason = match field.strip_prefix("linux.memoryPolicy") {
        Some("" | ".mode") => format!("invalid memory policy mode: {reason}"),
        Some(flags) if flags.starts_with(".flags") => format!("invalid memory policy flag: {reason}"),
        _ => reason,
    };
    (field, reason)
}

/// The specification's names of `process.scheduler.flags` that oci-spec (0.10) has under others.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

fn rename_scheduler_flags(flags: Option<&mut serde_json::Value>) {
    for flag in flags.and_then(serde_json::Value::as_array_mut).into_iter().flatten() {
        if let Some((_, ours)) = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name) {
            *flag = (*ours).into();
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Every 1.x is compatible with ours: properties that we don't know are to be ignored (runtime-spec, config.md,
/// "Extensibility" and "Specification version").
fn check_version(version: &str) -> Result<(), String> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u64>> = core.split('.').map(|n| n.parse().ok()).collect();
    match numbers.as_deref() {
        _ if version.is_empty() => Err("is missing".into()),
        Some([1, _, _]) => Ok(()),
        Some([_, _, _]) => Err(format!("{version} is not a 1.x release of the specification")),
        _ => Err(format!("{version:?} is no version (SemVer 2.0.0)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Bundle> {
        Bundle::from_config("/b".into(), json.into())
    }

    #[test]
    fn every_1_x_is_taken_and_unknown_properties_are_ignored() {
        for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0+x"] {
            parse(&format!(r#"{{"ociVersion":"{version}","future":{{"a":1}}}}"#)).unwrap();
        }
    }

    #[test]
    fn flags_of_the_scheduler_have_the_names_of_the_specification() {
        let json = r#"{"ociVersion":"1.3.0","process":{"cwd":"/","user":{"uid":0,"gid":0},"scheduler":
            {"policy":"SCHED_OTHER","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]}}}"#;
        let bundle = parse(json).unwrap();
        let scheduler = bundle.spec().process().as_ref().and_then(|p| p.scheduler().clone()).unwrap();
        assert_eq!(scheduler.flags().as_ref().unwrap().len(), 2);
    }

    #[test]
    fn an_error_names_the_field() {
        let field = |json: &str| match parse(json) {
            Err(Error::Bundle { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(r#"{"ociVersion":"2.0.0"}"#), "ociVersion");
        assert_eq!(field("{}"), "ociVersion");
        assert_eq!(field("{"), "config.json");
        assert_eq!(field(r#"{"ociVersion":"1.0.0","hostname":3}"#), "hostname");
        let deep = r#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":-1,"gid":0}}}"#;
        assert_eq!(field(deep), "process.user.uid");
        let class =
            r#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":0},"ioPriority":{"priority":1}}}"#;
        assert_eq!(field(class), "process.ioPriority.class");
        assert!(
            parse_process(br#"{"cwd":"/","ioPriority":{"priority":1}}"#)
                .unwrap_err()
                .contains("ioPriority.class")
        );
    }
}
