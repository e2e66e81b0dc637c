//! Values in annotations, in GVariant's text format. Source: GLib's gvariant-text; of that, what properties of
//! systemd have: numbers, truth values, strings and arrays of those.

use zvariant::{Array, ObjectPath, Signature, Value};

/// Parses one value, for instance `uint64 1000`, `'text'`, `true` or `['a', 'b']`.
pub(super) fn parse(text: &str) -> Result<Value<'static>, String> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value(None)?;
    if parser.rest.is_empty() { Ok(value) } else { Err(format!("{:?} is left over", parser.rest)) }
}

/// Words for types before a value, and their letters.
const TYPES: [(&str, &str); 11] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
];

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    /// Takes `token` if it is next, and the space behind it.
    fn take(&mut self, token: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    /// A word: of letters, digits and what numbers have.
    fn word(&mut self) -> &'t str {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    /// A value, of the type `wanted` if that is known.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value<'static>, String> {
        if self.take('@') {
            let end = self.rest.find(char::is_whitespace).ok_or("a type without a value")?;
            let (signature, rest) = self.rest.split_at(end);
            self.rest = rest.trim_start();
            return self.value(Some(signature));
        }
        match self.rest.chars().next() {
            Some('\'' | '"') => typed_string(self.string()?, wanted.unwrap_or("s")),
            Some('[') => self.array(wanted),
            Some(c) if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') => {
                let word = self.word();
                if let Some((_, letter)) = TYPES.iter().find(|(name, _)| *name == word) {
                    return self.value(Some(letter));
                }
                plain(word, wanted)
            }
            Some(c) => Err(format!("{c:?} begins no value that a property of systemd has")),
            None => Err("a value is missing".into()),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let mut characters = self.rest.char_indices();
        let quote = characters.next().map(|(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = characters.next() {
            match c {
                c if Some(c) == quote => {
                    self.rest = self.rest[at + c.len_utf8()..].trim_start();
                    return Ok(text);
                }
                '\\' => match characters.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                    other => return Err(format!("\\{} is no escape", other.unwrap_or(' '))),
                },
                c => text.push(c),
            }
        }
        Err("a string without an end".into())
    }

    fn array(&mut self, wanted: Option<&str>) -> Result<Value<'static>, String> {
        let mut element = match wanted.map(|w| w.strip_prefix('a')) {
            Some(None) => return Err(format!("an array is no {}", wanted.unwrap_or_default())),
            Some(Some(element)) => Some(element.to_owned()),
            None => None,
        };
        self.take('[');
        let mut values = Vec::new();
        while !self.take(']') {
            if !values.is_empty() && !self.take(',') {
                return Err("a comma is missing in an array".into());
            }
            let value = self.value(element.as_deref())?;
            // The first one decides for the others.
            let found = element.get_or_insert_with(|| value.value_signature().to_string());
            if value.value_signature().to_string() != *found {
                return Err("an array of different types".into());
            }
            values.push(value);
        }
        let element = element.ok_or("an empty array needs its type, as in @as []")?;
        let signature = Signature::try_from(element.as_str()).map_err(|e| e.to_string())?;
        let mut array = Array::new(&signature);
        for value in values {
            array.append(value).map_err(|e| e.to_string())?;
        }
        Ok(Value::Array(array))
    }
}

fn typed_string(text: String, wanted: &str) -> Result<Value<'static>, String> {
    match wanted {
        "s" => Ok(Value::from(text)),
        "o" => Ok(Value::from(ObjectPath::try_from(text).map_err(|e| e.to_string())?)),
        other => Err(format!("a string is no {other}")),
    }
}

/// A number or truth value. Numbers of no type are of 32 bits, as GVariant has it.
fn plain(word: &str, wanted: Option<&str>) -> Result<Value<'static>, String> {
    if let (None | Some("b"), "true" | "false") = (wanted, word) {
        return Ok(Value::from(word == "true"));
    }
    let is_real = word.contains('.') || (!word.starts_with("0x") && word.contains(['e', 'E']));
    let wanted = wanted.unwrap_or(if is_real { "d" } else { "i" });
    let wrong = || format!("{word:?} is no value of type {wanted}");
    if wanted == "d" {
        return word.parse::<f64>().map(Value::from).map_err(|_| wrong());
    }
    let number = match word.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => word.parse::<i128>(),
    }
    .map_err(|_| wrong())?;
    match wanted {
        "y" => u8::try_from(number).map(Value::from).ok(),
        "n" => i16::try_from(number).map(Value::from).ok(),
        "q" => u16::try_from(number).map(Value::from).ok(),
        "i" => i32::try_from(number).map(Value::from).ok(),
        "u" => u32::try_from(number).map(Value::from).ok(),
        "x" => i64::try_from(number).map(Value::from).ok(),
        "t" => u64::try_from(number).map(Value::from).ok(),
        _ => None,
    }
    .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_types_that_are_written_before_them() {
        assert_eq!(parse("uint64 123456789").unwrap(), Value::U64(123_456_789));
        assert_eq!(parse("@t 5").unwrap(), Value::U64(5));
        assert_eq!(parse(" -5 ").unwrap(), Value::I32(-5));
        assert_eq!(parse("byte 0xff").unwrap(), Value::U8(255));
        assert_eq!(parse("1.5").unwrap(), Value::F64(1.5));
        assert_eq!(parse("true").unwrap(), Value::Bool(true));
        assert_eq!(parse("'inactive-or-failed'").unwrap(), Value::from("inactive-or-failed"));
        assert_eq!(parse(r#""a \"b\" \\""#).unwrap(), Value::from("a \"b\" \\"));
        assert_eq!(parse("['a.service', 'b.service']").unwrap(), Value::from(vec!["a.service", "b.service"]));
        assert_eq!(parse("[uint64 1, 2]").unwrap(), Value::from(vec![1_u64, 2]));
        assert_eq!(parse("@as []").unwrap(), Value::from(Vec::<String>::new()));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "uint64",
            "uint64 -1",
            "byte 256",
            "uint64 'x'",
            "'x",
            "[1, 'x']",
            "[1 2]",
            "[]",
            "[1",
            "1 2",
            "{}",
            "<1>",
            "x",
            "@",
            "@t",
            "string 5",
            "@as 'x'",
            "\u{e4}",
        ] {
            assert!(parse(text).is_err(), "{text:?}: {:?}", parse(text));
        }
    }
}
