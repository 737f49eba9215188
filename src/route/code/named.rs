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
            X::Call(..) | X::Where(..) | X::Via(..) | X::Arithmetic(..) | X::InSystems(..) | X::InListed(..) | X::Elements(..) => true,
            // What it stands for is remembered by itself.
            X::Let(_) => false,
            other => other.children().into_iter().any(Self::is_costly),
        }
    }

    fn is_pure(&self) -> bool {
        match self {
            // A conversion or a body may make a resource, and a reference may meet one.
            X::Convert(..) | X::Out(..) | X::OutConstant(_) | X::OutBody(_) | X::Body(..) | X::Node(..) | X::Resource { .. } => false,
            X::Call(Function::Derived, _) => false,
            X::Let(_) => true,
            other => other.children().into_iter().all(Self::is_pure),
        }
    }
}
