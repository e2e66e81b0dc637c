//! Sizes as people write them.

use anyhow::Context;

/// Bytes, or with `k`, `m`, `g`, `t` and an optional `b` or `ib`, each 1024 times the one before; -1 is no limit.
pub fn parse_size(text: &str) -> anyhow::Result<i64> {
    let wrong = || format!("{text:?} is no size (examples: 67108864, 64m, 1g)");
    let lower = text.trim().to_lowercase();
    if lower == "-1" {
        return Ok(-1);
    }
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: i64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => anyhow::bail!(wrong()),
    };
    let number: i64 = digits.parse().with_context(wrong)?;
    number.checked_mul(factor).filter(|n| *n >= 0).with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1", 1), ("64m", 64 << 20), ("2G", 2 << 30), ("1KiB", 1024), ("-1", -1)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "1x", "-2", "9999999999g", "1.5g"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }
}
