//! The grammar of section 6: text -> `Expr`, with a place for every node.
