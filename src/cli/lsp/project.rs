//! What belongs together: a site file with its folders, a folder of routes, or a file alone; loaded with what the editor has not saved yet.

use crate::cli::daemon;
use crate::cli::site_file::DEFAULT;
use crate::diagnostic::{Diagnostic, SourceId, Sources, Span};
use crate::route::{Assist, LoadOptions, load};
use crate::site::{self, Override, SiteOptions, read_folders, shipped};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// The texts of open files by path.
pub(super) type Buffers = BTreeMap<PathBuf, String>;

/// What a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Home {
    /// A site file.
    Site(PathBuf),
    /// A folder of route files without a site file.
    Folder(PathBuf),
    /// A file on its own.
    Alone(PathBuf),
    /// A shipped file, to be read only.
    Shipped,
}

impl Home {
    /// Where a file belongs: to the nearest kiln.yaml above it, else to a folder `routes`. `cache` is where shipped files are shown.
    pub(super) fn of(path: &Path, cache: &Path, buffers: &Buffers) -> Self {
        if path.starts_with(cache) {
            return Self::Shipped;
        }
        if path.file_name().is_some_and(|n| n == DEFAULT) {
            return Self::Site(path.to_owned());
        }
        for folder in path.ancestors().skip(1) {
            let site = folder.join(DEFAULT);
            if site.is_file() || buffers.contains_key(&site) {
                return Self::Site(site);
            }
        }
        match path.ancestors().skip(1).find(|f| f.file_name().is_some_and(|n| n == "routes")) {
            Some(folder) => Self::Folder(folder.to_owned()),
            None => Self::Alone(path.to_owned()),
        }
    }
}

/// A loaded home.
pub(super) struct Project {
    pub(super) assist: Assist,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Real files, and which source each is.
    pub(super) files: HashMap<PathBuf, SourceId>,
    /// The site file's own texts and faults.
    pub(super) site: Option<(PathBuf, Sources, Vec<Diagnostic>)>,
}

impl Project {
    /// Reads and checks everything anew. Unsaved texts win over files. A file that cannot be read is left out, and said so.
    pub(super) fn load(home: &Home, buffers: &Buffers, cache: &Path) -> (Self, Option<String>) {
        let (folders, options, site) = match home {
            Home::Site(path) => site(path, buffers),
            Home::Folder(folder) => (vec![folder.clone()], LoadOptions::default(), None),
            Home::Alone(_) | Home::Shipped => (Vec::new(), LoadOptions::default(), None),
        };
        let (mut texts, mut fault) = (BTreeMap::new(), None);
        for folder in &folders {
            match read_folders(std::slice::from_ref(folder)) {
                Ok(files) => texts.extend(files),
                Err(e) => fault = Some(e.to_string()),
            }
        }
        for (path, text) in buffers.iter().filter(|(path, _)| Home::of(path, cache, buffers) == *home) {
            let within = folders.iter().any(|f| path.starts_with(f)) && path.extension().is_some_and(|e| e == "yaml" || e == "yml");
            let is_site = path.file_name().is_some_and(|n| n == DEFAULT);
            if !is_site && *home != Home::Shipped && (within || begins_as_routes(text)) {
                texts.insert(path.clone(), text.clone());
            }
        }
        let mut sources = Sources::default();
        for (path, text) in shipped() {
            sources.add_shipped(format!("shipped/{path}"), text);
        }
        let mut files = HashMap::new();
        for (path, text) in texts {
            let id = sources.add(path.display().to_string(), text);
            files.insert(path, id);
        }
        let loaded = load(sources, &options);
        (Self { assist: Assist::new(&loaded), diagnostics: loaded.diagnostics, files, site }, fault)
    }

    /// The source that a path is: a file of the site, or a shipped one that is shown from the cache.
    pub(super) fn source(&self, path: &Path, cache: &Path) -> Option<SourceId> {
        if let Some(id) = self.files.get(path) {
            return Some(*id);
        }
        let below = format!("shipped/{}", path.strip_prefix(cache).ok()?.display());
        self.assist.sources().ids().find(|id| self.assist.sources().path(*id) == below)
    }

    /// The file that holds a source; a shipped one is written to the cache, read-only, when somebody first wants to see it.
    pub(super) fn path(&self, id: SourceId, cache: &Path) -> Option<PathBuf> {
        if let Some((path, _)) = self.files.iter().find(|(_, s)| **s == id) {
            return Some(path.clone());
        }
        let sources = self.assist.sources();
        let below = sources.path(id).strip_prefix("shipped/")?;
        let path = cache.join(below);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(sources.text(id)) {
            std::fs::create_dir_all(path.parent()?).ok()?;
            // A file of an older Kiln is read-only too.
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, sources.text(id)).ok()?;
            let mut permissions = std::fs::metadata(&path).ok()?.permissions();
            permissions.set_readonly(true);
            std::fs::set_permissions(&path, permissions).ok()?;
        }
        Some(path)
    }
}

type SiteRead = (Vec<PathBuf>, LoadOptions, Option<(PathBuf, Sources, Vec<Diagnostic>)>);

fn site(path: &Path, buffers: &Buffers) -> SiteRead {
    let text = buffers.get(path).cloned().or_else(|| std::fs::read_to_string(path).ok());
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let overrides = Override::environment(std::env::vars());
    let options = SiteOptions { overrides: &overrides, secrets_needed: false, variable: &|name| std::env::var(name).ok() };
    let loaded = site::load(&path.display().to_string(), &folder, text.as_deref(), &options);
    let (folders, options) = match &loaded.site {
        Some(site) => (site.folders.clone(), daemon::load_options(site)),
        None => (vec![folder.join("routes")], LoadOptions::default()),
    };
    // What was set elsewhere than in the file is shown at its beginning.
    let own = |d: Diagnostic| if d.span.source == SourceId(1) { d } else { Diagnostic { span: Span { source: SourceId(1), start: 0, end: 0 }, ..d } };
    let diagnostics = loaded.diagnostics.into_iter().map(own).collect();
    (folders, options, Some((path.to_owned(), loaded.sources, diagnostics)))
}

/// Other YAML files may be open in the same editor.
fn begins_as_routes(text: &str) -> bool {
    let first = text.lines().map(str::trim_end).find(|l| !l.is_empty() && !l.starts_with('#') && *l != "---").unwrap_or("");
    matches!(first.split(':').next(), Some("map" | "route" | "table" | "systems" | "segment" | "datatype" | "extend")) && first.contains(':')
}
