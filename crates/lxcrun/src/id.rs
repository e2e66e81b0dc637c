//! Names of containers.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The longest id: with a prefix of ours or liblxc's it is still a file name.
const MAX_LENGTH: usize = 200;

/// A container's id: letters, digits and `_ + - .`, as in runc.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a bundle is called in messages where there is no container: its directory's name, as far as an id may have it.
    pub(crate) fn of_bundle(directory: &Path) -> Self {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let allowed: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "_+-".contains(*c))
            .take(MAX_LENGTH)
            .collect();
        Self(if allowed.is_empty() { "bundle".into() } else { allowed })
    }

    /// The name of the container's session keyring, as with runc: its execs find it by that.
    pub(crate) fn keyring(&self) -> String {
        format!("_ses.{self}")
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        let refuse = |reason| Err(Error::Id { id: id.chars().take(64).collect(), reason });
        if id.is_empty() {
            return refuse("is empty");
        }
        if id.len() > MAX_LENGTH {
            return refuse("is longer than 200 bytes");
        }
        if id == "." || id == ".." {
            return refuse("is a directory");
        }
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b)) {
            return refuse("has other characters than letters, digits, '_', '+', '-' and '.'");
        }
        Ok(Self(id.into()))
    }
}

impl TryFrom<String> for ContainerId {
    type Error = Error;

    fn try_from(id: String) -> Result<Self, Error> {
        id.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_the_state_root_is_no_id() {
        for bad in ["", ".", "..", "a/b", "/", "a b", "a\0", "é", &"x".repeat(300)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "a.b_c+d", &"f".repeat(64), "..."] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good:?}");
        }
    }
}
