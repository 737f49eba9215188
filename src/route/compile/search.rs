//! Search parameters of a route's questions: which there are, and what a value must become to be searched (FHIR R4, search.html).

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Kind, SEARCH_PREFIXES, SearchParameter, Type, search_parameter, search_parameters};
use crate::route::asking::{ParameterX, SearchedX};
use crate::route::code::X;
use crate::route::compile::ask::resource_named;
use crate::route::compile::expression::{Compiled, is_moment};
use crate::route::compile::scope::Scope;
use crate::route::compile::{Compiler, Wanted};
use crate::route::tree::{Item, Key};
use crate::route::types::Ty;

impl<'a> Compiler<'a> {
    /// `family: QPD-3.2 where ...`: a search parameter and what it is to be. A list is a parameter for each entry: all of them must fit.
    pub(crate) fn parameter(
        &mut self,
        scope: &mut Scope<'a>,
        resource: Option<Type>,
        key: &Key,
        item: &'a Item,
        out: &mut Vec<ParameterX>,
        places: &mut Vec<String>,
    ) {
        if let Item::List(items, _) = item {
            items.iter().for_each(|i| self.parameter(scope, resource, key, i, out, places));
            return;
        }
        let found = resource.and_then(|resource| self.check_parameter(resource.name(), &key.text, key.span));
        let kind = found.map_or("special", |found| found.kind);
        let value = match item {
            Item::Constant(value) => {
                if let Some(found) = found {
                    self.check_searched(found, value);
                }
                SearchedX::Constant(value.text.clone())
            }
            Item::Expr(expr) => {
                let raw = self.raw(scope, expr);
                if kind == "composite" {
                    self.no_composite(key, expr.span);
                    return;
                }
                places.extend(raw.places.iter().filter(|p| !places.contains(p)).cloned().collect::<Vec<_>>());
                let made = matches!(raw.typed.ty, Ty::Text);
                SearchedX::X { x: self.searchable(raw, kind, key, expr.span), made }
            }
            // `{ value: ..., system: ... }` is an identifier.
            Item::Body(body) if kind == "token" => {
                let Some(identifier) = fhir::type_named("Identifier").map(Wanted::bare) else { return };
                SearchedX::X { x: self.let_body(scope, body, Some(&identifier), body.span).x, made: false }
            }
            Item::Body(body) => {
                self.report(Diagnostic::error("K111", body.span, "a search parameter is one expression").label("a body").help("name the value itself"));
                return;
            }
            Item::List(..) => return,
        };
        out.push(ParameterX { name: key.text.clone(), kind, value });
    }

    /// K619: what comes from a message is escaped, so that it is one value; the `$` between two could not be told from one of the text.
    fn no_composite(&mut self, key: &Key, span: Span) {
        let fault = Diagnostic::error("K619", span, format!("{} takes two values in one, and no expression makes them", key.text)).label("is one value");
        self.report(fault.help("search by its parts, each under its own name, or write a constant in quotes: \"http://loinc.org|718-7$lt70\""));
    }

    /// Identifiers and codes are searched as tokens, times as FHIR's dates, found resources as references, everything else by its text.
    fn searchable(&mut self, raw: Compiled, kind: &str, key: &Key, span: Span) -> X {
        let to = |name: &str| fhir::type_named(name).map(Wanted::bare);
        let wanted = match (&raw.typed.ty, kind) {
            (Ty::V2 { datatype, .. }, "token") if !self.v2.is_primitive(datatype) && *datatype != "varies" => match *datatype {
                "CWE" | "CE" | "CNE" | "CF" => to("Coding"),
                "DTM" | "TS" => None,
                _ => to("Identifier"),
            },
            (Ty::V2 { .. } | Ty::Moment, "date") if is_moment(&raw.typed.ty) => to("dateTime"),
            _ => None,
        };
        if let Some(wanted) = wanted {
            return self.join(raw, &wanted, span).x;
        }
        let no_text = match &raw.typed.ty {
            Ty::V2 { datatype, .. } => !self.v2.is_primitive(datatype) && !is_moment(&raw.typed.ty) && *datatype != "varies",
            Ty::Fhir(ty) => match ty.kind() {
                Kind::Primitive => false,
                Kind::Resource => kind != "reference",
                _ => !(kind == "token" && matches!(ty.name(), "Identifier" | "Coding" | "CodeableConcept") || kind == "reference" && ty.name() == "Reference"),
            },
            Ty::Segment(_) | Ty::Resource(_) | Ty::Choice(_) => true,
            _ => false,
        };
        if no_text {
            self.report(
                Diagnostic::error("K401", span, format!("{} is searched by text, and this is {}", key.text, raw.typed.ty.name()))
                    .label("has parts")
                    .help("take one of its parts, or join() several"),
            );
        }
        raw.x
    }

