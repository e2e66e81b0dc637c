//! An OCI bundle: a directory with a config.json.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::{Error, Result};

/// Nobody writes a config.json of this size: a larger one is a mistake or an attack.
const MAX_CONFIG: u64 = 16 << 20;

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
        let file = std::fs::File::open(path.join("config.json"))
            .map_err(|e| refuse("config.json", e.to_string()))?;
        let mut config = Vec::new();
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
        let mut json = serde_json::Deserializer::from_slice(&config);
        let spec: Spec = serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let field = match e.path().to_string() {
                whole if whole == "." || whole.starts_with('?') => "config.json".into(),
                field => field,
            };
            refuse(&field, e.into_inner().to_string())
        })?;
        json.end().map_err(|e| refuse("config.json", e.to_string()))?;
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
    }
}
