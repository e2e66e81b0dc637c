//! Docker's daemon.json. Whatever is not ours stays as it is written, in its order.

use std::fmt;

use anyhow::{Context, bail};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Found, NAME, SHIM, Wanted, former_default};

const RUNTIMES: &str = "runtimes";
const DEFAULT: &str = "default-runtime";

pub fn docker(text: &str, wanted: &Wanted) -> anyhow::Result<String> {
    let mut all = Object::of_file(text)?;
    let indent = indent(text);
    let mut runtimes = match all.get(RUNTIMES) {
        Some(value) => Object::parse(value).context(RUNTIMES)?,
        None => Object::default(),
    };
    let name = serde_json::to_string(NAME)?;
    if wanted.remove {
        runtimes.remove(NAME);
        if all.get(DEFAULT) == Some(&name) {
            let was = |before: &str| {
                let value = Object::of_file(before)?.get(DEFAULT).cloned();
                Ok((value.as_deref().and_then(|value| serde_json::from_str(value).ok()), value))
            };
            match former_default(wanted, DEFAULT, was)? {
                Some(value) => all.set(DEFAULT, value),
                None => all.remove(DEFAULT),
            }
        }
    } else {
        let (key, value) = if wanted.shim { ("runtimeType", SHIM.0) } else { ("path", &*wanted.program) };
        runtimes.set(NAME, format!("{{ \"{key}\": {} }}", serde_json::to_string(value)?));
        if wanted.default {
            all.set(DEFAULT, name);
        }
    }
    if runtimes.0.is_empty() {
        all.remove(RUNTIMES);
    } else if all.get(RUNTIMES).is_none_or(|old| !runtimes.is(old)) {
        all.set(RUNTIMES, runtimes.render(&indent, &indent));
    }
    if all.is(text) { Ok(text.to_owned()) } else { Ok(all.render("", &indent) + "\n") }
}

pub fn find(text: &str) -> anyhow::Result<Found> {
    let all = Object::of_file(text)?;
    let runtimes = all.get(RUNTIMES).map(|value| Object::parse(value)).transpose().context(RUNTIMES)?;
    Ok(Found {
        registered: runtimes.is_some_and(|runtimes| runtimes.get(NAME).is_some()),
        default: all.get(DEFAULT).and_then(|value| serde_json::from_str(value).ok()),
    })
}

/// The white space before the first key.
fn indent(text: &str) -> String {
    let first = text.lines().find(|line| line.trim_start().starts_with('"'));
    let space = first.map(|line| &line[..line.len() - line.trim_start().len()]);
    space.filter(|s| !s.is_empty()).unwrap_or("  ").to_owned()
}

/// An object's members, each value as it is written.
#[derive(Default)]
struct Object(Vec<(String, String)>);

impl Object {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let value: serde_json::Value = serde_json::from_str(text).context("is not JSON")?;
        if !value.is_object() {
            bail!("is not an object");
        }
        Ok(serde_json::from_str(text)?)
    }

    /// One without a word says nothing.
    fn of_file(text: &str) -> anyhow::Result<Self> {
        if text.trim().is_empty() { Ok(Self::default()) } else { Self::parse(text) }
    }

    fn get(&self, key: &str) -> Option<&String> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    fn set(&mut self, key: &str, value: String) {
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    fn remove(&mut self, key: &str) {
        self.0.retain(|(k, _)| k != key);
    }

    /// Whether `text` says the same.
    fn is(&self, text: &str) -> bool {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        value(&self.render("", "")) == value(text)
    }

    fn render(&self, outside: &str, indent: &str) -> String {
        let member = |(key, value): &(String, String)| {
            format!("{outside}{indent}{}: {value}", serde_json::Value::from(key.as_str()))
        };
        let members: Vec<String> = self.0.iter().map(member).collect();
        if members.is_empty() { "{}".into() } else { format!("{{\n{}\n{outside}}}", members.join(",\n")) }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((key, value.get().to_owned()));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
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

    #[test]
    fn what_is_there_keeps_its_order_and_form() {
        let text = "{\n    \"log-opts\": {\"z\":  1, \"a\": 2},\n    \"debug\": true\n}\n";
        let new = docker(text, &wanted()).unwrap();
        let expected = "{\n    \"log-opts\": {\"z\":  1, \"a\": 2},\n    \"debug\": true,\n    \"runtimes\": {\n        \
            \"lxcrun\": { \"path\": \"/bin/lxcrun\" }\n    }\n}\n";
        assert_eq!(new, expected);
        assert_eq!(docker(&new, &wanted()).unwrap(), new);
        assert_eq!(docker(&new, &Wanted { remove: true, ..wanted() }).unwrap(), text);
    }

    #[test]
    fn a_default_comes_and_goes() {
        let new = docker("", &Wanted { default: true, shim: true, ..wanted() }).unwrap();
        assert!(new.contains("\"default-runtime\": \"lxcrun\""), "{new}");
        assert!(new.contains("\"runtimeType\": \"io.containerd.lxcrun.v2\""), "{new}");
        let remove = |text: &str, before: Option<&str>| {
            docker(text, &Wanted { remove: true, before: before.map(str::to_owned), ..wanted() })
        };
        assert_eq!(remove(&new, Some("")).unwrap(), "{}\n");
        let others = "{ \"default-runtime\": \"runc\" }";
        assert_eq!(docker(others, &Wanted { remove: true, ..wanted() }).unwrap(), others);

        let text = "{\n  \"default-runtime\": \"crun\",\n  \"debug\": true\n}\n";
        let new = docker(text, &Wanted { default: true, ..wanted() }).unwrap();
        assert_eq!(remove(&new, Some(text)).unwrap(), text);
        for before in [None, Some("{"), Some(&*new)] {
            let refused = format!("{:#}", remove(&new, before).unwrap_err());
            assert!(
                refused.contains("default-runtime: is lxcrun") && refused.contains("backup"),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_broken_file_is_an_error() {
        for text in ["{", "[]", "{ \"runtimes\": 1 }", "{} {}"] {
            assert!(docker(text, &wanted()).is_err(), "{text}");
        }
    }
}
