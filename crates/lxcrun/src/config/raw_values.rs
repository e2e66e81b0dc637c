//! Values of raw LXC settings that become parts of the plan.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::process::{Rlimit, UNLIMITED, rlimit_of_name};

/// A setting that is on or off.
pub(super) fn switch(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{value:?} is not true or false")),
    }
}

/// `lxc.prlimit.NAME`: `SOFT:HARD`, or one number for both. None for an empty one, which takes back what was said before.
pub(super) fn rlimit(field: &str, name: &str, value: &str) -> Result<Option<Rlimit>, String> {
    let name = rlimit_of_name(name).ok_or("there is no such limit")?;
    if value.is_empty() {
        return Ok(None);
    }
    let number = |text: &str| match text.trim() {
        "unlimited" => Ok(UNLIMITED),
        text => text.parse().map_err(|_| format!("{text:?} is neither a number nor unlimited")),
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err("the soft limit is above the hard one".into());
    }
    Ok(Some(Rlimit { name, soft, hard, field: field.into() }))
}

/// `lxc.time.offset.*`: a number and its unit, as seconds and nanoseconds.
pub(super) fn time_offset(value: &str) -> Result<(i64, u32), String> {
    const SECOND: i128 = 1_000_000_000;
    let value = value.trim();
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+'));
    let number: i64 =
        value[..value.len() - unit.len()].parse().map_err(|_| format!("{value:?} is no number"))?;
    let factor = match unit.trim() {
        "h" => 3600 * SECOND,
        "m" => 60 * SECOND,
        "s" => SECOND,
        "ms" => 1_000_000,
        "us" => 1000,
        "ns" => 1,
        _ => return Err(format!("{value:?} has no unit: h, m, s, ms, us or ns")),
    };
    let nanoseconds = i128::from(number) * factor;
    let seconds =
        i64::try_from(nanoseconds.div_euclid(SECOND)).map_err(|_| format!("{value} is too much"))?;
    // Less than a second.
    Ok((seconds, u32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or_default()))
}

/// One line of fstab(5) as LXC takes it: a target below the root, `create=dir` and the like for what we do anyway.
pub(super) fn mount_entry(entry: &str) -> Result<Mount, String> {
    let fields: Vec<String> = entry.split_whitespace().map(unescape).collect();
    let (Some(source), Some(target), Some(fstype)) = (fields.first(), fields.get(1), fields.get(2)) else {
        return Err("has less than three fields: source, target, type, options".into());
    };
    let mut options: Vec<String> = Vec::new();
    for option in fields.get(3).map(String::as_str).unwrap_or_default().split(',').filter(|o| !o.is_empty()) {
        match option {
            "create=dir" | "create=file" | "relative" => {}
            "optional" if !Path::new(source).exists() => {
                return Err(format!("{source} does not exist, and optional mounts are not supported"));
            }
            "optional" => {}
            other => options.push(other.into()),
        }
    }
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from("/").join(target.trim_start_matches('/')))
        .set_source(Some(source.into()))
        .set_typ(Some(if fstype == "none" { "bind".into() } else { fstype.clone() }))
        .set_options(Some(options));
    Ok(mount)
}

/// `\040` and other octal escapes: fstab(5).
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let octal =
            octal.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_one_number_or_two() {
        let numbers = |value| rlimit("f", "nofile", value).map(|l| l.map(|l| (l.soft, l.hard)));
        assert_eq!(numbers("512"), Ok(Some((512, 512))));
        assert_eq!(numbers("512:unlimited"), Ok(Some((512, UNLIMITED))));
        assert_eq!(numbers(""), Ok(None));
        for wrong in ["many", "5:4", "-1", "1:2:3"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
        for wrong in ["files", "NOFILE", "nofile.x", ""] {
            assert!(rlimit("f", wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn offsets_have_a_unit() {
        assert_eq!(time_offset("2h"), Ok((7200, 0)));
        assert_eq!(time_offset("-1500 ms"), Ok((-2, 500_000_000)));
        assert_eq!(time_offset("+7ns"), Ok((0, 7)));
        for wrong in ["", "1", "h", "1d", "9223372036854775807h"] {
            assert!(time_offset(wrong).is_err(), "{wrong}");
        }
    }
}
