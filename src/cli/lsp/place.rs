//! Places as editors count them, and files as they name them.

use serde_json::{Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How columns are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Units {
    /// The protocol's default.
    Utf16,
    /// Where the editor offers it.
    Utf8,
}

impl Units {
    /// The byte at a position; the nearest one where there is no such position.
    pub(super) fn byte(self, text: &str, position: &Value) -> usize {
        let number = |key: &str| position.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let (line, column) = (number("line"), number("character"));
        let mut start = 0;
        for _ in 0..line {
            match text.get(start..).and_then(|rest| rest.find('\n')) {
                Some(n) => start += n + 1,
                None => return text.len(),
            }
        }
        let mut units = 0;
        for (n, c) in text.get(start..).unwrap_or("").char_indices() {
            if units >= column || c == '\n' || c == '\r' {
                return start + n;
            }
            units += if self == Self::Utf8 { c.len_utf8() } else { c.len_utf16() };
        }
        text.len()
    }

    fn position(self, text: &str, at: usize) -> Value {
        let at = (0..=at.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        let before = text.get(..at).unwrap_or("");
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count();
        let part = before.get(start..).unwrap_or("");
        let column: usize = if self == Self::Utf8 { part.len() } else { part.chars().map(char::len_utf16).sum() };
        json!({ "line": line, "character": column })
    }

    /// A range of bytes.
    pub(super) fn range(self, text: &str, range: &Range<usize>) -> Value {
        json!({ "start": self.position(text, range.start), "end": self.position(text, range.end) })
    }
}

/// `file:///a/b%20c` as a path.
pub(super) fn path_of(uri: &str) -> Option<PathBuf> {
    let rest = uri.strip_prefix("file://")?;
    let path = rest.get(rest.find('/')?..)?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut from = path.bytes();
    while let Some(b) = from.next() {
        if b == b'%' {
            let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
            bytes.push(digit(from.next())? * 16 + digit(from.next())?);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// A path as editors name it.
pub(super) fn uri_of(path: &Path) -> String {
    let mut uri = String::from("file://");
    for b in path.to_string_lossy().bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~') {
            uri.push(char::from(b));
        } else {
            uri.push_str(&format!("%{b:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_as_the_editor_counts() {
        let text = "a\nä😀x: 1\r\n";
        for (units, column) in [(Units::Utf16, 3), (Units::Utf8, 6)] {
            let at = text.find('x').expect("an x");
            assert_eq!(units.position(text, at), json!({ "line": 1, "character": column }));
            assert_eq!(units.byte(text, &json!({ "line": 1, "character": column })), at);
            assert_eq!(units.byte(text, &json!({ "line": 1, "character": 99 })), text.find('\r').expect("an end"));
            assert_eq!(units.byte(text, &json!({ "line": 99, "character": 0 })), text.len());
        }
    }

    #[test]
    fn paths_go_there_and_back() {
        let path = Path::new("/a b/ä%20/c.yaml");
        assert_eq!(uri_of(path), "file:///a%20b/%C3%A4%2520/c.yaml");
        assert_eq!(path_of(&uri_of(path)).as_deref(), Some(path));
        assert_eq!(path_of("untitled:1"), None);
    }
}
