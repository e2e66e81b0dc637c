//! The text: fields in their order, each with its items and with what is to be known about them.

use std::fmt::Write as _;

/// A configuration in the making.
pub(super) struct Text {
    text: String,
    field: String,
}

impl Text {
    pub(super) fn new(header: &str) -> Self {
        let text = header.lines().fold(String::new(), |all, line| all + "# " + line + "\n");
        Self { text, field: String::new() }
    }

    /// `key = value`, so that LXC's parser reads exactly this value; one that it can't read becomes a comment.
    pub(super) fn set(&mut self, field: &str, key: &str, value: &str) {
        if value.contains(['\n', '\r', '\0']) || value.is_empty() {
            let name = value.split('=').next().unwrap_or_default().escape_debug().to_string();
            let what = if value.is_empty() { "an empty value" } else { "a value of several lines" };
            return self.lacks(field, &format!("{key}: {name}: a file can't hold {what}"));
        }
        self.heading(field);
        // The parser strips blanks, then one pair of quotes.
        let stripped = value.trim() != value || value.starts_with(['"', '\'']);
        let quote = if stripped { "\"" } else { "" };
        let _ = writeln!(self.text, "{key} = {quote}{value}{quote}");
    }

    /// What somebody should know.
    pub(super) fn note(&mut self, field: &str, text: &str) {
        self.heading(field);
        let _ = writeln!(self.text, "# note: {text}");
    }

    /// What LXC alone can't do.
    pub(super) fn lacks(&mut self, field: &str, reason: &str) {
        self.heading(field);
        // A comment ends with its line, and the rest would be a setting.
        let reason = reason.replace(['\n', '\r'], " ");
        let _ = writeln!(self.text, "# not expressed: {field}: {reason}");
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    /// A line with the section of `field`, when it is another than the last one's.
    fn heading(&mut self, field: &str) {
        let mut parts = field.split(['.', '[']);
        let section = match (parts.next().unwrap_or_default(), parts.next()) {
            ("linux", Some(name)) => format!("linux.{name}"),
            (first, _) => first.to_owned(),
        };
        if section != self.field {
            let _ = writeln!(self.text, "\n# {section}");
            self.field = section;
        }
    }
}

/// Words as liblxc's `lxc_string_split_quoted` takes them apart: blanks separate, and a word that begins with a quote
/// ends with the next one like it. `None` for a word that has blanks and both quotes.
pub(super) fn quoted_words(words: &[String]) -> Option<String> {
    let word = |word: &String| {
        let plain = !word.is_empty() && !word.starts_with(['"', '\'']) && !word.contains(char::is_whitespace);
        match word {
            _ if plain => Some(word.clone()),
            _ if !word.contains('"') => Some(format!("\"{word}\"")),
            _ if !word.contains('\'') => Some(format!("'{word}'")),
            _ => None,
        }
    };
    words.iter().map(word).collect::<Option<Vec<_>>>().map(|words| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_liblxc_takes_them_apart() {
        let words = |words: &[&str]| quoted_words(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["sh", "-c", "a b"]).unwrap(), "sh -c \"a b\"");
        assert_eq!(words(&["x", "", "say \"hi\" now", "don't"]).unwrap(), "x \"\" 'say \"hi\" now' don't");
        assert_eq!(words(&["a \"b\" 'c'"]), None);
    }

    #[test]
    fn a_value_keeps_its_blanks_and_quotes() {
        let mut text = Text::new("x");
        text.set("process", "lxc.environment", "A= b ");
        text.set("process", "lxc.init.cmd", "'a b' c");
        text.set("process", "lxc.environment", "A=1\n2");
        text.lacks("process", "no\nlxc.hook.pre-start = /x");
        let text = text.finish();
        assert!(text.contains("lxc.environment = \"A= b \"\n"), "{text}");
        assert!(text.contains("lxc.init.cmd = \"'a b' c\"\n"), "{text}");
        assert!(text.contains("# not expressed: process: lxc.environment: A: a file"), "{text}");
        assert!(text.contains("# not expressed: process: no lxc.hook.pre-start = /x\n"), "{text}");
    }
}
