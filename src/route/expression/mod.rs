//! The grammar of section 6: text -> `Expr`, with a place for every node.
//!
//! `words` cuts the text into tokens (nom), `grammar` builds the tree, `slips` tells what is wrong with the cure, `print` writes it back.

mod entry;
mod grammar;
mod place;
mod print;
mod slips;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use entry::{parse, parse_each, parse_save};
pub(crate) use place::Places;
