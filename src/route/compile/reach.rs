//! K408: what is never reached, and conditions that can never hold.

use crate::diagnostic::{Diagnostic, Span};
use crate::route::compile::Compiler;
use crate::route::compile::scope::Scope;
use crate::route::tree::{Body, Expr, ExprKind, Item, Key, Literal, Op, PathStep, RouteDoc, Test};

impl<'a> Compiler<'a> {
    /// An alternative after one that always holds.
    pub(crate) fn check_reach(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Else(first, second) if matches!(first.kind, ExprKind::Literal(Literal::Text(_) | Literal::Number(_) | Literal::Bool(_))) => {
                self.unreachable(second.span, "a constant stands before it")
            }
            ExprKind::If(condition, _, otherwise) => {
                let told = condition.to_string();
                let mut next = otherwise.as_deref();
                while let Some(Expr { kind: ExprKind::If(later, _, otherwise), .. }) = next {
                    if later.to_string() == told {
                        self.unreachable(later.span, "the same condition stands before it");
                    }
                    next = otherwise.as_deref();
                }
                if let (Some(true), Some(otherwise)) = (self.truth_of(condition), otherwise) {
                    self.unreachable(otherwise.span, "the condition before it always holds");
                }
            }
            _ => {}
        }
    }

    /// A condition that never holds, whatever is sent.
    pub(crate) fn check_holds(&mut self, scope: &mut Scope<'a>, condition: &'a Expr) {
        if self.truth_of(condition) == Some(false) {
            let why = match &condition.kind {
                ExprKind::Literal(_) => "false never holds".to_owned(),
                _ if self.events.is_empty() => "this can never hold".to_owned(),
                _ => format!("this can never hold: the route takes {}", self.events.join(", ")),
            };
            self.unreachable(condition.span, &why);
            return;
        }
        // One value cannot equal two texts; `and` was written where `or` was meant.
        let mut parts = Vec::new();
        conjuncts(condition, &mut parts);
        let equalities: Vec<(&'a Expr, String, &'a str)> =
            parts.iter().filter_map(|part| equality(part)).map(|(path, text)| (path, path.to_string(), text)).collect();
        for (n, (path, told, text)) in equalities.iter().enumerate() {
            let rival = equalities.iter().take(n).find(|(_, other, value)| other == told && value != text);
            let Some((_, _, value)) = rival else { continue };
            let before = self.diagnostics.len();
            let many = self.raw(scope, path).typed.many;
            self.diagnostics.truncate(before);
            if !many {
                let fault =
                    Diagnostic::warning("K408", condition.span, "this never holds").label(format!("{told} cannot be \"{value}\" and \"{text}\" at once"));
                self.report(fault.help(format!("write `or`, or `{told} in (\"{value}\", \"{text}\")`")));
                return;
            }
        }
    }

    /// `$first`: alternatives behind one that always makes something.
    pub(crate) fn check_alternatives(&mut self, body: &Body) {
        let mut sure: Vec<Option<String>> = Vec::new();
        for item in body.first.iter().flatten() {
            let when = match item {
                Item::Body(body) => body.when.as_ref(),
                _ => None,
            };
            let told = when.map(ToString::to_string);
            if sure.iter().any(Option::is_none) {
                self.unreachable(item.span(), "an alternative before it always makes something");
            } else if let (Some(when), true) = (when, told.is_some() && sure.contains(&told)) {
                self.unreachable(when.span, "the same condition stands before it");
            }
            if makes_something(item) {
                let holds = when.is_none_or(|when| self.truth_of(when) == Some(true));
                sure.push(told.filter(|_| !holds));
            }
        }
    }

    /// Entries of `on` that another entry covers. Routes cover nothing of each other: every route that matches runs.
    pub(crate) fn check_on(&mut self, doc: &RouteDoc) {
        let mut faults: Vec<(Span, String)> = Vec::new();
        for (n, key) in doc.on.iter().enumerate() {
            let wider = |(m, other): &(usize, &Key)| *m != n && covers(&other.text, &key.text) && (other.text != key.text || *m < n);
            if let Some((_, other)) = doc.on.iter().enumerate().find(wider)
                && !self.sources.shipped(key.span.source)
            {
                faults.push((key.span, if other.text == key.text { "it stands here twice".to_owned() } else { format!("{} takes it already", other.text) }));
            }
        }
        for (span, why) in faults {
            self.report(Diagnostic::warning("K408", span, "this entry adds nothing").label(why).help("remove it"));
        }
    }

    /// The events that a route's messages may have; none where that is open.
    pub(crate) fn name_events(&mut self, doc: &RouteDoc) {
        let event = |key: &Key| key.text.split('^').nth(1).filter(|e| !e.is_empty() && *e != "*").map(str::to_owned);
        self.events = doc.on.iter().map(event).collect::<Option<Vec<String>>>().unwrap_or_default();
        self.events.sort();
        self.events.dedup();
    }

    /// Whether a condition holds, where that does not hang on what is sent.
    fn truth_of(&self, condition: &Expr) -> Option<bool> {
        match &condition.kind {
            ExprKind::Literal(Literal::Bool(truth)) => Some(*truth),
            ExprKind::Not(inner) => self.truth_of(inner).map(|truth| !truth),
            ExprKind::Binary(Op::And, a, b) => match (self.truth_of(a), self.truth_of(b)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), other) | (other, Some(true)) => other,
                _ => {
                    let mut parts = Vec::new();
                    conjuncts(condition, &mut parts);
                    opposed(&parts).then_some(false)
                }
            },
            ExprKind::Binary(Op::Or, a, b) => match (self.truth_of(a), self.truth_of(b)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), other) | (other, Some(false)) => other,
                _ => None,
            },
            ExprKind::Binary(op @ (Op::Equal | Op::NotEqual), a, b) => {
                let text = match (&a.kind, &b.kind) {
                    (_, ExprKind::Literal(Literal::Text(text))) if is_event(a) => text,
                    (ExprKind::Literal(Literal::Text(text)), _) if is_event(b) => text,
                    _ => return None,
                };
                self.event_in(&[text]).map(|truth| truth == (*op == Op::Equal))
            }
            ExprKind::InList(inner, list, negated) if is_event(inner) => {
                let texts: Vec<&String> = list.iter().filter_map(|(l, _)| if let Literal::Text(text) = l { Some(text) } else { None }).collect();
                self.event_in(&texts).map(|truth| truth != *negated)
            }
            _ => None,
        }
    }

    fn event_in(&self, texts: &[&String]) -> Option<bool> {
        let among = self.events.iter().filter(|event| texts.contains(event)).count();
        match among {
            _ if self.events.is_empty() => None,
            0 => Some(false),
            all if all == self.events.len() => Some(true),
            _ => None,
        }
    }

    fn unreachable(&mut self, span: Span, why: &str) {
        self.report(Diagnostic::warning("K408", span, "this is never reached").label(why).help("put it first, remove it, or change the condition"));
    }
}

