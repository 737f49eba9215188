//! The files that diagnostics point into.

use std::sync::Arc;

/// Which file, an index into [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SourceId(pub u32);

/// A range of bytes in a file; `start..end`, zero-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The file.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// The texts of all files of a route set, shipped ones included.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    path: String,
    text: Arc<str>,
    /// Where lines end: a place is asked for at each line of each file.
    line_ends: Vec<u32>,
    shipped: bool,
}

impl Sources {
    /// Adds a file. `path` is what messages show, such as `routes/adt.yaml`.
    pub fn add(&mut self, path: impl Into<String>, text: impl Into<Arc<str>>) -> SourceId {
        self.push(path.into(), text.into(), false)
    }

    /// Adds a file that ships with Kiln: a site's document with the same head replaces the ones in it.
    pub fn add_shipped(&mut self, path: impl Into<String>, text: impl Into<Arc<str>>) -> SourceId {
        self.push(path.into(), text.into(), true)
    }

    fn push(&mut self, path: String, text: Arc<str>, shipped: bool) -> SourceId {
        let id = SourceId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        let line_ends = text.bytes().zip(0u32..).filter(|(b, _)| *b == b'\n').map(|(_, at)| at).collect();
        self.files.push(File { path, text, line_ends, shipped });
        id
    }

    /// True if the file ships with Kiln.
    pub fn shipped(&self, id: SourceId) -> bool {
        self.files.get(id.0 as usize).is_some_and(|f| f.shipped)
    }

    /// The path of a file, empty for an unknown id.
    pub fn path(&self, id: SourceId) -> &str {
        self.files.get(id.0 as usize).map_or("", |f| &f.path)
    }

    /// The text of a file, empty for an unknown id.
    pub fn text(&self, id: SourceId) -> &str {
        self.files.get(id.0 as usize).map_or("", |f| &f.text)
    }

    /// All files in the order of adding.
    pub fn ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        (0..u32::try_from(self.files.len()).unwrap_or(u32::MAX)).map(SourceId)
    }

    /// Line and column of a span's start, both from 1; columns count characters.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let text = self.text(span.source);
        let before = text.get(..span.start as usize).unwrap_or(text);
        let ends = self.files.get(span.source.0 as usize).map_or(&[][..], |file| &file.line_ends);
        let line = ends.partition_point(|end| (*end as usize) < before.len());
        let line_start = line.checked_sub(1).and_then(|n| ends.get(n)).map_or(0, |end| *end as usize + 1);
        (line + 1, before.get(line_start..).unwrap_or("").chars().count() + 1)
    }
}
