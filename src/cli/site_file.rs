//! Finds and reads the site file for every command that wants one.

use crate::cli::paint::err;
use crate::diagnostic::{Style, render};
use crate::site::{LoadedSite, Override, Site, SiteOptions, load, words};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The name that is looked for where none is given.
pub(crate) const DEFAULT: &str = "kiln.yaml";

/// Why there is no site.
pub(crate) enum NoSite {
    /// There is no such file.
    Missing,
    /// It cannot be read, or has faults; they have been printed.
    Told,
}

/// Reads a site file without printing anything.
pub(crate) fn read(path: &Path, flags: Vec<Override>, secrets_needed: bool) -> std::io::Result<LoadedSite> {
    Ok(of_text(path, &std::fs::read_to_string(path)?, flags, secrets_needed))
}

/// The same of a text that is, or was once, in that file.
pub(crate) fn of_text(path: &Path, text: &str, flags: Vec<Override>, secrets_needed: bool) -> LoadedSite {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let mut overrides = Override::environment(std::env::vars());
    overrides.extend(flags);
    let options = SiteOptions { overrides: &overrides, secrets_needed, variable: &|name| std::env::var(name).ok() };
    load(&path.display().to_string(), &folder, Some(text), &options)
}

/// Reads a site file, and prints what is wrong with it on standard error.
pub(crate) fn open(path: &Path, flags: Vec<Override>, secrets_needed: bool) -> Result<Site, NoSite> {
    match read(path, flags, secrets_needed) {
        Ok(loaded) => {
            let told = render(&loaded.sources, &loaded.diagnostics, style());
            if !told.is_empty() {
                err!("{}", told.trim_end());
            }
            loaded.site.ok_or(NoSite::Told)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Err(NoSite::Missing),
        Err(e) => {
            err!("kiln: {}: {}", path.display(), words(&e));
            Err(NoSite::Told)
        }
    }
}

/// The site file that was named, or the one that lies here; `None` if none was named and none is here.
pub(crate) fn open_if_any(named: Option<&Path>, secrets_needed: bool) -> Result<Option<Site>, NoSite> {
    match open(named.unwrap_or(Path::new(DEFAULT)), Vec::new(), secrets_needed) {
        Ok(site) => Ok(Some(site)),
        Err(NoSite::Missing) if named.is_none() => Ok(None),
        Err(NoSite::Missing) => {
            err!("kiln: there is no file {}", named.unwrap_or(Path::new(DEFAULT)).display());
            Err(NoSite::Told)
        }
        Err(told) => Err(told),
    }
}

/// How diagnostics are shown to a person at standard error.
pub(crate) fn style() -> Style {
    let color = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    Style::Human { color }
}
