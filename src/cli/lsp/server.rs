//! The conversation with the editor: what it opens and changes, what it asks.

use crate::cli::Exit;
use crate::cli::lsp::answer;
use crate::cli::lsp::place::{Units, path_of, uri_of};
use crate::cli::lsp::project::{Buffers, Home, Project};
use crate::cli::lsp::wire;
use crate::diagnostic::{Diagnostic, Span};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Stdout};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Files are checked when nothing was typed for so long.
const QUIET: Duration = Duration::from_millis(150);

/// Messages that may wait while one is worked on.
const WAITING_MAX: usize = 64;

/// Runs until the editor says `exit` or goes away.
pub(super) fn serve() -> Exit {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    std::thread::spawn(move || {
        let mut input = BufReader::new(std::io::stdin());
        while let Ok(Some(message)) = wire::read(&mut input) {
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    let mut server = Server::new();
    loop {
        let message = if server.stale.is_empty() { receiver.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { receiver.recv_timeout(QUIET) };
        match message {
            Ok(message) => {
                if let Some(exit) = server.take(&message) {
                    return exit;
                }
            }
            Err(RecvTimeoutError::Timeout) => server.refresh(),
            // Gone without a word.
            Err(RecvTimeoutError::Disconnected) => return if server.ended { Exit::Done } else { Exit::Found },
        }
        if server.gone {
            return Exit::Found;
        }
    }
}

struct Server {
    out: Stdout,
    units: Units,
    buffers: Buffers,
    projects: BTreeMap<Home, Project>,
    /// What has changed since it was checked.
    stale: BTreeSet<Home>,
    /// What was last published: by home and file.
    published: BTreeMap<(Home, String), Value>,
    /// Where shipped files are written to be shown.
    cache: PathBuf,
    watches: bool,
    ended: bool,
    gone: bool,
}

impl Server {
    fn new() -> Self {
        Self {
            out: std::io::stdout(),
            units: Units::Utf16,
            buffers: Buffers::new(),
            projects: BTreeMap::new(),
            stale: BTreeSet::new(),
            published: BTreeMap::new(),
            cache: cache(),
            watches: false,
            ended: false,
            gone: false,
        }
    }

    fn send(&mut self, message: &Value) {
        self.gone |= wire::write(&mut self.out.lock(), message).is_err();
    }

    fn take(&mut self, message: &Value) -> Option<Exit> {
        let nothing = Value::Null;
        let params = message.get("params").unwrap_or(&nothing);
        let method = message.get("method").and_then(Value::as_str)?;
        let Some(id) = message.get("id") else {
            if method == "exit" {
                return Some(if self.ended { Exit::Done } else { Exit::Found });
            }
            self.notice(method, params);
            return None;
        };
        let answer = match method {
            _ if self.ended => Err((-32600, "the server was shut down")),
            "initialize" => Ok(self.initialize(params)),
            "shutdown" => {
                self.ended = true;
                Ok(Value::Null)
            }
            "textDocument/completion" => Ok(self.completion(params)),
            "textDocument/hover" => Ok(self.hover(params)),
            "textDocument/definition" => Ok(self.definition(params)),
            "textDocument/codeAction" => Ok(self.actions(params)),
            _ => Err((-32601, "not a method of this server")),
        };
        let message = match answer {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, text)) => json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } }),
        };
        self.send(&message);
        None
    }

    fn initialize(&mut self, params: &Value) -> Value {
        let offered = params.pointer("/capabilities/general/positionEncodings").and_then(Value::as_array);
        if offered.is_some_and(|list| list.iter().any(|e| e == "utf-8")) {
            self.units = Units::Utf8;
        }
        self.watches = params.pointer("/capabilities/workspace/didChangeWatchedFiles/dynamicRegistration") == Some(&json!(true));
        json!({
            "capabilities": {
                "positionEncoding": if self.units == Units::Utf8 { "utf-8" } else { "utf-16" },
                "textDocumentSync": { "openClose": true, "change": 1, "save": true },
                "completionProvider": { "triggerCharacters": ["-", ".", "$", "\"", " "] },
                "hoverProvider": true,
                "definitionProvider": true,
                "codeActionProvider": { "codeActionKinds": ["quickfix"] },
            },
            "serverInfo": { "name": "kiln", "version": env!("CARGO_PKG_VERSION") },
        })
    }

    fn notice(&mut self, method: &str, params: &Value) {
        let path = params.pointer("/textDocument/uri").and_then(Value::as_str).and_then(path_of);
        match (method, path) {
            ("initialized", _) if self.watches => {
                let watchers = json!([{ "globPattern": "**/*.{yaml,yml}" }]);
                let registration = json!({ "id": "files", "method": "workspace/didChangeWatchedFiles", "registerOptions": { "watchers": watchers } });
                self.send(&json!({ "jsonrpc": "2.0", "id": "watch", "method": "client/registerCapability", "params": { "registrations": [registration] } }));
            }
            ("textDocument/didOpen", Some(path)) => {
                if let Some(text) = params.pointer("/textDocument/text").and_then(Value::as_str) {
                    self.buffers.insert(path.clone(), text.to_owned());
                    self.changed(&path);
                }
            }
            ("textDocument/didChange", Some(path)) => {
                let last = params.get("contentChanges").and_then(Value::as_array).and_then(|c| c.last());
                if let Some(text) = last.and_then(|c| c.get("text")).and_then(Value::as_str) {
                    self.buffers.insert(path.clone(), text.to_owned());
                    self.changed(&path);
                }
            }
            ("textDocument/didSave", Some(path)) => self.changed(&path),
            ("textDocument/didClose", Some(path)) => {
                self.changed(&path);
                self.buffers.remove(&path);
                self.changed(&path);
            }
            ("workspace/didChangeWatchedFiles", _) => self.stale.extend(self.projects.keys().cloned()),
            _ => {}
        }
    }

    fn home(&self, path: &Path) -> Home {
        Home::of(path, &self.cache, &self.buffers)
    }

    fn changed(&mut self, path: &Path) {
        let home = self.home(path);
        // A site file that appears or goes takes files from other homes.
        if path.file_name().is_some_and(|n| n == crate::cli::site_file::DEFAULT) {
            self.stale.extend(self.projects.keys().cloned());
        }
        self.stale.insert(home);
    }

    /// Checks what has changed and tells the editor.
    fn refresh(&mut self) {
        for home in std::mem::take(&mut self.stale) {
            let used = self.buffers.keys().any(|p| self.home(p) == home);
            if !used {
                self.projects.remove(&home);
                self.publish(&home, BTreeMap::new());
                continue;
            }
            let (project, fault) = Project::load(&home, &self.buffers, &self.cache);
            if let Some(fault) = fault {
                self.send(&json!({ "jsonrpc": "2.0", "method": "window/logMessage", "params": { "type": 2, "message": fault } }));
            }
            let found = self.diagnostics(&project);
            self.projects.insert(home.clone(), project);
            if home != Home::Shipped {
                self.publish(&home, found);
            }
        }
    }

    /// By file: all files of a project, also those without a fault.
    fn diagnostics(&self, project: &Project) -> BTreeMap<String, Vec<Value>> {
        let mut found: BTreeMap<String, Vec<Value>> = project.files.keys().map(|p| (uri_of(p), Vec::new())).collect();
        let uri = |span: Span| project.path(span.source, &self.cache).map(|p| uri_of(&p));
        for d in &project.diagnostics {
            if let Some(file) = uri(d.span) {
                found.entry(file).or_default().push(answer::diagnostic(d, project.assist.sources(), self.units, &uri));
            }
        }
        if let Some((path, sources, diagnostics)) = &project.site {
            let own = uri_of(path);
            let list = diagnostics.iter().map(|d| answer::diagnostic(d, sources, self.units, &|_| Some(own.clone())));
            found.insert(own.clone(), list.collect());
        }
        found
    }

    fn publish(&mut self, home: &Home, mut found: BTreeMap<String, Vec<Value>>) {
        // Files that were told of before and are no longer there.
        for (_, uri) in self.published.keys().filter(|(h, _)| h == home) {
            found.entry(uri.clone()).or_default();
        }
        for (uri, list) in found {
            let key = (home.clone(), uri.clone());
            let list = json!(list);
            let before = self.published.get(&key);
            let open = path_of(&uri).is_some_and(|p| self.buffers.contains_key(&p));
            // A file that is not open and was always well needs no word.
            if before == Some(&list) || (before.is_none() && !open && list == json!([])) {
                continue;
            }
            self.send(&json!({ "jsonrpc": "2.0", "method": "textDocument/publishDiagnostics", "params": { "uri": uri, "diagnostics": list } }));
            self.published.insert(key, list);
        }
    }

    /// The file that a request is about, its text, and the byte that it points at; what it belongs to is loaded.
    fn asked(&mut self, params: &Value, fresh: bool) -> Option<(PathBuf, String, usize)> {
        let path = params.pointer("/textDocument/uri").and_then(Value::as_str).and_then(path_of)?;
        let text = self.buffers.get(&path)?.clone();
        let home = self.home(&path);
        if fresh || !self.projects.contains_key(&home) {
            self.stale.insert(home);
            self.refresh();
        }
        let at = self.units.byte(&text, params.get("position")?);
        Some((path, text, at))
    }

    fn project(&self, path: &Path) -> Option<&Project> {
        self.projects.get(&self.home(path))
    }

    fn completion(&mut self, params: &Value) -> Value {
        let Some((path, text, at)) = self.asked(params, false) else { return Value::Null };
        let Some(project) = self.project(&path).filter(|p| p.files.contains_key(&path)) else { return Value::Null };
        let list = project.files.get(&path).map(|id| project.assist.with_text(*id, &text).complete(at)).unwrap_or_default();
        answer::completion(&list, &text, at, self.units)
    }

    fn hover(&mut self, params: &Value) -> Value {
        let Some((path, text, at)) = self.asked(params, false) else { return Value::Null };
        let Some(project) = self.project(&path) else { return Value::Null };
        let Some(id) = project.source(&path, &self.cache) else { return Value::Null };
        let found = project.assist.with_text(id, &text).hover(at);
        let same = project.assist.sources().text(id) == text;
        let here = |d: &&Diagnostic| same && d.span.source == id && d.span.start as usize <= at && at <= d.span.end as usize;
        let faults: Vec<String> = project.diagnostics.iter().filter(here).map(answer::fault).collect();
        let texts: Vec<String> = found.iter().map(|h| h.text.clone()).chain(faults).collect();
        if texts.is_empty() {
            return Value::Null;
        }
        let range = found.map_or(at..at, |h| h.range);
        json!({ "contents": { "kind": "markdown", "value": texts.join("\n\n---\n\n") }, "range": self.units.range(&text, &range) })
    }

    fn definition(&mut self, params: &Value) -> Value {
        let fresh = !self.stale.is_empty();
        let Some((path, text, at)) = self.asked(params, fresh) else { return Value::Null };
        let Some(project) = self.project(&path) else { return Value::Null };
        let Some(id) = project.source(&path, &self.cache) else { return Value::Null };
        let spans = project.assist.with_text(id, &text).define(at);
        answer::locations(&spans, project, &self.cache, self.units)
    }

    fn actions(&mut self, params: &Value) -> Value {
        let around = |key: &str| params.pointer(&format!("/range/{key}")).cloned().unwrap_or(Value::Null);
        let mut at = params.clone();
        if let Some(map) = at.as_object_mut() {
            map.insert("position".to_owned(), around("start"));
        }
        let fresh = !self.stale.is_empty();
        let Some((path, text, start)) = self.asked(&at, fresh) else { return Value::Null };
        let range = start..self.units.byte(&text, &around("end"));
        let Some(project) = self.project(&path) else { return Value::Null };
        let uri = uri_of(&path);
        if let Some((site, sources, diagnostics)) = &project.site
            && *site == path
        {
            let all: Vec<&Diagnostic> = diagnostics.iter().collect();
            return answer::actions(&all, sources, &range, &uri, self.units);
        }
        let Some(id) = project.files.get(&path) else { return json!([]) };
        let own: Vec<&Diagnostic> = project.diagnostics.iter().filter(|d| d.span.source == *id).collect();
        answer::actions(&own, project.assist.sources(), &range, &uri, self.units)
    }
}

/// `$XDG_CACHE_HOME/kiln/VERSION`, `~/.cache/kiln/VERSION`, else the folder for temporary files.
fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|h| h.join(".cache"))).unwrap_or_else(std::env::temp_dir);
    base.join("kiln").join(concat!("shipped-", env!("CARGO_PKG_VERSION")))
}