/// `event()` or MSH-9.2.
fn is_event(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Call(name, _) => name.text == "event",
        ExprKind::Segment { segment, field: Some(9), tail, anchors, .. } => {
            segment.text == "MSH" && anchors.is_empty() && matches!(tail.as_slice(), [PathStep::Component(2)])
        }
        _ => false,
    }
}

/// The parts of `a and b and c`.
fn conjuncts<'e>(expr: &'e Expr, parts: &mut Vec<&'e Expr>) {
    match &expr.kind {
        ExprKind::Binary(Op::And, a, b) => {
            conjuncts(a, parts);
            conjuncts(b, parts);
        }
        _ => parts.push(expr),
    }
}

/// One part denies another.
fn opposed(parts: &[&Expr]) -> bool {
    let told: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
    let denies = |part: &Expr| match &part.kind {
        ExprKind::Not(inner) => Some(inner.to_string()),
        ExprKind::Test(Test::NotValued, inner) => Some(Expr { kind: ExprKind::Test(Test::Valued, inner.clone()), span: part.span }.to_string()),
        ExprKind::Binary(Op::NotEqual, a, b) => Some(Expr { kind: ExprKind::Binary(Op::Equal, a.clone(), b.clone()), span: part.span }.to_string()),
        ExprKind::InList(inner, list, true) => Some(Expr { kind: ExprKind::InList(inner.clone(), list.clone(), false), span: part.span }.to_string()),
        _ => None,
    };
    parts.iter().filter_map(|part| denies(part)).any(|denied| told.contains(&denied))
}

/// `PATH = "text"`.
fn equality(expr: &Expr) -> Option<(&Expr, &str)> {
    let ExprKind::Binary(Op::Equal, a, b) = &expr.kind else { return None };
    let path = |e: &Expr| matches!(e.kind, ExprKind::Segment { .. } | ExprKind::Type { .. });
    match (&a.kind, &b.kind) {
        (_, ExprKind::Literal(Literal::Text(text))) if path(a) => Some((&**a, text)),
        (ExprKind::Literal(Literal::Text(text)), _) if path(b) => Some((&**b, text)),
        _ => None,
    }
}

/// True if an alternative makes something whenever its condition holds: it has nothing but constants.
fn makes_something(item: &Item) -> bool {
    match item {
        Item::Constant(_) => true,
        Item::Expr(expr) => matches!(expr.kind, ExprKind::Literal(Literal::Text(_) | Literal::Number(_) | Literal::Bool(_))),
        Item::List(items, _) => items.iter().any(makes_something),
        Item::Body(body) => {
            let plain = body.each.is_none() && body.from.is_none() && body.value.is_none() && body.first.is_none();
            let unconditional = |item: &Item| !matches!(item, Item::Body(inner) if inner.when.is_some());
            plain && !body.lines.is_empty() && body.lines.iter().all(|line| unconditional(&line.item) && makes_something(&line.item))
        }
    }
}

/// Does one entry of `on` take all that another does?
fn covers(wide: &str, narrow: &str) -> bool {
    let mut narrow = narrow.split('^');
    let mut wide = wide.split('^').peekable();
    while let Some(part) = wide.next() {
        let last = wide.peek().is_none();
        match narrow.next() {
            Some(other) if part == other => {}
            _ if part == "*" && last => return true,
            _ => return false,
        }
    }
    true
}
