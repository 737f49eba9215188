//! Rows for tables and naming systems, written into a site's own files: the file stays as somebody laid it out, and is checked before it changes.

use crate::cli::check_fix::{Text, show, write};
use crate::cli::daemon;
use crate::cli::paint::plain;
use crate::cli::site_file;
use crate::diagnostic::{Severity, Sources, render};
use crate::route::layout;
use crate::site::{Site, read_folders, shipped, words};
use std::path::{Path, PathBuf};

/// Where a row goes that no file of the site has a place for.
const OWN_FILE: &str = "own-codes.yaml";

/// The shipped document of naming systems.
const NAMING_SYSTEMS: &str = "naming-systems";

/// A code and what it becomes, or a namespace and its URI.
pub(crate) struct Row {
    /// As it is sent.
    pub code: String,
    /// What it becomes.
    pub value: String,
}

/// What came of it.
pub(crate) enum Written {
    /// Only shown.
    Shown,
    /// The site would have faults; rendered.
    Faults(String),
    /// It is in this file.
    To(PathBuf),
}

/// Writes rows for a table, or for the naming systems where none is named. A sentence about a file that cannot be read or written.
pub(crate) fn write_rows(site: &Site, table: Option<&str>, rows: &[Row], dry: bool) -> Result<Written, String> {
    let files = read_folders(&site.folders).map_err(|e| words(&e))?;
    if let Some(told) = faults(site, &files, None) {
        return Ok(Written::Faults(told));
    }
    if let Some(name) = table
        && !known_table(name, &files)
    {
        return Err(format!("there is no table {}; `kiln unmapped` names those that lack a code", plain(name)));
    }
    let home = files.iter().find_map(|(path, text)| with_rows(text, table, rows).map(|now| (path.clone(), text.clone(), now)));
    let (path, was, now) = match home {
        Some(found) => found,
        None => {
            let folder = site.folders.first().ok_or("the site names no folder of routes")?;
            let path = if folder.is_dir() { folder.join(OWN_FILE) } else { folder.with_file_name(OWN_FILE) };
            let was = files.iter().find(|(known, _)| *known == path).map_or_else(String::new, |(_, text)| text.clone());
            let divider = if was.is_empty() { "" } else { "---\n" };
            let end = if was.is_empty() || was.ends_with('\n') { "" } else { "\n" };
            let now = format!("{was}{end}{divider}{}", document(table, rows));
            (path, was, now)
        }
    };
    let now = layout(&now);
    if let Some(told) = faults(site, &files, Some((&path, &now))) {
        return Ok(Written::Faults(told));
    }
    let text = Text { before: was.clone(), now };
    if dry {
        show(&path, &text);
        return Ok(Written::Shown);
    }
    if was.is_empty() && !path.exists() {
        create(&path, &text.now)?;
    } else {
        write(&path, &text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(Written::To(path))
}

fn create(path: &Path, text: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {}", path.display(), words(&e));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let beside = path.with_extension("yaml.new");
    std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).map_err(failed)
}

/// The errors of the site's routes with one file's text changed, rendered; `None` if there is none.
fn faults(site: &Site, files: &[(PathBuf, String)], changed: Option<(&Path, &str)>) -> Option<String> {
    let mut sources = Sources::default();
    for (path, text) in shipped() {
        sources.add_shipped(format!("shipped/{path}"), text);
    }
    let mut met = false;
    for (path, text) in files {
        match changed {
            Some((other, now)) if other == path => {
                met = true;
                sources.add(path.display().to_string(), now);
            }
            _ => {
                sources.add(path.display().to_string(), text.as_str());
            }
        }
    }
    if let Some((path, text)) = changed.filter(|_| !met) {
        sources.add(path.display().to_string(), text);
    }
    let loaded = crate::route::load(sources, &daemon::load_options(site));
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).cloned().collect();
    (!errors.is_empty()).then(|| render(&loaded.sources, &errors, site_file::style()))
}

fn known_table(name: &str, files: &[(PathBuf, String)]) -> bool {
    let head = |text: &str| text.lines().any(|line| value_of(line, "table") == Some(name));
    shipped().iter().any(|(_, text)| head(text)) || files.iter().any(|(_, text)| head(text))
}

/// The value of a line `key: value` at the left edge, without quotes and comments.
fn value_of<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(key)?.strip_prefix(':')?;
    let rest = rest.split(" #").next().unwrap_or(rest);
    Some(rest.trim().trim_matches(['"', '\'']))
}

/// A document that adds the rows to one that ships or stands elsewhere.
fn document(table: Option<&str>, rows: &[Row]) -> String {
    let mut text = match table {
        Some(name) => format!("extend: {}\ncodes:\n", scalar(name)),
        None => format!("extend: {NAMING_SYSTEMS}\nmatch+:\n"),
    };
    for row in rows {
        text.push_str(&format!("  {}\n", line(table, row)));
    }
    text
}

/// `Q: other`, or `- { namespace: LAB7, system: "urn:oid:1.2.3" }`.
fn line(table: Option<&str>, row: &Row) -> String {
    if table.is_some() {
        return format!("{}: {}", scalar(&row.code), scalar(&row.value));
    }
    let key = if row.code.contains('.') && row.code.chars().all(|c| c.is_ascii_digit() || c == '.') { "oid" } else { "namespace" };
    format!("- {{ {key}: {}, system: {} }}", scalar(&row.code), quoted(&row.value))
}

