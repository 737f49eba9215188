//! Layers defaults, file, environment and flags, and reads the result.

use crate::diagnostic::{Diagnostic, Severity, SourceId, Sources, Span};
use crate::site::environment::{Override, Overrides, is_secret_key};
use crate::site::model::Site;
use crate::site::reader::Reader;
use crate::site::sections::{Around, DEFAULTS, site};
use crate::site::yaml::{Path, Place, Yaml, span_of};
use config::{Config, Value, ValueKind};
use std::collections::HashMap;
use std::path::PathBuf;

/// How a site file is to be read.
pub struct SiteOptions<'a> {
    /// `KILN__...` variables, then flags: later ones win.
    pub overrides: &'a [Override],
    /// False: a secret that is not there is only a warning.
    pub secrets_needed: bool,
    /// The environment, for `{ env: NAME }`.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// A site file, or why it is none.
pub struct LoadedSite {
    /// The site; `None` if there is any error.
    pub site: Option<Site>,
    /// The journal's folder, also where the file has errors elsewhere; `None` if it is no YAML.
    pub journal: Option<PathBuf>,
    /// Everything that was found, in file order.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that the diagnostics point into: the file, and one per variable or flag. Secrets in them are blotted out.
    pub sources: Sources,
}

/// Reads a site file's text. `shown` is the path as the user wrote it; relative paths in the file begin at `folder`.
/// `text` is `None` when there is no file: then defaults and overrides must do.
pub fn load(shown: &str, folder: &std::path::Path, text: Option<&str>, options: &SiteOptions<'_>) -> LoadedSite {
    let mut sources = Sources::default();
    let mut faults = Vec::new();
    let defaults = Yaml::read(DEFAULTS, sources.add("Kiln's defaults", DEFAULTS), &mut faults);
    let text = text.unwrap_or("");
    let id = SourceId(1);
    let file = Yaml::read(text, id, &mut faults);
    let broken = faults.iter().any(|f| f.code == "K720");
    sources.add(shown, if broken { blot_lines(text) } else { blot(text, &file) });
    let over = Overrides::read(options.overrides, &file.places, &mut sources, &mut faults);
    let beginning = Span { source: id, start: 0, end: u32::try_from(text.lines().next().unwrap_or("").len()).unwrap_or(0) };

    let mut places = defaults.places.clone();
    places.extend(file.places.clone());
    let layered = Config::builder().add_source(defaults).add_source(file).add_source(over.clone()).build();
    let root = match layered {
        Ok(layered) => layered.cache,
        // None of our sources fails; should `config` find a reason, it is told without its text, which may hold a value.
        Err(_) => {
            faults.push(Diagnostic::error("K720", beginning, "the layers of this file do not fit together"));
            Value::new(None, ValueKind::Nil)
        }
    };
    merge_places(&mut places, &over.places, &root);
    let mut reader = Reader { places: &places, faults, beginning, files: Vec::new() };
    let around = Around { folder, secrets_needed: options.secrets_needed, variable: options.variable };
    let read = if broken { None } else { Some(site(&mut reader, &root, &around)) };
    let mut diagnostics = reader.faults;
    diagnostics.sort_by_key(|d| (d.span.source, d.span.start));
    let good = diagnostics.iter().all(|d| d.severity != Severity::Error);
    let journal = read.as_ref().map(|site| site.journal.path.clone());
    LoadedSite { site: read.filter(|_| good), journal, diagnostics, sources }
}

/// An override's place counts where its value won; elsewhere (`listeners` in `KILN__LISTENERS__ADT__MLLP`) the file's own stays.
fn merge_places(places: &mut HashMap<Path, Place>, over: &HashMap<Path, Place>, root: &Value) {
    for (path, place) in over {
        let mut value = Some(root);
        for part in path {
            value = match value.map(|v| &v.kind) {
                Some(ValueKind::Table(t)) => t.get(part),
                Some(ValueKind::Array(a)) => part.parse::<usize>().ok().and_then(|n| a.get(n)),
                _ => None,
            };
        }
        let won = value.and_then(span_of).is_some_and(|s| s.source == place.value.source);
        if won || !places.contains_key(path) {
            // The order of a key that the file has too stays the file's.
            let order = places.get(path).map_or(place.order, |p| p.order);
            places.insert(path.clone(), Place { order, ..*place });
        }
    }
}

