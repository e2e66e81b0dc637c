//! The words of errors.

/// The system's reasons as callers of runc look for them: `Permission denied (os error 13)` is `permission denied`.
pub fn words(reason: &str) -> String {
    let Some((text, _)) = reason.rsplit_once(" (os error ") else { return reason.to_owned() };
    let start = text.rfind(": ").map_or(0, |colon| colon + 2);
    let (before, words) = text.split_at(start);
    let mut rest = words.chars();
    let first = rest.next().unwrap_or_default().to_ascii_lowercase();
    format!("{before}{first}{}", rest.as_str())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn reasons_of_the_system_are_in_small_letters_without_their_number() {
        assert_eq!(words("Permission denied (os error 13)"), "permission denied");
        assert_eq!(words("option X: No such device (os error 19)"), "option X: no such device");
        assert_eq!(words("Our own"), "Our own");
    }
}
