//! JSON of the specification as clients of runc write it: Go takes the name of a property in any case, and null for nothing.

use serde::Deserializer;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde_json::{Error, Map, Value};

/// Where in the JSON, `.` for the whole, and why.
pub(crate) type Problem = (String, String);

/// Parses a text. Properties that are not known are ignored, those that are known in another case are taken.
pub(crate) fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let mut some_unknown = false;
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = serde_ignored::deserialize(&mut json, |_| some_unknown = true);
    match parsed.and_then(|parsed| json.end().map(|()| parsed)) {
        Ok(parsed) if !some_unknown && !has_odd_list(text) => Ok(parsed),
        // Keeping track of the path, and reading as Go does, costs as much again as parsing: few need it.
        _ => from_value(serde_json::from_slice(text).map_err(|e| whole(&e))?),
    }
}

/// The same for what is parsed already.
pub(crate) fn from_value<T: DeserializeOwned>(json: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(AnyCase(json)).map_err(at_path)
}

/// Whether a list of this JSON may be where an object belongs: one in a list, or of a property that is no list.
fn has_odd_list(text: &[u8]) -> bool {
    let (mut name, mut before) = (&text[..0], b' ');
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => (name, rest) = split_string(after),
            b'[' if before != b':' || LISTS.binary_search(&name).is_err() => return true,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    false
}

/// What is in a string, and what comes after it.
fn split_string(text: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    while let Some(byte) = text.get(end).filter(|byte| **byte != b'"') {
        end += if *byte == b'\\' { 2 } else { 1 };
    }
    (text.get(..end).unwrap_or(text), text.get(end + 1..).unwrap_or_default())
}

/// The properties that are lists, as most write them. One that is missing here costs time, nothing else.
const LISTS: &[&[u8]] = &[
    b"additionalGids",
    b"ambient",
    b"architectures",
    b"args",
    b"bounding",
    b"createContainer",
    b"createRuntime",
    b"devices",
    b"effective",
    b"env",
    b"flags",
    b"gidMappings",
    b"hugepageLimits",
    b"inheritable",
    b"maskedPaths",
    b"mounts",
    b"names",
    b"namespaces",
    b"options",
    b"permitted",
    b"poststart",
    b"poststop",
    b"prestart",
    b"priorities",
    b"readonlyPaths",
    b"rlimits",
    b"schemata",
    b"startContainer",
    b"syscalls",
    b"throttleReadBpsDevice",
    b"throttleReadIOPSDevice",
    b"throttleWriteBpsDevice",
    b"throttleWriteIOPSDevice",
    b"uidMappings",
    b"weightDevice",
];

pub(crate) fn whole(error: &Error) -> Problem {
    (".".into(), error.to_string())
}

fn at_path(error: serde_path_to_error::Error<Error>) -> Problem {
    (error.path().to_string(), in_plain_words(&error.into_inner().to_string()))
}

/// What oci-spec (0.10) says of an unknown capability is about itself: `no variant for CAP_X (converted to X)`.
fn in_plain_words(reason: &str) -> String {
    match reason.strip_prefix("no variant for ").and_then(|rest| rest.rsplit_once(" (converted to ")) {
        Some((name, _)) => format!("unknown capability {name:?}"),
        None => reason.into(),
    }
}

/// A value whose properties may be written in any case.
struct AnyCase(Value);

impl<'de> Deserializer<'de> for AnyCase {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(AnyCase))),
            Value::Object(entries) => visitor
                .visit_map(MapDeserializer::new(entries.into_iter().map(|(key, json)| (key, AnyCase(json))))),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.0.is_null() {
            self.0 = Map::new().into();
        }
        // What derives `Deserialize` takes a list of the values of its fields, too.
        if self.0.is_array() {
            return Err(Error::invalid_type(Unexpected::Seq, &visitor));
        }
        if let Value::Object(entries) = &mut self.0 {
            rename(entries, fields).map_err(Error::custom)?;
            for zero in zeros(name) {
                entries.entry(*zero).or_insert(Value::Null);
            }
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_str("") } else { self.deserialize_any(visitor) }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_bool(false) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_i64(0) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_u32(0) } else { self.deserialize_any(visitor) }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for AnyCase {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// What clients of runc leave out although the specification wants it, when they mean zero.
fn zeros(of: &str) -> &'static [&'static str] {
    match of {
        "Process" => &["user"],
        "User" => &["uid", "gid"],
        _ => &[],
    }
}

/// Gives properties in another case the names that are known.
fn rename(entries: &mut Map<String, Value>, known: &[&str]) -> Result<(), String> {
    let others = entries.keys().filter(|key| !known.contains(&key.as_str()));
    let others: Vec<(String, &str)> = others
        .filter_map(|key| Some((key.clone(), *known.iter().find(|name| name.eq_ignore_ascii_case(key))?)))
        .collect();
    for (key, name) in others {
        let Some(value) = entries.remove(&key) else { continue };
        match entries.get_mut(name) {
            None => drop(entries.insert(name.into(), value)),
            Some(there) => {
                merge(there, value).map_err(|()| format!("{name} and {key} say different things"))?
            }
        }
    }
    Ok(())
}

