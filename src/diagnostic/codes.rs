//! The register of codes: each has one line here and a page in docs/errors, which is part of the binary.

/// One code.
pub struct Code {
    /// `K203`.
    pub code: &'static str,
    /// One line.
    pub title: &'static str,
    /// The page, Markdown.
    pub page: &'static str,
}

/// All codes in order.
pub const CODES: &[Code] = &[];

/// The long explanation of a code, Markdown; `None` if there is no such code. Case is ignored.
pub fn page(code: &str) -> Option<&'static str> {
    find(code).map(|c| c.page)
}

/// The one-line title of a code.
pub fn title(code: &str) -> Option<&'static str> {
    find(code).map(|c| c.title)
}

fn find(code: &str) -> Option<&'static Code> {
    CODES.iter().find(|c| c.code.eq_ignore_ascii_case(code.trim()))
}
