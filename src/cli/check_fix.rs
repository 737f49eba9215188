//! `kiln check --fix`: writes what is certainly meant into the site's own files, and lays them out. Shipped files are never touched.

use crate::cli::daemon;
use crate::cli::paint::{FAINT, GOOD, STRONG, out, paint, plain};
use crate::diagnostic::{Diagnostic, Sources};
use crate::route::{LoadOptions, layout};
use crate::site::{Override, SiteOptions, read_folders, shipped, words};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One repair may make another possible, but not for ever.
const ROUNDS_MAX: usize = 20;

/// A file as it is on the disk and as it is to be.
pub(crate) struct Text {
    /// What is on the disk.
    pub before: String,
    /// What is to be there.
    pub now: String,
}

/// The files of a check, with what has been mended so far.
struct Files {
    texts: BTreeMap<PathBuf, Text>,
    sites: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// Mends what can be mended. `dry`: shows the difference and writes nothing. True if there was something to change.
///
/// # Errors
/// A sentence about a file that cannot be read or written.
pub(crate) fn fix(sites: &[PathBuf], folders: &[PathBuf], dry: bool, silent: bool) -> Result<bool, String> {
    let mut files = Files { texts: BTreeMap::new(), sites: sites.to_vec(), folders: folders.to_vec() };
    let mut told = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let found = files.look()?;
        let more = files.mend(&found);
        if more.is_empty() {
            break;
        }
        told.extend(more);
    }
    for (path, text) in &mut files.texts {
        let laid = layout(&text.now);
        if laid != text.now {
            text.now = laid;
            told.push(format!("{}: laid out", path.display()));
        }
    }
    let changed: Vec<(&PathBuf, &Text)> = files.texts.iter().filter(|(_, text)| text.now != text.before).collect();
    for (path, text) in &changed {
        if dry {
            if !silent {
                show(path, text);
            }
        } else {
            write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    if !dry && !silent {
        for line in &told {
            out!("{} {}", paint(GOOD, "fixed"), plain(line));
        }
    }
    Ok(!changed.is_empty())
}

impl Files {
    fn text(&mut self, path: &Path) -> Result<String, String> {
        if let Some(text) = self.texts.get(path) {
            return Ok(text.now.clone());
        }
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {}", path.display(), words(&e)))?;
        self.texts.insert(path.to_owned(), Text { before: text.clone(), now: text.clone() });
        Ok(text)
    }

    /// Everything that a check finds in the texts as they are now.
    fn look(&mut self) -> Result<Vec<(Sources, Vec<Diagnostic>)>, String> {
        let mut found = Vec::new();
        for path in self.sites.clone() {
            let text = self.text(&path)?;
            let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
            let overrides = Override::environment(std::env::vars());
            let options = SiteOptions { overrides: &overrides, secrets_needed: false, variable: &|name| std::env::var(name).ok() };
            let loaded = crate::site::load(&path.display().to_string(), &folder, Some(&text), &options);
            let (mut folders, options) = match &loaded.site {
                Some(site) => (site.folders.clone(), daemon::load_options(site)),
                None => (vec![path.with_file_name("routes")], LoadOptions::default()),
            };
            folders.extend(self.folders.iter().cloned());
            found.push((loaded.sources, loaded.diagnostics));
            found.push(self.routes(&folders, &options)?);
        }
        if self.sites.is_empty() {
            found.push(self.routes(&self.folders.clone(), &LoadOptions::default())?);
        }
        Ok(found)
    }

    fn routes(&mut self, folders: &[PathBuf], options: &LoadOptions) -> Result<(Sources, Vec<Diagnostic>), String> {
        let mut sources = Sources::default();
        for (path, text) in shipped() {
            sources.add_shipped(format!("shipped/{path}"), text);
        }
        for (path, text) in read_folders(folders).map_err(|e| words(&e))? {
            let known = self.texts.entry(path.clone()).or_insert_with(|| Text { before: text.clone(), now: text });
            sources.add(path.display().to_string(), known.now.as_str());
        }
        let loaded = crate::route::load(sources, options);
        Ok((loaded.sources, loaded.diagnostics))
    }

    /// Does all repairs that are certain and do not touch each other; a line for each.
    fn mend(&mut self, found: &[(Sources, Vec<Diagnostic>)]) -> Vec<String> {
        let mut edits: BTreeMap<PathBuf, Vec<(usize, usize, String, String)>> = BTreeMap::new();
        for (sources, diagnostics) in found {
            for diagnostic in diagnostics.iter().filter(|d| !sources.shipped(d.span.source)) {
                let Some((span, new)) = diagnostic.certain_repair(sources) else { continue };
                let path = PathBuf::from(sources.path(span.source));
                // What was set in the environment has no file.
                if self.texts.get(&path).is_none_or(|text| text.now != sources.text(span.source)) {
                    continue;
                }
                let (start, end) = (span.start as usize, span.end as usize);
                let list = edits.entry(path).or_default();
                if list.iter().any(|(from, to, ..)| start < *to && *from < end || start == *from) {
                    continue;
                }
                let (line, column) = sources.line_column(span);
                let old = sources.text(span.source).get(start..end).unwrap_or("");
                let told = format!("{}:{line}:{column}: {} `{old}` is now `{new}`", sources.path(span.source), diagnostic.code);
                list.push((start, end, new, told));
            }
        }
        let mut told = Vec::new();
        for (path, mut list) in edits {
            let Some(text) = self.texts.get_mut(&path) else { continue };
            list.sort();
            told.extend(list.iter().map(|(.., line)| line.clone()));
            for (start, end, new, _) in list.iter().rev() {
                text.now.replace_range(*start..*end, new);
            }
        }
        told
    }
}

/// The difference as `diff -u` shows it.
pub(crate) fn show(path: &Path, text: &Text) {
    let name = path.display().to_string();
    let diff = similar::TextDiff::from_lines(&text.before, &text.now);
    for line in diff.unified_diff().header(&name, &name).to_string().lines() {
        let line = plain(line);
        let style = match line.as_bytes().first() {
            Some(b'+') => GOOD,
            Some(b'-') => STRONG,
            _ => FAINT,
        };
        out!("{}", paint(style, &line));
    }
}

/// Whole or not at all: beside the file, then in its place. A file that has changed meanwhile is left alone.
pub(crate) fn write(path: &Path, text: &Text) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    if std::fs::read_to_string(&path)? != text.before {
        return Err(std::io::Error::other("was changed by somebody else meanwhile; nothing was written to it"));
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(text.now.as_bytes())?;
        file.set_permissions(std::fs::metadata(&path)?.permissions())?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}
