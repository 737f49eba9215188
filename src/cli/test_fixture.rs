//! Fixtures: a message `NAME.hl7`, what is expected of it in `NAME.expected.json`, and the circumstances in `given.json`.

use crate::cli::site_file;
use crate::cli::test_run::Arrival;
use crate::diagnostic::suggest;
use crate::exchange::Timestamp;
use crate::site::{ListenerSite, Unrouted, words};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What expectations are called.
const EXPECTED: &str = "expected.json";

/// Circumstances of all fixtures in a folder and below.
const GIVEN: &str = "given.json";

/// When a message is received if nobody says when: 2026-01-15T12:00:00Z. A test must not depend on the day it runs.
const RECEIVED: Timestamp = Timestamp(1_768_478_400_000);

/// Deep enough for any sane layout, and an end for links that lead in a circle.
const DEPTH_MAX: usize = 16;

/// Where the expectation of a message file stands.
pub(crate) fn expectation_of(message: &Path) -> PathBuf {
    message.with_extension(EXPECTED)
}

/// All messages in files and folders, and expectations without a message.
///
/// # Errors
/// A path that is not there or cannot be read, in a sentence.
pub(crate) fn find(paths: &[PathBuf]) -> Result<BTreeSet<PathBuf>, String> {
    let mut found = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            walk(path, 0, &mut found)?;
        } else if !path.exists() {
            return Err(format!("there is no file or folder {}", path.display()));
        } else {
            found.insert(message_of(path).unwrap_or_else(|| path.clone()));
        }
    }
    Ok(found)
}

/// `a.hl7` for `a.expected.json`.
fn message_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(format!("{}.hl7", name.strip_suffix(EXPECTED)?.strip_suffix('.')?)))
}

fn walk(folder: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {}", folder.display(), words(&e));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, found)?;
            }
        } else if path.extension().is_some_and(|e| e == "hl7") {
            found.insert(path);
        } else {
            found.extend(message_of(&path));
        }
    }
    Ok(())
}

/// The nearest `kiln.yaml` in the folder of a path or above it.
pub(crate) fn site_above(path: &Path) -> Option<PathBuf> {
    let file = above(path).into_iter().map(|folder| folder.join(site_file::DEFAULT)).find(|file| file.is_file())?;
    // As somebody here would write it: reports name it.
    let here = std::env::current_dir().and_then(std::fs::canonicalize).ok()?;
    Some(file.strip_prefix(here).map(Path::to_path_buf).unwrap_or(file))
}

/// The folder of a path and those above it, nearest first, up to the one with a site file or to the root of a repository.
fn above(path: &Path) -> Vec<PathBuf> {
    let Ok(full) = std::fs::canonicalize(path) else { return Vec::new() };
    let mut folders = Vec::new();
    for folder in full.ancestors().skip(usize::from(!full.is_dir())) {
        folders.push(folder.to_path_buf());
        if folder.join(site_file::DEFAULT).is_file() || folder.join(".git").exists() {
            break;
        }
    }
    folders
}

/// The circumstances of a fixture: those of its own file before those of the nearest folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Given {
    listener: Option<String>,
    zone: Option<String>,
    authority: Option<String>,
    charset: Option<String>,
    received: Option<Timestamp>,
    unrouted: Option<Unrouted>,
    /// Only these routes, whether they match or not.
    pub(crate) routes: Option<Vec<String>>,
}

const GIVEN_KEYS: [&str; 7] = ["listener", "zone", "authority", "charset", "received", "unrouted", "routes"];

impl Given {
    /// What folders say about a message.
    pub(crate) fn of_folders(message: &Path) -> Result<Self, String> {
        let mut given = Self::default();
        for file in above(message).into_iter().map(|folder| folder.join(GIVEN)).filter(|file| file.is_file()) {
            let value = read_json(&file)?;
            given = given.or(Self::read(&value).map_err(|what| format!("{}: {what}", file.display()))?);
        }
        Ok(given)
    }

