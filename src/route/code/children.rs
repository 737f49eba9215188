//! What expressions are made of, for whoever walks through all of them.

use crate::route::code::X;

impl X {
    /// The expressions directly within this one, in the order in which they are written. What a conversion or a body holds is not among them: whoever walks
    /// on looks into a [`Conversion`](crate::route::code::Conversion), an [`OutJoin`](crate::route::outgoing::OutJoin) and a body by itself.
    pub(crate) fn children(&self) -> Vec<&X> {
        match self {
            X::If(a, b, c) => vec![a, b, c],
            X::Else(a, b) | X::Or(a, b) | X::And(a, b) | X::Compare(_, a, b) | X::Arithmetic(_, a, b) | X::Where(a, _, b) => vec![a, b],
            X::Said(a, _)
            | X::Not(a)
            | X::In(a, ..)
            | X::InSystems(a, _)
            | X::InListed(a, _)
            | X::InCodes(a, ..)
            | X::InTable(a, ..)
            | X::Valued(a, _)
            | X::Deleted(a)
            | X::Elements(a, _)
            | X::Steps(a, _)
            | X::Via(a, ..)
            | X::Convert(a, _)
            | X::Out(a, _) => vec![a],
            X::Let(named) => vec![&named.x],
            X::Call(_, arguments) => arguments.iter().collect(),
            X::Nothing
            | X::Null
            | X::Text(_)
            | X::Number(_)
            | X::Whole(_)
            | X::Bool(_)
            | X::Node(..)
            | X::Path(_)
            | X::Argument(_)
            | X::Asked(_)
            | X::OutConstant(_)
            | X::OutBody(_)
            | X::Body(..)
            | X::Resource { .. } => Vec::new(),
        }
    }

    /// Those of the children whose values, or what is made of them, this one yields: a condition decides only whether it does.
    pub(crate) fn sources(&self) -> Vec<&X> {
        match self {
            X::If(_, a, b) => vec![a, b],
            X::Where(a, ..) => vec![a],
            X::Else(..) | X::Arithmetic(..) | X::Elements(..) | X::Steps(..) | X::Via(..) | X::Convert(..) | X::Out(..) | X::Let(_) | X::Call(..) => {
                self.children()
            }
            _ => Vec::new(),
        }
    }
}
