//! What commands print: colours where the terminal wants them, tables, times, and nothing that a message could use to move the cursor.

use crate::exchange::Timestamp;
use anstyle::{AnsiColor, Style};
use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Good news.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Bad news.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something to look at.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// Headings.
pub(crate) const STRONG: Style = Style::new().bold();
/// What may be skipped.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// Names and places.
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();

/// Writes a line to standard output.
macro_rules! out {
    ($($arg:tt)*) => { $crate::cli::paint::print_out(format_args!($($arg)*)) };
}
/// Writes a line to standard error.
macro_rules! err {
    ($($arg:tt)*) => { $crate::cli::paint::print_err(format_args!($($arg)*)) };
}
pub(crate) use {err, out};

/// A line to standard output. A reader that has gone (`| head`) ends the process in peace.
pub(crate) fn print_out(line: Arguments<'_>) {
    if let Err(e) = writeln!(anstream::stdout().lock(), "{line}") {
        std::process::exit(if e.kind() == ErrorKind::BrokenPipe { 0 } else { 2 });
    }
}

/// Bytes to standard output as they are.
pub(crate) fn print_bytes(bytes: &[u8]) {
    if let Err(e) = std::io::stdout().lock().write_all(bytes) {
        std::process::exit(if e.kind() == ErrorKind::BrokenPipe { 0 } else { 2 });
    }
}

/// A line to standard error.
pub(crate) fn print_err(line: Arguments<'_>) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Text in a style.
pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Text from outside, made harmless: control characters (escape sequences, line breaks) are written as `\x1b`.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Columns under a heading; numbers (right) where `right` says so. Widths are counted without colours.
pub(crate) fn table(heading: &[&str], right: &[bool], rows: &[Vec<String>]) {
    let width = |text: &str| anstream::adapter::strip_str(text).to_string().chars().count();
    let widths: Vec<usize> = (0..heading.len())
        .map(|n| rows.iter().filter_map(|r| r.get(n)).map(|c| width(c)).chain([width(heading.get(n).unwrap_or(&""))]).max().unwrap_or(0))
        .collect();
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (n, cell) in cells.iter().enumerate() {
            let fill = " ".repeat(widths.get(n).copied().unwrap_or(0).saturating_sub(width(cell)));
            if right.get(n).copied().unwrap_or(false) {
                text += &fill;
                text += cell;
            } else {
                text += cell;
                text += &fill;
            }
            text += "  ";
        }
        text.trim_end().to_owned()
    };
    let heading: Vec<String> = heading.iter().map(|h| paint(FAINT, h)).collect();
    out!("{}", line(&heading));
    for row in rows {
        out!("{}", line(row));
    }
}

/// `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, c) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// `1 route`, `2 routes`, `3 deliveries`.
pub(crate) fn plural(n: u64, word: &str) -> String {
    match word.strip_suffix('y') {
        _ if n == 1 => format!("1 {word}"),
        Some(stem) => format!("{} {stem}ies", count(n)),
        None => format!("{} {word}s", count(n)),
    }
}

/// `12.3 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit_name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {unit_name}") }
}

/// A time in the machine's zone: `2026-11-24 11:35:01.123`.
pub(crate) fn time(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(t) => t.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => "-".to_owned(),
    }
}

/// A time for machines: RFC 3339 in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| String::new(), |t| t.to_string())
}

/// Microseconds as people read them.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// JSON, indented, with colours for keys and values. Bytes that are no JSON come back as they are, made harmless.
pub(crate) fn colour_json(bytes: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(bytes) {
        Ok(value) => {
            let mut text = String::new();
            write_json(&value, 0, &mut text);
            text
        }
        Err(_) => String::from_utf8_lossy(bytes).lines().map(|l| plain(l).into_owned() + "\n").collect(),
    }
}

fn write_json(value: &serde_json::Value, depth: usize, text: &mut String) {
    use serde_json::Value;
    let indent = |text: &mut String, depth: usize| text.extend(std::iter::repeat_n("  ", depth));
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push_str("{\n");
            for (n, (key, value)) in fields.iter().enumerate() {
                indent(text, depth + 1);
                text.push_str(&paint(NAME, &serde_json::to_string(key).unwrap_or_default()));
                text.push_str(": ");
                write_json(value, depth + 1, text);
                text.push_str(if n + 1 < fields.len() { ",\n" } else { "\n" });
            }
            indent(text, depth);
            text.push('}');
        }
        Value::Array(entries) if !entries.is_empty() => {
            text.push_str("[\n");
            for (n, value) in entries.iter().enumerate() {
                indent(text, depth + 1);
                write_json(value, depth + 1, text);
                text.push_str(if n + 1 < entries.len() { ",\n" } else { "\n" });
            }
            indent(text, depth);
            text.push(']');
        }
        Value::String(s) => text.push_str(&paint(AnsiColor::Green.on_default(), &plain(&serde_json::to_string(s).unwrap_or_default()))),
        other => text.push_str(&paint(AnsiColor::Yellow.on_default(), &other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(micros(1_500), "1.50 ms");
    }

    #[test]
    fn a_message_cannot_move_the_cursor() {
        assert_eq!(plain("Müller"), "Müller");
        assert_eq!(plain("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
    }
}
