//! `KILN__JOURNAL__PATH=/data` and `--console 127.0.0.1:9000`: values that stand above the file's.

use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::site::yaml::{Path, Place, Yaml, value_at};
use config::{ConfigError, Map, Source, Value, ValueKind};
use std::collections::HashMap;

/// One value from outside of the file.
#[derive(Clone)]
pub struct Override {
    /// What a fault names: `KILN__JOURNAL__PATH` or `--console`.
    pub name: String,
    /// `journal.path`, or for a variable the part after the prefix, `JOURNAL__PATH`.
    path: Path,
    text: String,
}

impl Override {
    /// A command line flag. `path` is dotted: `journal.path`.
    pub fn flag(name: &str, path: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), path: path.split('.').map(str::to_owned).collect(), text: text.into() }
    }

    /// All `KILN__...` variables among `variables`, in alphabetical order. Two underscores divide levels, one stands for a dash.
    pub fn environment(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Self> {
        let mut found: Vec<_> = variables
            .into_iter()
            .filter_map(|(name, text)| {
                let path = name.strip_prefix("KILN__")?.split("__").map(|part| part.to_ascii_lowercase().replace('_', "-")).collect();
                Some(Self { name, path, text })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

/// Overrides as a [`Source`] for the `config` crate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    root: Map<String, Value>,
    /// Where each override's key "stands": in a text of its own that is named as the variable is.
    pub places: HashMap<Path, Place>,
}

impl Overrides {
    /// Reads each text as a scalar, or as YAML where it begins with a bracket or a brace. Names are matched to the file's own keys
    /// without regard to case, dash and underscore, so that a listener called `Lab_2` can be reached.
    pub(crate) fn read(overrides: &[Override], file: &HashMap<Path, Place>, sources: &mut Sources, faults: &mut Vec<Diagnostic>) -> Self {
        let mut all = Self::default();
        for (n, o) in overrides.iter().enumerate() {
            let path = known_spelling(&o.path, file);
            let secret = path.iter().any(|p| is_secret_key(p));
            let shown = if secret { "*".repeat(o.text.chars().count().min(12)) } else { o.text.clone() };
            let source = sources.add(o.name.clone(), shown.clone());
            let span = Span { source, start: 0, end: u32::try_from(shown.len()).unwrap_or(u32::MAX) };
            if path.iter().any(String::is_empty) {
                faults.push(Diagnostic::error("K721", span, format!("{} names no key", o.name)).help("write KILN__JOURNAL__PATH for `journal: { path: ... }`"));
                continue;
            }
            let value = if o.text.starts_with(['[', '{']) && !secret {
                let (value, places) = Yaml::read_value(&o.text, source, path.clone(), faults);
                all.places.extend(places);
                value
            } else {
                value_at(span, ValueKind::String(o.text.clone()))
            };
            for depth in 1..=path.len() {
                let order = usize::MAX / 2 + n;
                all.places.entry(path.iter().take(depth).cloned().collect()).or_insert(Place { key: span, value: span, order });
            }
            insert(&mut all.root, &path, value);
        }
        all
    }
}

/// Keys whose scalar value must not be shown.
pub(crate) fn is_secret_key(key: &str) -> bool {
    matches!(key, "password" | "bearer" | "token" | "secret" | "headers" | "auth" | "key")
}

fn known_spelling(path: &[String], file: &HashMap<Path, Place>) -> Path {
    let plain = |s: &str| s.to_lowercase().replace('_', "-");
    let mut known: Path = Vec::new();
    for part in path {
        let same = file.keys().find(|k| k.len() == known.len() + 1 && k.starts_with(&known) && k.last().is_some_and(|l| plain(l) == plain(part)));
        known.push(same.and_then(|k| k.last().cloned()).unwrap_or_else(|| part.clone()));
    }
    known
}

fn insert(root: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            root.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let child = root.entry(first.clone()).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
            if !matches!(child.kind, ValueKind::Table(_)) {
                child.kind = ValueKind::Table(Map::new());
            }
            if let ValueKind::Table(table) = &mut child.kind {
                insert(table, rest, value);
            }
        }
    }
}

impl Source for Overrides {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.root.clone())
    }
}
