//! What lines hang on, so that a run passes over those whose source was not sent.

use crate::route::code::{Body, Function, Item, Join, Needs, Path, Root, Step, X};
use crate::route::tree::Op;

/// If this is not met, the item yields nothing, makes nothing, finds nothing and deletes nothing.
pub(crate) fn of(item: &Item) -> Needs {
    match item {
        Item::X(x) => silent(x),
        Item::Body(_, inner) => body(inner),
        Item::List(items) => items.iter().map(of).fold(Needs::NEVER, Needs::or),
        Item::Extension(_, inner) => of(inner),
        Item::Constant(..) | Item::Nothing => Needs::ALWAYS,
    }
}

/// A body is made if its condition holds, and one of its lines takes something from the message.
pub(crate) fn body(body: &Body) -> Needs {
    match &body.when {
        Some(when) if body.each.is_none() => holding(when).and(made(body)),
        _ => made(body),
    }
}

/// What a condition hangs on: where it is not met, the condition does not hold.
fn holding(x: &X) -> Needs {
    match x {
        X::Said(inner, _) => holding(inner),
        X::And(a, b) => holding(a).and(holding(b)),
        X::Or(a, b) => holding(a).or(holding(b)),
        X::Valued(inner, true) | X::In(inner, _, false) | X::InCodes(inner, _, false) | X::InTable(inner, _, false) => silent(inner),
        X::Compare(Op::Equal, inner, other) if matches!(&**other, X::Text(text) if !text.is_empty()) => silent(inner),
        X::Let(named) => holding(&named.x),
        _ => Needs::ALWAYS,
    }
}

fn made(body: &Body) -> Needs {
    let forced = body.constant || matches!(body.when, Some(X::Bool(true)));
    match (&body.each, &body.from_values) {
        _ if forced => Needs::ALWAYS,
        (Some((each, _)), _) => silent(each),
        (None, _) if !body.first.is_empty() => body.first.iter().map(of).fold(Needs::NEVER, Needs::or),
        (None, _) if body.value.is_some() => body.value.as_deref().map_or(Needs::ALWAYS, of),
        (None, Some(values)) => silent(values),
        (None, None) => body.lines.iter().map(|line| lifeless(&line.item)).fold(Needs::NEVER, Needs::or),
    }
}

/// If this is not met, the item may make something, but nothing that the message contributed to.
fn lifeless(item: &Item) -> Needs {
    match item {
        Item::X(x) => lifeless_x(x),
        Item::Body(_, inner) if inner.constant && inner.when.is_none() => Needs::NEVER,
        Item::Body(_, inner) => body(inner),
        Item::List(items) => items.iter().map(lifeless).fold(Needs::NEVER, Needs::or),
        Item::Extension(_, inner) => lifeless(inner),
        Item::Constant(..) | Item::Nothing => Needs::NEVER,
    }
}

fn silent(x: &X) -> Needs {
    match x {
        X::Nothing => Needs::NEVER,
        X::Path(path) => path_needs(path),
        X::If(_, a, b) | X::Else(a, b) => silent(a).or(silent(b)),
        X::Where(inner, ..) | X::Steps(inner, _) | X::Via(inner, ..) => silent(inner),
        // An identifier without an authority takes the listener's.
        X::Convert(_, conversion) if matches!(conversion.join, Join::System { identifier: true, .. }) => Needs::ALWAYS,
        X::Convert(inner, _) => silent(inner),
        X::Arithmetic(_, a, b) => silent(a).and(silent(b)),
        X::Call(Function::Join, arguments) => arguments.iter().skip(1).map(silent).fold(Needs::NEVER, Needs::or),
        X::Call(function, arguments) if follows_first(function) => arguments.first().map_or(Needs::ALWAYS, silent),
        X::Let(named) => silent(&named.x),
        X::Body(inner, _) => body(inner),
        _ => Needs::ALWAYS,
    }
}

fn lifeless_x(x: &X) -> Needs {
    match x {
        X::Null | X::Text(_) | X::Number(_) | X::Whole(_) | X::Bool(_) | X::Node(..) => Needs::NEVER,
        X::Call(Function::Sender | Function::Event | Function::Received | Function::Derived, _) => Needs::NEVER,
        X::If(_, a, b) | X::Else(a, b) => lifeless_x(a).or(lifeless_x(b)),
        X::Convert(inner, conversion) if matches!(conversion.join, Join::Text | Join::Code | Join::Uri | Join::System { .. }) => lifeless_x(inner),
        X::Call(Function::Join, arguments) => arguments.iter().skip(1).map(lifeless_x).fold(Needs::NEVER, Needs::or),
        X::Call(function, arguments) if follows_first(function) => arguments.first().map_or(Needs::ALWAYS, lifeless_x),
        X::Let(named) => lifeless_x(&named.x),
        other => silent(other),
    }
}

/// Functions that make nothing of nothing.
fn follows_first(function: &Function) -> bool {
    use Function as F;
    matches!(
        function,
        F::First
            | F::Last
            | F::Distinct
            | F::Text(_)
            | F::Raw
            | F::Trim
            | F::Upper
            | F::Lower
            | F::Digits
            | F::Replace
            | F::Pad
            | F::Substring
            | F::Before
            | F::After
            | F::Number
            | F::Round
            | F::Sn
            | F::Duration
            | F::Date
            | F::Time
            | F::Bytes
    )
}

fn path_needs(path: &Path) -> Needs {
    match (path.root, path.field, path.steps.first()) {
        (Root::Slot(0) | Root::SegmentOf(0), Some(field), _) => Needs::field(field),
        (Root::Slot(0), None, Some(Step::Down(n))) => Needs::piece(*n),
        _ => Needs::ALWAYS,
    }
}
