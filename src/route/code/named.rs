//! `$let`: an expression under a name, and which of them a run remembers.

use crate::route::code::{Function, Root, X};

/// What a `$let` stands for, without a conversion.
pub(crate) struct Let {
    /// Which of the program's.
    pub(crate) id: u32,
    /// It reads no slot from this one on.
    pub(crate) reach: usize,
    pub(crate) x: X,
}

impl X {
    /// The expression itself, where a `$let` stands for it.
    pub(crate) fn named(&self) -> &X {
        match self {
            X::Let(named) => named.x.named(),
            other => other,
        }
    }

    /// Is it quicker to remember what it came to than to evaluate it again, and does evaluating do nothing else? A conversion may make a resource.
    pub(crate) fn is_worth_remembering(&self) -> bool {
        self.is_costly() && self.is_pure()
    }

    fn is_costly(&self) -> bool {
        match self {
            X::Path(path) => matches!(path.root, Root::Lookup { .. }),
            X::If(a, b, c) => [a, b, c].into_iter().any(|x| x.is_costly()),
            X::Else(a, b) | X::Or(a, b) | X::And(a, b) | X::Compare(_, a, b) => a.is_costly() || b.is_costly(),
            X::Said(a, _) | X::Not(a) | X::In(a, ..) | X::InCodes(a, ..) | X::InTable(a, ..) | X::Valued(a, _) | X::Deleted(a) | X::Steps(a, _) => {
                a.is_costly()
            }
            X::Call(..) | X::Where(..) | X::Via(..) | X::Arithmetic(..) | X::InSystems(..) => true,
            _ => false,
        }
    }

    fn is_pure(&self) -> bool {
        match self {
            X::Nothing | X::Null | X::Text(_) | X::Number(_) | X::Whole(_) | X::Bool(_) | X::Path(_) | X::Argument(_) | X::Let(_) => true,
            X::If(a, b, c) => [a, b, c].into_iter().all(|x| x.is_pure()),
            X::Else(a, b) | X::Or(a, b) | X::And(a, b) | X::Compare(_, a, b) | X::Arithmetic(_, a, b) | X::Where(a, _, b) => a.is_pure() && b.is_pure(),
            X::Said(a, _)
            | X::Not(a)
            | X::In(a, ..)
            | X::InSystems(a, _)
            | X::InCodes(a, ..)
            | X::InTable(a, ..)
            | X::Valued(a, _)
            | X::Deleted(a)
            | X::Steps(a, _)
            | X::Via(a, ..) => a.is_pure(),
            X::Call(function, arguments) => !matches!(function, Function::Derived) && arguments.iter().all(Self::is_pure),
            _ => false,
        }
    }
}