    /// `birthdate`, `name:exact`, `general-practitioner:Practitioner.name`, `_has:Observation:patient:code`: the parameter at its end; `None` if that is not
    /// known, or after a diagnostic.
    fn check_parameter(&mut self, resource: &str, text: &str, span: Span) -> Option<SearchParameter> {
        if let Some(rest) = text.strip_prefix("_has:") {
            let mut parts = rest.splitn(3, ':');
            let (from, by, then) = (parts.next()?, parts.next(), parts.next());
            let (Some(by), Some(then)) = (by, then) else {
                let fault = Diagnostic::error("K619", span, format!("{text} does not say what has it")).label("three words behind `_has`");
                self.report(fault.help("write `_has:TYPE:REFERENCE:PARAMETER`, such as _has:Observation:patient:code"));
                return None;
            };
            self.check_parameter(from, by, span)?;
            return self.check_parameter(from, then, span);
        }
        let (first, chain) = text.split_once('.').map_or((text, None), |(first, chain)| (first, Some(chain)));
        let (name, modifier) = first.split_once(':').map_or((first, None), |(name, modifier)| (name, Some(modifier)));
        let Some(found) = search_parameter(resource, name) else {
            let names: Vec<&str> = search_parameters(resource).iter().map(|p| p.name).collect();
            let own: Vec<&str> = names.iter().copied().filter(|n| !n.starts_with('_')).collect();
            let help = crate::diagnostic::suggest(name, names.iter().copied())
                .map_or_else(|| format!("{resource} has: {}", own.join(", ")), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K619", span, format!("a search for {resource} has no parameter {name}")).label("unknown parameter").help(help));
            return None;
        };
        let leads: Vec<&str> = found.targets().collect();
        let typed = modifier.filter(|m| found.kind == "reference" && resource_named(m).is_some());
        if let Some(modifier) = modifier {
            let target = typed.is_some_and(|m| leads.is_empty() || leads.contains(&m) || leads.contains(&"Resource"));
            if !target && !found.modifiers().contains(&modifier) {
                let mut known: Vec<&str> = found.modifiers().to_vec();
                known.extend(&leads);
                let help = crate::diagnostic::suggest(modifier, known.iter().copied())
                    .map_or_else(|| format!("a {} takes: {}", found.kind, known.join(", ")), |n| format!("did you mean {n}?"));
                self.report(
                    Diagnostic::error("K619", span, format!("{name} is a {}, and takes no :{modifier}", found.kind)).label("unknown modifier").help(help),
                );
                return None;
            }
        }
        let Some(chain) = chain else { return Some(found) };
        if found.kind != "reference" {
            let fault = Diagnostic::error("K619", span, format!("{name} is a {}, so nothing can follow it", found.kind)).label("only references lead on");
            self.report(fault.help(format!("write {name} alone")));
            return None;
        }
        match (typed, leads.as_slice()) {
            (Some(target), _) | (None, &[target]) => self.check_parameter(target, chain, span),
            // Which of several it leads to is not said: one of them must have it.
            (None, targets) => {
                let end = chain.split(['.', ':']).next().unwrap_or(chain);
                if !targets.is_empty() && targets.iter().all(|t| search_parameter(t, end).is_none()) {
                    let fault = Diagnostic::error("K619", span, format!("nothing that {name} leads to has a parameter {end}")).label("unknown parameter");
                    self.report(fault.help(format!("it leads to: {}", targets.join(", "))));
                }
                None
            }
        }
    }

    /// A constant that is searched for: numbers, dates and quantities have a form.
    fn check_searched(&mut self, parameter: SearchParameter, value: &Key) {
        let text = value.text.as_str();
        let bare = if parameter.takes_prefix() { SEARCH_PREFIXES.iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text) } else { text };
        let wrong = match parameter.kind {
            "date" => !bare.split(',').all(|d| d.len() >= 4 && d.bytes().take(4).all(|b| b.is_ascii_digit())),
            "number" => bare.split(',').any(|n| crate::route::decimal::decimal(n).is_none()),
            "quantity" => bare.split(',').any(|q| crate::route::decimal::decimal(q.split('|').next().unwrap_or(q)).is_none()),
            _ => false,
        };
        if wrong {
            let fault =
                Diagnostic::error("K313", value.span, format!("\"{text}\" is no {}", parameter.kind)).label(format!("searched as a {}", parameter.kind));
            self.report(fault.help(format!("a value, or one behind {}", SEARCH_PREFIXES.join(", "))));
        }
    }
}
