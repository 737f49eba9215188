//! The one page: plain HTML, a style sheet and a script, embedded.

pub(crate) const HTML: &str = include_str!("page.html");
pub(crate) const CSS: &str = include_str!("page.css");
pub(crate) const JS: &str = include_str!("page.js");
pub(crate) const ICON: &str =
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M4 28V16a12 12 0 0 1 24 0v12h-7v-9a5 5 0 0 0-10 0v9z" fill="#d9480f"/></svg>"##;