/// The text with the letters of secrets replaced, byte for byte, so that a fault that quotes the line cannot show them.
fn blot(text: &str, file: &Yaml) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (path, place) in &file.places {
        let mut keys = path.iter().rev();
        let last = keys.next().map_or("", String::as_str);
        let under_secret = path.iter().any(|k| is_secret_key(k)) && !is_place(&path[..], last);
        let is_leaf = !file.places.keys().any(|k| k.len() > path.len() && k.starts_with(path));
        if under_secret && is_leaf {
            for b in bytes.iter_mut().take(place.value.end as usize).skip(place.value.start as usize).filter(|b| !b.is_ascii_whitespace()) {
                *b = b'*';
            }
        }
        // user:password@ in a URL
        if matches!(last, "fhir" | "proxy" | "url" | "token-url")
            && let Some(url) = text.get(place.value.start as usize..place.value.end as usize)
            && let (Some(scheme), Some(at)) = (url.find("://"), url.find('@'))
        {
            let start = place.value.start as usize;
            for b in bytes.iter_mut().take(start + at).skip(start + scheme + 3) {
                *b = b'*';
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| blot_lines(text))
}

/// Keys below a secret's that say where it is, or something that may be read.
fn is_place(path: &[String], last: &str) -> bool {
    let words = ["file", "env", "user", "auth", "headers", "basic", "oauth", "smart", "token-url", "client", "method", "scope", "kid", "audience"];
    // `tls: { key: FILE }` has names of files alone.
    words.contains(&last) || path.iter().any(|k| k == "tls")
}

/// For a file that is not YAML: all that follows a secret's key on its line.
fn blot_lines(text: &str) -> String {
    let mut blotted = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let at = ["password:", "bearer:", "token:", "secret:", "headers:", "key:"].iter().filter_map(|k| line.find(k).map(|n| n + k.len())).min();
        match at {
            Some(at) => {
                let (head, tail) = line.split_at(at);
                blotted.push_str(head);
                blotted.extend(tail.chars().map(|c| if c.is_whitespace() { c } else { '*' }));
            }
            None => blotted.push_str(line),
        }
    }
    blotted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::model::{LowWater, TargetKind};
    use crate::target::{Auth, SecretSource};
    use std::time::Duration;

    fn read(text: &str, variables: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> LoadedSite {
        let mut overrides = Override::environment(variables.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())));
        overrides.extend(flags.iter().map(|(name, path, text)| Override::flag(name, path, *text)));
        let variable = |name: &str| (name == "PASSWORD").then(|| "geheim".to_owned());
        load("kiln.yaml", std::path::Path::new("/site"), Some(text), &SiteOptions { overrides: &overrides, secrets_needed: true, variable: &variable })
    }

    fn told(loaded: &LoadedSite) -> Vec<String> {
        let s = &loaded.sources;
        let place = |d: &Diagnostic| (s.path(d.span.source).to_owned(), s.line_column(d.span));
        loaded.diagnostics.iter().map(|d| (place(d), d)).map(|((path, (l, c)), d)| format!("{path}:{l}:{c} {} {}", d.code, d.message)).collect()
    }

    #[test]
    fn defaults_file_environment_and_flags_are_layers() {
        let text = "journal: { keep: 7d, low-water: 1GiB }\nlisteners:\n  Lab_2: { mllp: 0.0.0.0:2575, allow: [10.0.0.0/8] }\n";
        let site = read(text, &[], &[]).site.expect("a good file");
        assert_eq!(site.journal.path, std::path::Path::new("/site/journal"));
        assert_eq!((site.journal.keep, site.journal.low_water), (Duration::from_secs(7 * 86_400), LowWater::Bytes(1 << 30)));
        assert_eq!(site.console.listen, Some("127.0.0.1:8575".parse().expect("an address")));

        let variables =
            [("KILN__JOURNAL__LOW_WATER", "7%"), ("KILN__LISTENERS__LAB_2__MLLP", "127.0.0.1:1"), ("KILN__LISTENERS__LAB_2__ALLOW", "[::1, 10.1.0.0/16]")];
        let site = read(text, &variables, &[("--mllp", "listeners.Lab_2.mllp", "127.0.0.1:2")]).site.expect("a good file");
        assert_eq!(site.journal.low_water, LowWater::Percent(7));
        assert_eq!(site.listeners.len(), 1);
        assert_eq!(site.listeners[0].socket.address, "127.0.0.1:2".parse().expect("an address"));
        assert_eq!(site.listeners[0].socket.allow.0.len(), 2);
    }

    #[test]
    fn all_faults_are_told_at_once_each_at_its_place() {
        let text = "journl: { path: x }\njournal: { keep: 30 }\nreload: wach\nlisteners:\n  adt: { mllp: here, unrouted: [a] }\n  lab: {}\n  lab: {}\n";
        let loaded = read(text, &[("KILN__JOURNAL__LOW_WATER", "much"), ("KILN__CONSOL__LISTEN", "127.0.0.1:1")], &[]);
        assert!(loaded.site.is_none());
        let told = told(&loaded);
        let expected = [
            "kiln.yaml:1:1 K721 `journl` is not a key of a site file",
            "kiln.yaml:2:18 K725 `journal.keep` is not a duration",
            "kiln.yaml:3:9 K724 `reload` is one of watch, signal",
            "kiln.yaml:5:16 K725 `listeners.adt.mllp` is not an address and a port",
            "kiln.yaml:5:32 K722 `listeners.adt.unrouted` is one value",
            "kiln.yaml:6:3 K723 listener `lab` says not where messages come in",
            "kiln.yaml:7:3 K729 `lab` is written twice",
            "KILN__CONSOL__LISTEN:1:1 K721 `consol` is not a key of a site file",
            "KILN__JOURNAL__LOW_WATER:1:1 K725 `journal.low-water` is not a size or a share of the disk",
        ];
        assert_eq!(told, expected);
        assert_eq!(loaded.diagnostics[0].fix.as_deref(), Some("journal"));
    }

    #[test]
    fn secrets_come_from_elsewhere_and_are_never_quoted() {
        let text = "targets:\n  main: { fhir: http://h/r4/, auth: { basic: { user: k, password: { env: PASSWORD } } } }\n";
        let site = read(text, &[], &[]).site.expect("a good file");
        let TargetKind::Fhir { url, auth, .. } = &site.targets[0].kind else { panic!("a FHIR target") };
        let Auth::Basic { user, password } = auth else { panic!("basic") };
        assert_eq!((url.as_str(), user.as_str(), password), ("http://h/r4", "k", &SecretSource::text("geheim")));

        for text in [
            "targets:\n  main: { fhir: 'http://h/r4', auth: { basic: { user: k, password: hunter2ä } } }\n",
            "targets:\n  main: { fhir: 'http://u:hunter2@h/r4' }\n",
            "targets:\n  main: { auth: { bearer: hunter2 }\n",
            "targets:\n  main: { auth: { bearer: [hunter2] } }\n",
        ] {
            let loaded = read(text, &[("KILN__TARGETS__MAIN__AUTH__BASIC__PASSWORD", "hunter2"), ("KILN__TARGETS__MAIN__FOO", "1")], &[]);
            assert!(loaded.site.is_none(), "{text}");
            let shown: String = loaded.sources.ids().map(|id| loaded.sources.text(id)).collect();
            assert!(!shown.contains("hunter"), "{text}: {shown}");
            assert!(!told(&loaded).join("\n").contains("hunter"), "{text}");
        }
    }

    #[test]
    fn an_empty_file_is_a_site_and_a_wrong_one_never_panics() {
        assert!(read("", &[], &[]).site.is_some());
        for text in
            ["[", "a: &x 1\nb: *x", "- a", "a: {b: [c, {d: e}]}\n---\nx: 1", "ä: \"ö\nü\": 1", "? [a]\n: b", "listeners: 1", "targets: [a]", "log: {level: }"]
        {
            read(text, &[("KILN____", "x"), ("KILN__A", "[")], &[]);
        }
    }
}