/// What is said twice is one. In Go the later counts where both say something, which is nobody's intention.
fn merge(one: &mut Value, other: Value) -> Result<(), ()> {
    match (one, other) {
        (one, other) if *one == other || other.is_null() => Ok(()),
        (one @ Value::Null, other) => {
            *one = other;
            Ok(())
        }
        (Value::Object(one), Value::Object(other)) => {
            other.into_iter().try_for_each(|(key, value)| match one.get_mut(&key) {
                Some(there) => merge(there, value),
                None => {
                    one.insert(key, value);
                    Ok(())
                }
            })
        }
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxResources, Spec};

    use super::*;

    fn resources(json: &str) -> Result<LinuxResources, Problem> {
        from_slice(json.as_bytes())
    }

    #[test]
    fn a_property_may_have_any_case() {
        let cpu = |json: &str| resources(json).unwrap().cpu().clone().unwrap();
        let both = cpu(r#"{"cpu":{"shares":1024,"cpus":"0"},"CPU":{"Mems":"0","CPUs":"0"}}"#);
        assert_eq!((both.shares(), both.cpus().as_deref()), (Some(1024), Some("0")));
        assert_eq!(both.mems().as_deref(), Some("0"));
        assert_eq!(cpu(r#"{"CPU":{"Cpus":"1"}}"#).cpus().as_deref(), Some("1"));
    }

    #[test]
    fn names_that_are_free_stay_as_they_are() {
        let json = r#"{"OCIVersion":"1.0.0","annotations":{"Limit":"1","Annotations":"x"},"future":{"CPU":1},
            "linux":{"resources":{"unified":{"Memory.max":"1"},"hugepageLimits":[{"PageSize":"2MB","limit":1}]}}}"#;
        let spec: Spec = from_slice(json.as_bytes()).unwrap();
        assert!(spec.annotations().as_ref().unwrap().contains_key("Limit"));
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert!(resources.unified().as_ref().unwrap().contains_key("Memory.max"));
        assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].page_size(), "2MB");
    }

    #[test]
    fn a_list_is_no_object() {
        for (json, field) in [
            (r#"{"ociVersion":"1.0.0","hooks":[]}"#, "hooks"),
            (r#"{"ociVersion":"1.0.0","root":["/",true]}"#, "root"),
            (r#"{"ociVersion":"1.0.0","linux":{"resources": [ ]}}"#, "linux.resources"),
            (r#"{"ociVersion":"1.0.0","mounts":[["/tmp","tmpfs","tmpfs"]]}"#, "mounts[0]"),
            (r#"{"ociVersion":"1.0.0","mounts":[{"destination":"/\"["}, ["/a"]]}"#, "mounts[1]"),
            (r#"["1.0.0"]"#, "."),
        ] {
            let (path, reason) = from_slice::<Spec>(json.as_bytes()).unwrap_err();
            assert_eq!(path, field, "{json}");
            assert!(reason.contains("invalid type: sequence"), "{reason}");
        }
    }

    #[test]
    fn usual_lists_cost_nothing_more() {
        assert!(LISTS.is_sorted());
        assert!(!has_odd_list(br#"{"a":"[\"[","process": {"args" : [ "[", "\\"] }, "env":[]}"#));
        assert!(!has_odd_list(include_bytes!("default-spec.json")));
        assert!(has_odd_list(br#"{"unheard":[]}"#));
    }

    #[test]
    fn null_is_nothing() {
        let json = r#"{"ociVersion":"1.0.0","annotations":{"a":null},"process":{"user":null,"cwd":"/","args":["true",null]},
            "linux":{"timeOffsets":{"monotonic":null},"resources":{"pids":{"limit":null}}}}"#;
        let spec: Spec = from_slice(json.as_bytes()).unwrap();
        assert_eq!(spec.annotations().as_ref().unwrap()["a"], "");
        assert_eq!(spec.process().as_ref().unwrap().args().as_ref().unwrap()[1], "");
        assert_eq!(spec.process().as_ref().unwrap().user().uid(), 0);
        let (path, _) =
            from_slice::<Spec>(br#"{"ociVersion":"1.0.0","linux":{"namespaces":[null]}}"#).unwrap_err();
        assert_eq!(path, "linux.namespaces[0]");
    }

    #[test]
    fn an_unknown_capability_is_named_as_it_was_given() {
        let json = r#"{"ociVersion":"1.0.0","process":{"cwd":"/","capabilities":{"bounding":["CAP_NOPE"]}}}"#;
        let (path, reason) = from_slice::<Spec>(json.as_bytes()).unwrap_err();
        assert_eq!(path, "process.capabilities.bounding[0]");
        assert_eq!(reason, "unknown capability \"CAP_NOPE\"");
    }

    #[test]
    fn a_contradiction_is_none_of_ours_to_solve() {
        let (path, reason) = resources(r#"{"cpu":{"shares":1},"CPU":{"shares":2}}"#).unwrap_err();
        assert_eq!((path.as_str(), reason.as_str()), (".", "cpu and CPU say different things"));
        let (path, _) = resources(r#"{"CPU":{"Shares":"many"}}"#).unwrap_err();
        assert_eq!(path, "cpu.shares");
    }
}
