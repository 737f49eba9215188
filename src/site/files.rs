//! The folders of route files, and those that ship in the binary.

use crate::diagnostic::Sources;
use include_dir::{Dir, include_dir};
use std::io;
use std::path::{Path, PathBuf};

static SHIPPED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/routes");

/// The shipped route files: path below `routes/`, and text; sorted by path.
pub fn shipped() -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    collect(&SHIPPED, &mut found);
    found.sort();
    found
}

fn collect(dir: &Dir<'static>, found: &mut Vec<(String, &'static str)>) {
    for file in dir.files().filter(|f| is_route_file(f.path())) {
        if let Some(text) = file.contents_utf8() {
            found.push((file.path().display().to_string(), text));
        }
    }
    dir.dirs().for_each(|d| collect(d, found));
}

/// All route files below the folders, sorted by path within each folder. A folder that does not exist holds none.
///
/// # Errors
/// A file or folder that cannot be read; the path is in the text.
pub fn read_folders(folders: &[PathBuf]) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for folder in folders {
        let mut paths = Vec::new();
        if folder.is_file() {
            paths.push(folder.clone());
        } else if folder.exists() {
            walk(folder, &mut paths, 0)?;
        }
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).map_err(|e| named(&path, &e))?;
            found.push((path, text));
        }
    }
    Ok(found)
}

/// Shipped files first, the site's after them.
///
/// # Errors
/// As [`read_folders`].
pub fn route_sources(folders: &[PathBuf]) -> io::Result<Sources> {
    let mut sources = Sources::default();
    for (path, text) in shipped() {
        sources.add_shipped(format!("shipped/{path}"), text);
    }
    for (path, text) in read_folders(folders)? {
        sources.add(path.display().to_string(), text);
    }
    Ok(sources)
}

/// The system's words do not name the file.
fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {}", path.display(), words(e)))
}

/// What the system said, in words.
pub fn words(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        // Such as a name that no server knows: the kind says nothing, the text says it all.
        kind if kind.to_string() == "uncategorized error" => {
            let said = e.to_string();
            let said = said.rsplit_once(": ").map_or(said.as_str(), |(_, what)| what);
            said.split(" (os error").next().unwrap_or(said).to_lowercase()
        }
        kind => kind.to_string(),
    }
}

/// Deep enough for any sane layout, and an end for links that lead in a circle.
const DEPTH_MAX: usize = 16;

fn walk(folder: &Path, paths: &mut Vec<PathBuf>, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(|e| named(folder, &e))? {
        let path = entry.map_err(|e| named(folder, &e))?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            walk(&path, paths, depth + 1)?;
        } else if is_route_file(&path) {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_route_file(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}
