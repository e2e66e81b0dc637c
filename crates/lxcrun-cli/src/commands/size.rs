//! Sizes as people write them.

use anyhow::Context;

/// Bytes, or a number (`1.5`) with `k`, `m`, `g`, `t`, `p` and an optional `b` or `ib`, each 1024 times the one before;
/// -1 is no limit.
pub fn parse_size(text: &str) -> anyhow::Result<i64> {
    let wrong = || format!("{text:?} is no size (examples: 67108864, 64m, 1.5g)");
    let lower = text.trim().to_lowercase();
    if lower == "-1" {
        return Ok(-1);
    }
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => anyhow::bail!(wrong()),
    };
    let (whole, fraction) = digits.trim_end().split_once('.').unwrap_or((digits.trim_end(), "0"));
    let number = |digits: &str| -> anyhow::Result<i64> {
        anyhow::ensure!(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()), wrong());
        digits.parse().with_context(wrong)
    };
    let unit = 1_i64 << shift;
    const BILLION: i128 = 1_000_000_000;
    number(fraction)?;
    let billionths = i128::from(number(&format!("{fraction:0<9.9}"))?);
    let bytes = (i128::from(number(whole)?) * BILLION + billionths) * i128::from(unit) / BILLION;
    i64::try_from(bytes).ok().with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("64m", 64 << 20),
            ("2G", 2 << 30),
            ("1KiB", 1024),
            ("64 m", 64 << 20),
            ("1.5g", 3 << 29),
            ("0.5k", 512),
            ("0.0625g", 64 << 20),
            ("-1", -1),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "1x", "-2", "9999999999g", "1.", ".5", "1.5.5g", "+1", "1.x"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }
}
