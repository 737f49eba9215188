//! The grammar of section 6: text -> `Expr`, with a place for every node.
//!
//! `words` cuts the text into tokens (nom), `grammar` builds the tree, `print` writes it back.

mod grammar;
mod place;
mod print;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use grammar::{parse, parse_each, parse_save};
pub(crate) use place::Places;