    /// Reads the object of `given`.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("`given` must be an object, such as { \"listener\": \"adt\" }".to_owned()) };
        known(object, &GIVEN_KEYS, "given")?;
        let text = |key: &str| match object.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("given.{key} must be a text")),
        };
        let received = match text("received")? {
            None => None,
            Some(t) => Some(
                t.parse::<jiff::Timestamp>()
                    .map(|t| Timestamp(t.as_millisecond()))
                    .map_err(|_| "given.received must be a time with its offset, such as \"2026-01-15T12:00:00Z\"".to_owned())?,
            ),
        };
        let zone = text("zone")?;
        if let Some(zone) = zone.as_deref().filter(|zone| jiff::tz::TimeZone::get(zone).is_err()) {
            return Err(format!("given.zone: there is no time zone {zone}; write a name such as \"Europe/Berlin\""));
        }
        let charset = text("charset")?;
        if let Some(charset) = charset.as_deref().filter(|c| crate::hl7v2::Charset::named(c).is_none()) {
            return Err(format!("given.charset: the character set {charset} is not known; write a name such as \"UTF-8\""));
        }
        let unrouted = match text("unrouted")?.as_deref() {
            None => None,
            Some("accept") => Some(Unrouted::Accept),
            Some("reject") => Some(Unrouted::Reject),
            Some(_) => return Err("given.unrouted must be \"accept\" or \"reject\"".to_owned()),
        };
        let routes = match object.get("routes") {
            None => None,
            Some(Value::String(one)) => Some(vec![one.clone()]),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            Some(_) => return Err("given.routes must be a list of routes' names".to_owned()),
        };
        Ok(Self { listener: text("listener")?, zone, authority: text("authority")?, charset, received, unrouted, routes })
    }

    /// What this says, and where it says nothing, the other.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            listener: self.listener.or(other.listener),
            zone: self.zone.or(other.zone),
            authority: self.authority.or(other.authority),
            charset: self.charset.or(other.charset),
            received: self.received.or(other.received),
            unrouted: self.unrouted.or(other.unrouted),
            routes: self.routes.or(other.routes),
        }
    }

    /// Where and when the message comes in. The first listener is the one where none is named.
    pub(crate) fn arrival(&self, listeners: &[ListenerSite]) -> Result<Arrival, String> {
        let site = match &self.listener {
            None => listeners.first(),
            Some(name) => listeners.iter().find(|l| *l.socket.name == **name),
        };
        let mut arrival = Arrival::at(site);
        if let (Some(name), None) = (&self.listener, site) {
            if !listeners.is_empty() {
                let names: Vec<_> = listeners.iter().map(|l| &*l.socket.name).collect();
                return Err(format!("given.listener: the site has no listener {name}; it has {}", names.join(", ")));
            }
            arrival.listener.clone_from(name);
        }
        let take = |own: &Option<String>, from: Option<String>| own.clone().or(from);
        arrival.zone = take(&self.zone, arrival.zone);
        arrival.authority = take(&self.authority, arrival.authority);
        if let Some(charset) = self.charset.as_deref().and_then(crate::hl7v2::Charset::named) {
            arrival.options.charset_otherwise = Some(charset);
        }
        arrival.unrouted = self.unrouted.unwrap_or(arrival.unrouted);
        arrival.received = self.received.unwrap_or(RECEIVED);
        Ok(arrival)
    }
}

/// What stands in `NAME.expected.json`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation {
    pub(crate) note: Option<String>,
    /// As written, so that it can be written again.
    given_text: Option<Value>,
    pub(crate) given: Given,
    /// One for each message of the file.
    pub(crate) cases: Vec<Map<String, Value>>,
}

const CASE_KEYS: [&str; 3] = ["ack", "disposition", "routes"];

impl Expectation {
    /// Reads it; nothing if the file is not there.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>, String> {
        if !file.exists() {
            return Ok(None);
        }
        let named = |what: String| format!("{}: {what}", file.display());
        let Value::Object(mut object) = read_json(file)? else { return Err(named("it must be an object".to_owned())) };
        let note = match object.shift_remove("note") {
            None => None,
            Some(Value::String(note)) => Some(note),
            Some(_) => return Err(named("`note` must be a text".to_owned())),
        };
        let mut expectation = Self { note, ..Self::default() };
        if let Some(given) = object.shift_remove("given") {
            expectation.given = Given::read(&given).map_err(named)?;
            expectation.given_text = Some(given);
        }
        expectation.cases = match object.shift_remove("messages") {
            None => vec![object],
            Some(Value::Array(cases)) if object.is_empty() => cases
                .into_iter()
                .map(|case| match case {
                    Value::Object(case) => Ok(case),
                    _ => Err(named("each of `messages` must be an object".to_owned())),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(named("`messages` must be a list, and nothing but `note` and `given` may stand beside it".to_owned())),
        };
        for case in &expectation.cases {
            known(case, &CASE_KEYS, "an expectation").map_err(named)?;
            check_routes(case).map_err(named)?;
        }
        Ok(Some(expectation))
    }

    /// The text of the file with these cases. What the old ones leave open stays open.
    pub(crate) fn write(&self, made: Vec<Map<String, Value>>) -> String {
        let mut object = Map::new();
        if let Some(note) = &self.note {
            object.insert("note".to_owned(), Value::String(note.clone()));
        }
        if let Some(given) = &self.given_text {
            object.insert("given".to_owned(), given.clone());
        }
        let mut cases: Vec<_> = made.into_iter().enumerate().map(|(n, case)| with_gaps(case, self.cases.get(n))).collect();
        if let [only] = cases.as_mut_slice() {
            object.append(only);
        } else {
            object.insert("messages".to_owned(), cases.into_iter().map(Value::Object).collect());
        }
        let mut text = String::new();
        write_json(&Value::Object(object), 0, true, &mut text);
        text + "\n"
    }
}

/// Whatever fits into a line of so many characters stands in one: a name or a telephone number is read at a glance, and changes in one line.
const WIDTH: usize = 110;

/// JSON with one line for what is short.
fn write_json(value: &Value, depth: usize, open: bool, text: &mut String) {
    if !open {
        let line = one_line(value);
        let column = text.len() - text.rfind('\n').map_or(0, |n| n + 1);
        if column + line.chars().count() <= WIDTH {
            return text.push_str(&line);
        }
    }
    let indent = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Object(object) if !object.is_empty() => {
            text.push('{');
            for (n, (key, value)) in object.iter().enumerate() {
                text.push_str(if n > 0 { "," } else { "" });
                indent(text, depth + 1);
                text.push_str(&format!("{}: ", Value::from(key.as_str())));
                write_json(value, depth + 1, false, text);
            }
            indent(text, depth);
            text.push('}');
        }
        Value::Array(entries) if !entries.is_empty() => {
            text.push('[');
            for (n, value) in entries.iter().enumerate() {
                text.push_str(if n > 0 { "," } else { "" });
                indent(text, depth + 1);
                write_json(value, depth + 1, false, text);
            }
            indent(text, depth);
            text.push(']');
        }
        leaf => text.push_str(&leaf.to_string()),
    }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Object(object) if !object.is_empty() => {
            let parts: Vec<_> = object.iter().map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), one_line(value))).collect();
            format!("{{ {} }}", parts.join(", "))
        }
        Value::Array(entries) => format!("[{}]", entries.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        leaf => leaf.to_string(),
    }
}

