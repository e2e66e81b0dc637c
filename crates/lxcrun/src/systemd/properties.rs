//! Properties of a unit: those of limits, and those of annotations. Source: systemd.resource-control(5), and
//! org.freedesktop.systemd1(5) for the types.

use std::collections::BTreeMap;

use zvariant::Value;

use super::variant;

/// The prefix of annotations that are properties.
pub(super) const ANNOTATION_PREFIX: &str = "org.systemd.property.";

/// A name and a value.
pub(super) type Property = (String, Value<'static>);

/// "Without a limit", in every number of systemd's.
const INFINITY: u64 = u64::MAX;

pub(super) fn property(name: &str, value: impl Into<Value<'static>>) -> Property {
    (name.into(), value.into())
}

/// The properties that say what these files of a cgroup of version 2 say. Files that systemd has no property for are
/// left out: they are written to its cgroup as they are. A later file counts more than an earlier one.
pub(crate) fn of_files<'f>(
    files: impl Iterator<Item = (&'f str, &'f str)>,
    now: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Value<'static>)>, String> {
    let mut all = BTreeMap::new();
    for (file, value) in files {
        let wrong = || format!("{file}: {value:?} is no value");
        let number = || limit(value).ok_or_else(wrong);
        let mut set = |name: &str, value: Value<'static>| all.insert(name.to_owned(), value);
        match file {
            "memory.max" => drop(set("MemoryMax", number()?.into())),
            "memory.high" => drop(set("MemoryHigh", number()?.into())),
            "memory.low" => drop(set("MemoryLow", number()?.into())),
            "memory.min" => drop(set("MemoryMin", number()?.into())),
            "memory.swap.max" => drop(set("MemorySwapMax", number()?.into())),
            "pids.max" => drop(set("TasksMax", number()?.into())),
            "cpu.weight" => drop(set("CPUWeight", number()?.into())),
            // Idle to systemd is a weight, too: any other takes that away again.
            "cpu.idle" if value == "1" => drop(set("CPUWeight", 0_u64.into())),
            "cpu.max" => {
                let (quota, period) = quota(value, now("cpu.max").as_deref()).ok_or_else(wrong)?;
                set("CPUQuotaPeriodUSec", period.into());
                set("CPUQuotaPerSecUSec", quota.into());
            }
            "io.weight" => {
                // Those of single devices have another form.
                if let Some(weight) = limit(value.trim_start_matches("default ")) {
                    set("IOWeight", weight.into());
                }
            }
            "cpuset.cpus" => drop(set("AllowedCPUs", bits(value).ok_or_else(wrong)?.into())),
            "cpuset.mems" => drop(set("AllowedMemoryNodes", bits(value).ok_or_else(wrong)?.into())),
            _ => {}
        }
    }
    Ok(all.into_iter().collect())
}

/// The properties for devices: those that are `allowed`, with their accesses, or all.
pub(crate) fn of_devices(allowed: Option<Vec<(String, String)>>) -> Vec<(String, Value<'static>)> {
    let policy = if allowed.is_some() { "strict" } else { "auto" };
    // An empty list takes all away that were there before.
    let none: Vec<(String, String)> = Vec::new();
    let mut all = vec![property("DevicePolicy", policy), property("DeviceAllow", none)];
    all.extend(allowed.filter(|list| !list.is_empty()).map(|list| property("DeviceAllow", list)));
    all
}

fn limit(value: &str) -> Option<u64> {
    if value == "max" { Some(INFINITY) } else { value.parse().ok() }
}

/// Processor time for each second, and the period, both in µs. systemd counts in hundredths: it gets the next higher
/// one, so that the container's own cgroup has what it was given.
fn quota(value: &str, now: Option<&str>) -> Option<(u64, u64)> {
    let mut words = value.split_whitespace();
    let quota = limit(words.next()?)?;
    let period = match (words.next(), now.and_then(|n| n.split_whitespace().nth(1))) {
        (Some(period), _) | (None, Some(period)) => period.parse().ok().filter(|p| *p > 0)?,
        (None, None) => 100_000,
    };
    if quota == INFINITY {
        return Some((INFINITY, period));
    }
    let per_second = u128::from(quota) * 1_000_000 / u128::from(period);
    Some((u64::try_from(per_second.next_multiple_of(10_000)).ok()?, period))
}

/// The value of cpu.max that systemd's hundredths make of this one: the kernel and systemd say the same then, as with runc. Without
/// a quota systemd writes its own period, so the one that stays is said, too.
pub(crate) fn rounded_quota(value: &str, now: Option<&str>) -> Option<String> {
    let (per_second, period) = quota(value, now)?;
    let asked = value.split_whitespace().nth(1);
    if per_second == INFINITY {
        return (asked.is_none() && now.is_some()).then(|| format!("max {period}"));
    }
    let quota = u128::from(per_second) * u128::from(period) / 1_000_000;
    // A period that was not asked for stays as it is.
    let period = asked.map(|period| format!(" {period}"));
    Some(format!("{quota}{}", period.unwrap_or_default()))
}

