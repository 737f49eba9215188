//! Calls: the number of arguments, their kinds, and the type that comes back.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::Kind;
use crate::route::code::{Function, X};
use crate::route::compile::Compiler;
use crate::route::compile::expression::{Compiled, is_moment, is_number};
use crate::route::compile::scope::Scope;
use crate::route::functions::FUNCTIONS;
use crate::route::tree::{Expr, ExprKind, Key, Literal};
use crate::route::types::{Ty, Typed};
use std::sync::Arc;

impl<'a> Compiler<'a> {
    pub(crate) fn call(&mut self, scope: &mut Scope<'a>, name: &Key, arguments: &'a [Expr], span: Span) -> Compiled {
        let Some(declaration) = FUNCTIONS.iter().find(|f| f.name == name.text) else {
            let names = FUNCTIONS.iter().map(|f| f.name);
            let help = crate::diagnostic::suggest(&name.text, names.clone())
                .map_or_else(|| format!("there are: {}", names.collect::<Vec<_>>().join(", ")), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K205", name.span, format!("there is no function {}", name.text)).label("unknown function").help(help));
            return Compiled::nothing();
        };
        let (fewest, most) = declaration.arguments;
        if arguments.len() < fewest || most.is_some_and(|m| arguments.len() > m) {
            self.report(
                Diagnostic::error("K409", span, format!("{} takes {}", name.text, count_of(fewest, most)))
                    .label(format!("{} given", arguments.len()))
                    .help(declaration.signature),
            );
            return Compiled::nothing();
        }
        if name.text == "raw" && matches!(&arguments[0].kind, ExprKind::Name(n, _) if n == "message") {
            return Compiled::new(X::Call(Function::Raw, Vec::new()), Typed::one(Ty::Text));
        }
        if matches!(name.text.as_str(), "total" | "more") {
            return self.of_question(scope, name, &arguments[0]);
        }
        // The current value is always one, so `count(PID-11)` inside of `$each: PID-11` counts them all.
        let hidden = if name.text == "count" { hide_current(scope, arguments) } else { Vec::new() };
        let compiled: Vec<Compiled> = arguments.iter().map(|a| self.raw(scope, a)).collect();
        for (entry, path) in hidden {
            if let Some(entry) = scope.entries.get_mut(entry) {
                entry.path = path;
            }
        }
        self.check_arguments(&name.text, arguments, &compiled);
        let first = compiled.first().map(|c| c.typed.clone());
        let first_ty = first.as_ref().map_or(Ty::Nothing, |t| t.ty.clone());
        let many = first.is_some_and(|t| t.many);
        let text = Typed { ty: Ty::Text, many };
        let (function, typed) = match name.text.as_str() {
            "count" => (Function::Count, Typed::one(Ty::Number)),
            "length" => (Function::Length, Typed::one(Ty::Number)),
            "first" => (Function::First, Typed::one(first_ty)),
            "last" => (Function::Last, Typed::one(first_ty)),
            "distinct" => (Function::Distinct, Typed { ty: first_ty, many }),
            "join" => (Function::Join, Typed::one(Ty::Text)),
            "text" => {
                let datatype = if let Ty::V2 { datatype, .. } = &first_ty { Some(*datatype) } else { None };
                (Function::Text(datatype), text)
            }
            "raw" => (Function::Raw, text),
            "trim" => (Function::Trim, text),
            "ucum" => (Function::Ucum, text),
            "upper" => (Function::Upper, text),
            "lower" => (Function::Lower, text),
            "digits" => (Function::Digits, text),
            "replace" => (Function::Replace, text),
            "pad" => (Function::Pad, text),
            "substring" => (Function::Substring, text),
            "before" => (Function::Before, text),
            "after" => (Function::After, text),
            "starts" => (Function::Starts, Typed::one(Ty::Bool)),
            "contains" => (Function::Contains, Typed::one(Ty::Bool)),
            "matches" => match self.pattern(&arguments[1]) {
                Some(regex) => (Function::Matches(regex), Typed::one(Ty::Bool)),
                None => return Compiled::nothing(),
            },
            "number" => (Function::Number, Typed { ty: Ty::Number, many }),
            "round" => (Function::Round, Typed::one(Ty::Number)),
            "sn" => (Function::Sn, Typed { ty: Ty::V2 { datatype: "SN", table: None }, many }),
            "duration" => (Function::Duration, Typed::one(Ty::Duration)),
            "date" => (Function::Date, Typed { ty: Ty::Moment, many }),
            "time" => (Function::Time, Typed { ty: Ty::Moment, many }),
            "received" => (Function::Received, Typed::one(Ty::Moment)),
            "event" => (Function::Event, Typed::one(Ty::V2 { datatype: "ID", table: Some("0003") })),
            "place" => (Function::Place, Typed { ty: Ty::V2 { datatype: "ERL", table: None }, many }),
            "sender" => (Function::Sender, Typed::one(Ty::V2 { datatype: "HD", table: None })),
            "bytes" => (Function::Bytes, Typed::one(Ty::Text)),
            "uuid" => (Function::Uuid, Typed::one(Ty::Text)),
            _ => (Function::Derived, Typed::one(Ty::Text)),
        };
        // The engine gives these; they cannot bring an element to life.
        let engine = matches!(function, Function::Received | Function::Event | Function::Sender | Function::Derived);
        let mut result = Compiled::new(X::Nothing, typed);
        result.constant = engine || (!compiled.is_empty() && compiled.iter().all(|c| c.constant));
        if matches!(function, Function::First | Function::Last | Function::Distinct) {
            result.origin.clone_from(&compiled[0].origin);
            result.segment = compiled[0].segment;
            result.element = compiled[0].element;
            result.asked.clone_from(&compiled[0].asked);
            result.converted = compiled[0].converted;
        }
        for c in &compiled {
            for place in &c.places {
                if !result.places.contains(place) {
                    result.places.push(place.clone());
                }
            }
        }
        result.x = X::Call(function, compiled.into_iter().map(|c| c.x).collect());
        result
    }

    /// `total(found)` and `more(found)`: what is known of an answer beside its matches.
    fn of_question(&mut self, scope: &Scope<'a>, name: &Key, argument: &Expr) -> Compiled {
        let asked = match &argument.kind {
            ExprKind::Name(asked, _) => scope.asked.iter().find(|a| a.name == *asked),
            _ => None,
        };
        let Some(asked) = asked else {
            let names: Vec<&str> = scope.asked.iter().map(|a| a.name.as_str()).collect();
            let help = if names.is_empty() { "this route asks nothing: `ask:` has questions".to_owned() } else { format!("there are: {}", names.join(", ")) };
            let fault = Diagnostic::error("K409", argument.span, format!("{}() takes the name of a question", name.text)).label("no question of `ask`");
            self.report(fault.help(help));
            return Compiled::nothing();
        };
        let (function, ty) = if name.text == "total" { (Function::Total(asked.index), Ty::Number) } else { (Function::More(asked.index), Ty::Text) };
        Compiled { places: asked.places.clone(), ..Compiled::new(X::Call(function, Vec::new()), Typed::one(ty)) }
    }

    fn check_arguments(&mut self, name: &str, arguments: &[Expr], compiled: &[Compiled]) {
        let wrong = |c: &Compiled| match name {
            "date" | "time" => (!is_moment(&c.typed.ty) && c.typed.ty != Ty::Nothing).then_some("a time"),
            "round" => (!is_number(&c.typed.ty)).then_some("a number; number() makes one of text"),
            "join" | "text" | "raw" | "count" | "first" | "last" | "distinct" | "uuid" => None,
            "place" => (!matches!(c.typed.ty, Ty::V2 { .. } | Ty::Segment(_) | Ty::Nothing)).then_some("a field or a part of one"),
            _ => is_no_text(&c.typed.ty).then_some("text"),
        };
        for (expr, c) in arguments.iter().zip(compiled) {
            if let Some(needed) = wrong(c) {
                self.report(Diagnostic::error("K409", expr.span, format!("{name}() does not take {}", c.typed.ty.name())).label(format!("it takes {needed}")));
            }
        }
        if matches!(name, "join") {
            for (expr, c) in arguments.iter().zip(compiled) {
                if is_no_text(&c.typed.ty) {
                    self.report(Diagnostic::error("K409", expr.span, format!("join() does not take {}", c.typed.ty.name())).label("it takes text"));
                }
            }
        }
    }

    fn pattern(&mut self, expr: &Expr) -> Option<Arc<regex::Regex>> {
        let ExprKind::Literal(Literal::Text(text)) = &expr.kind else {
            self.report(Diagnostic::error("K409", expr.span, "a pattern is a quoted text").label("checked at load, so it cannot come from a message"));
            return None;
        };
        match regex::RegexBuilder::new(text).size_limit(1 << 20).build() {
            Ok(regex) => Some(Arc::new(regex)),
            Err(e) => {
                let reason = e.to_string().lines().last().unwrap_or("not a regular expression").trim_start_matches("error: ").to_owned();
                self.report(Diagnostic::error("K409", expr.span, format!("not a regular expression: {reason}")).label("here"));
                None
            }
        }
    }
}

/// Has no one text. FHIR's primitives have.
fn is_no_text(ty: &Ty) -> bool {
    match ty {
        Ty::Fhir(ty) => ty.kind() != Kind::Primitive,
        Ty::Bool | Ty::Segment(_) | Ty::Resource(_) | Ty::Choice(_) => true,
        _ => false,
    }
}

/// Makes the path that the arguments are of mean all of its values; gives back what to restore.
fn hide_current(scope: &mut Scope<'_>, arguments: &[Expr]) -> Vec<(usize, Option<(String, u16)>)> {
    let mut expr = arguments.first().map(|a| &a.kind);
    while let Some(ExprKind::Where(inner, _) | ExprKind::Tail(inner, _) | ExprKind::As(inner, _) | ExprKind::Via(inner, ..)) = expr {
        expr = Some(&inner.kind);
    }
    let Some(ExprKind::Segment { segment, field: Some(field), .. }) = expr else { return Vec::new() };
    let mut hidden = Vec::new();
    for (n, entry) in scope.entries.iter_mut().enumerate() {
        if entry.path.as_ref().is_some_and(|(s, f)| *s == segment.text && f == field) {
            hidden.push((n, entry.path.take()));
        }
    }
    hidden
}

fn count_of(fewest: usize, most: Option<usize>) -> String {
    match most {
        Some(most) if most == fewest => format!("{fewest} argument{}", if fewest == 1 { "" } else { "s" }),
        Some(most) => format!("{fewest} to {most} arguments"),
        None => format!("at least {fewest} arguments"),
    }
}