/// A new case without what the old one does not look at.
fn with_gaps(mut made: Map<String, Value>, old: Option<&Map<String, Value>>) -> Map<String, Value> {
    // A file with nothing in it leaves nothing open: it waits to be filled.
    let Some(old) = old.filter(|old| !old.is_empty()) else { return made };
    made.retain(|key, _| old.contains_key(key));
    let open = |route: &str, key: &str| old.get("routes").and_then(|r| r.get(route)).is_some_and(|r| r.get(key).is_none() && r.get("stop").is_none());
    if let Some(Value::Object(routes)) = made.get_mut("routes") {
        for (name, outcome) in routes.iter_mut() {
            if let Value::Object(outcome) = outcome
                && open(name, "findings")
            {
                outcome.shift_remove("findings");
            }
        }
    }
    made
}

fn check_routes(case: &Map<String, Value>) -> Result<(), String> {
    let Some(routes) = case.get("routes") else { return Ok(()) };
    let Value::Object(routes) = routes else { return Err("`routes` must be an object: a route's name, and what it makes".to_owned()) };
    for (name, outcome) in routes {
        let Value::Object(outcome) = outcome else { return Err(format!("routes.{name} must be an object with `saves`, `messages` or `stop`")) };
        known(outcome, &["saves", "messages", "findings", "asked", "stop"], &format!("routes.{name}"))?;
        if outcome.contains_key("stop") && outcome.len() > 1 {
            return Err(format!("routes.{name}: a route that stops makes nothing; `stop` stands alone"));
        }
        for key in ["saves", "messages", "findings", "asked"] {
            if outcome.get(key).is_some_and(|v| !v.is_array()) {
                return Err(format!("routes.{name}.{key} must be a list"));
            }
        }
    }
    Ok(())
}

fn known(object: &Map<String, Value>, keys: &[&str], what: &str) -> Result<(), String> {
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let near = suggest(key, keys.iter().copied()).map_or_else(|| format!("it has {}", keys.join(", ")), |n| format!("did you mean {n}?"));
            Err(format!("{what} has no key {key}; {near}"))
        }
    }
}

fn read_json(file: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {}", file.display(), words(&e)))?;
    // Where the fault is, without the content: the parser's own words hold none.
    serde_json::from_str(&text).map_err(|e| format!("{}:{}:{}: it is not JSON: {}", file.display(), e.line(), e.column(), plain_reason(&e)))
}

fn plain_reason(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_is_short_stands_in_one_line() {
        let mut text = String::new();
        write_json(&json!({ "a": [1, { "b": "c" }], "long": ["x".repeat(60), "y".repeat(60)], "none": {} }), 0, true, &mut text);
        let (x, y) = ("x".repeat(60), "y".repeat(60));
        assert_eq!(text, format!("{{\n  \"a\": [1, {{ \"b\": \"c\" }}],\n  \"long\": [\n    \"{x}\",\n    \"{y}\"\n  ],\n  \"none\": {{}}\n}}"));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof!["\\PC{0,80}".prop_map(Value::from), any::<i64>().prop_map(Value::from), any::<bool>().prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::btree_map("\\PC{0,20}", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in any_value()) {
            let mut text = String::new();
            write_json(&value, 0, true, &mut text);
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("it is JSON"), value);
        }

        #[test]
        fn no_file_makes_it_panic(value in any_value()) {
            let _ = Given::read(&value);
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("a.expected.json");
            std::fs::write(&file, value.to_string()).expect("a file");
            let _ = Expectation::read(&file);
        }
    }
}
