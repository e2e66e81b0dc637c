//! containerd's URIs, as Go's `net/url` reads them: what follows the scheme.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Its path, without escapes.
pub fn path(uri: &str) -> OsString {
    decode(split(uri).0, false)
}

/// Names and values of its query. Of a name that comes again, the first value counts.
pub fn query(uri: &str) -> Vec<(OsString, OsString)> {
    let mut pairs: Vec<(OsString, OsString)> = Vec::new();
    for pair in split(uri).1.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name, true);
        if pairs.iter().all(|(known, _)| *known != name) {
            pairs.push((name, decode(value, true)));
        }
    }
    pairs
}

/// Path and query.
fn split(uri: &str) -> (&str, &str) {
    let (uri, _fragment) = uri.split_once('#').unwrap_or((uri, ""));
    uri.split_once('?').unwrap_or((uri, ""))
}

/// Undoes escapes, of which a query has one more than a path.
fn decode(text: &str, is_query: bool) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.get(..2)).flatten();
        let escaped = escaped.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let escaped = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if is_query && first == b'+' { b' ' } else { first });
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_a_path_are_undone() {
        assert_eq!(path("/a%20b%2Fc%zz+%4"), "/a b/c%zz+%4");
        assert_eq!(path("/a%3Fb?c=d#e"), "/a?b");
        assert_eq!(path("/%ff"), OsString::from_vec(b"/\xff".to_vec()));
    }

    #[test]
    fn a_query_is_pairs_of_a_name_and_a_value() {
        let pairs = |uri| -> Vec<String> {
            let pairs = query(uri).into_iter().flat_map(|(name, value)| [name, value]);
            pairs.map(|text| text.into_string().unwrap()).collect()
        };
        assert_eq!(pairs("/l"), [""; 0]);
        assert_eq!(pairs("/l?a=x+y&&b=&c&d=p%2Bq=r#s"), ["a", "x y", "b", "", "c", "", "d", "p+q=r"]);
        assert_eq!(pairs("/l?a=1&b=2&a=3&%61=4"), ["a", "1", "b", "2"]);
    }
}