/// The text with the rows in the site's own table or its `extend:`, in block or flow form; `None` if it has no such place.
fn with_rows(text: &str, table: Option<&str>, rows: &[Row]) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let starts = std::iter::once(0).chain(lines.iter().enumerate().filter(|(_, l)| l.trim_end() == "---").map(|(n, _)| n + 1));
    let starts: Vec<usize> = starts.collect();
    for (place, start) in starts.iter().enumerate() {
        let end = starts.get(place + 1).map_or(lines.len(), |next| next - 1);
        let Some(document) = lines.get(*start..end) else { continue };
        let first = document.iter().find(|l| !l.trim().is_empty() && !l.starts_with('#'))?;
        let (key, fits) = match table {
            Some(name) => ("codes", value_of(first, "table") == Some(name) || value_of(first, "extend") == Some(name)),
            None if value_of(first, "systems").is_some() => ("match", true),
            None => ("match+", value_of(first, "extend") == Some(NAMING_SYSTEMS)),
        };
        if !fits {
            continue;
        }
        let Some(at) = document.iter().position(|l| l.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))) else { continue };
        return inserted(&lines, start + at, end, key, table, rows);
    }
    None
}

fn inserted(lines: &[&str], at: usize, end: usize, key: &str, table: Option<&str>, rows: &[Row]) -> Option<String> {
    let head = lines.get(at)?;
    let rest = head.get(key.len() + 1..)?.split(" #").next()?.trim();
    let mut now: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
    if rest.is_empty() {
        // The block's lines are those that are indented; its last one that says something is where the rows go.
        let block = lines.get(at + 1..end)?.iter().take_while(|l| l.trim().is_empty() || l.starts_with([' ', '#']) || (table.is_none() && l.starts_with('-')));
        let last = block.enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.trim_start().starts_with('#')).map(|(n, _)| at + 1 + n).last()?;
        let first = lines.get(at + 1..=last)?.iter().find(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'))?;
        let indent = first.len() - first.trim_start().len();
        if let Some(before) = now.get_mut(last).filter(|l| !l.ends_with('\n')) {
            before.push('\n');
        }
        let new = rows.iter().map(|row| format!("{}{}\n", " ".repeat(indent), line(table, row)));
        now.splice(last + 1..last + 1, new);
        return Some(now.concat());
    }
    // On one line, `codes: { Q: other }`.
    let close = if table.is_some() { '}' } else { ']' };
    let open = if table.is_some() { '{' } else { '[' };
    if !rest.starts_with(open) || !rest.ends_with(close) {
        return None;
    }
    let inner = rest.get(1..rest.len() - 1)?.trim().trim_end_matches(',');
    let entries = rows.iter().map(|row| line(table, row).trim_start_matches("- ").to_owned());
    let all: Vec<String> = std::iter::once(inner.to_owned()).filter(|inner| !inner.is_empty()).chain(entries).collect();
    let (left, right) = if table.is_some() { ("{ ", " }") } else { ("[", "]") };
    *now.get_mut(at)? = head.replacen(rest, &format!("{left}{}{right}", all.join(", ")), 1);
    Some(now.concat())
}

/// A scalar as YAML reads it back: plain where that is safe, else in quotes.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nothing", "nan", "inf"];
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let plain = letters && text.starts_with(|c: char| c.is_ascii_alphabetic()) && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(code: &str, value: &str) -> Vec<Row> {
        vec![Row { code: code.to_owned(), value: value.to_owned() }]
    }

    #[test]
    fn a_row_goes_where_the_file_has_its_place_and_nothing_else_changes() {
        for (was, table, code, value, now) in [
            (
                "extend: sex\ncodes:\n  # ours\n  Q: other\n\n# end\n",
                "sex",
                "N",
                "other",
                "extend: sex\ncodes:\n  # ours\n  Q: other\n  \"N\": other\n\n# end\n",
            ),
            (
                "table: sex\ncodes: { Q: other }   # ours\nunmapped: drop\n",
                "sex",
                "7",
                "male",
                "table: sex\ncodes: { Q: other, \"7\": male }   # ours\nunmapped: drop\n",
            ),
            ("route: a\n---\nextend: sex\ncodes:\n    Q: other", "sex", "W", "female", "route: a\n---\nextend: sex\ncodes:\n    Q: other\n    W: female\n"),
        ] {
            assert_eq!(with_rows(was, Some(table), &row(code, value)).as_deref(), Some(now), "{was}");
        }
        let systems = "systems: ours\nmatch:\n  - { namespace: A, system: \"urn:a\" }\nunknown: refuse\n";
        let now = "systems: ours\nmatch:\n  - { namespace: A, system: \"urn:a\" }\n  - { oid: \"1.2.3\", system: \"urn:b\" }\nunknown: refuse\n";
        assert_eq!(with_rows(systems, None, &row("1.2.3", "urn:b")).as_deref(), Some(now));
        assert_eq!(with_rows("extend: other\ncodes:\n  A: b\n", Some("sex"), &row("W", "female")), None);
        assert_eq!(document(None, &row("LAB \"7\"", "urn:x")), "extend: naming-systems\nmatch+:\n  - { namespace: \"LAB \\\"7\\\"\", system: \"urn:x\" }\n");
    }
}
