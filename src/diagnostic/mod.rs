//! What is wrong with a file, as data: code, place, sentence, cure. Rendering is elsewhere in this folder.
//!
//! Never an `Err`: whoever reads files collects diagnostics and goes on, so that all faults are seen at once.

mod codes;
mod render;
mod repair;
mod source;
mod suggest;

pub use codes::{CODES, Code, page, title};
pub use render::{Style, render};
pub use source::{SourceId, Sources, Span};
pub use suggest::{Meant, suggest};

/// How bad it is. Only an error keeps a route set from being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The files cannot be applied.
    Error,
    /// Applied, but somebody should look.
    Warning,
}

/// One fault in one file. Plain data with public fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// `K203`; each has a page in docs/errors.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong: lower case, without a full stop, naming the thing as the analyst wrote it.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Short text under the caret.
    pub label: String,
    /// Other places that matter, each with a text.
    pub related: Vec<(Span, String)>,
    /// What to do, and what was probably meant.
    pub help: Option<String>,
    /// A replacement for the text at `span` that cures it, when there is exactly one.
    pub fix: Option<String>,
}

impl Diagnostic {
    /// An error without label, help or fix; add them with the methods below.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, severity: Severity::Error, message, span, label: String::new(), related: Vec::new(), help: None, fix: None }
    }

    /// The same as a warning.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// Sets the text under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at another place.
    #[must_use]
    pub fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push((span, text.into()));
        self
    }

    /// Offers a replacement for the text at the span.
    #[must_use]
    pub fn fix(mut self, replacement: impl Into<String>) -> Self {
        self.fix = Some(replacement.into());
        self
    }

    /// Offers a replacement for the text at the span, if there is just one.
    #[must_use]
    pub fn fix_if(self, replacement: Option<&str>) -> Self {
        match replacement {
            Some(text) => self.fix(text),
            None => self,
        }
    }
}