/// A list like `0-2,7` as bits, the lowest byte first.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        for bit in first..=last {
            let byte = usize::from(bit / 8);
            if bytes.len() <= byte {
                bytes.resize(byte + 1, 0);
            }
            bytes[byte] |= 1 << (bit % 8);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// The properties in annotations; the annotation with the reason for one that is none.
pub(super) fn of_annotations<'a>(
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>, (String, String)> {
    annotations
        .filter_map(|(key, value)| Some((key, key.strip_prefix(ANNOTATION_PREFIX)?, value)))
        .map(|(key, name, value)| {
            of_annotation(name, value).map_err(|reason| (format!("annotations: {key}"), reason))
        })
        .collect()
}

fn of_annotation(name: &str, value: &str) -> Result<Property, String> {
    if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(format!("{name:?} is no name of a property"));
    }
    let parsed = variant::parse(value)?;
    // In unit files times are in seconds, in properties in µs.
    match name.strip_suffix("Sec") {
        Some(short) if short.ends_with(|c: char| c.is_ascii_lowercase()) => {
            Ok((format!("{short}USec"), microseconds(&parsed)?.into()))
        }
        _ => Ok((name.into(), parsed)),
    }
}

fn microseconds(seconds: &Value<'_>) -> Result<u64, String> {
    let whole = match seconds {
        Value::U8(n) => Some(u64::from(*n)),
        Value::I16(n) => u64::try_from(*n).ok(),
        Value::U16(n) => Some(u64::from(*n)),
        Value::I32(n) => u64::try_from(*n).ok(),
        Value::U32(n) => Some(u64::from(*n)),
        Value::I64(n) => u64::try_from(*n).ok(),
        Value::U64(n) => Some(*n),
        // Exact enough, and within the range.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Value::F64(n) if (0.0..1e12).contains(n) => return Ok((n * 1e6) as u64),
        _ => None,
    };
    whole.and_then(|n| n.checked_mul(1_000_000)).ok_or_else(|| "is no number of seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(files: &[(&str, &str)]) -> Vec<(String, Value<'static>)> {
        of_files(files.iter().copied(), |_| None).unwrap()
    }

    #[test]
    fn limits_are_properties() {
        assert_eq!(
            properties(&[
                ("pids.max", "5"),
                ("memory.max", "max"),
                ("hugetlb.2MB.max", "1"),
                ("pids.max", "7")
            ]),
            [property("MemoryMax", u64::MAX), property("TasksMax", 7_u64)]
        );
        assert_eq!(properties(&[("io.weight", "8:0 5")]), []);
        assert!(of_files([("memory.max", "12q")].into_iter(), |_| None).is_err());
    }

    #[test]
    fn quotas_are_rounded_up_to_hundredths() {
        assert_eq!(quota("50000 100000", None), Some((500_000, 100_000)));
        assert_eq!(quota("33333", None), Some((340_000, 100_000)));
        assert_eq!(quota("20000", Some("max 50000")), Some((400_000, 50_000)));
        assert_eq!(quota("max 50000", None), Some((u64::MAX, 50_000)));
        assert_eq!(quota("5 0", None), None);
        assert_eq!(rounded_quota("500000 900000", None).as_deref(), Some("504000 900000"));
        assert_eq!(rounded_quota("600000", Some("max 900000")).as_deref(), Some("603000"));
        assert_eq!(rounded_quota("50000 100000", None).as_deref(), Some("50000 100000"));
        assert_eq!(rounded_quota("max 100000", None), None);
        assert_eq!(rounded_quota("max", Some("70000 900000")).as_deref(), Some("max 900000"));
    }

    #[test]
    fn lists_are_bits_from_the_lowest_byte_on() {
        assert_eq!(bits("0"), Some(vec![1]));
        assert_eq!(bits("0-2,9"), Some(vec![7, 2]));
        assert_eq!(bits("1, 3"), Some(vec![10]));
        for wrong in ["", "2-1", "x", "-1", "99999"] {
            assert_eq!(bits(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn annotations_are_properties() {
        let of = |name: &str, value: &str| of_annotation(name, value);
        assert_eq!(of("TimeoutStopUSec", "uint64 5").unwrap(), property("TimeoutStopUSec", 5_u64));
        assert_eq!(of("TimeoutStopSec", "5").unwrap(), property("TimeoutStopUSec", 5_000_000_u64));
        assert_eq!(of("TimeoutStopSec", "1.5").unwrap(), property("TimeoutStopUSec", 1_500_000_u64));
        assert_eq!(of("CollectMode", "'inactive'").unwrap(), property("CollectMode", "inactive"));
        for (name, value) in [("AB", "1"), ("A.B", "1"), ("", "1"), ("TimeoutStopSec", "-1"), ("Abc", "")] {
            assert!(of(name, value).is_err(), "{name} {value}");
        }
    }
}
