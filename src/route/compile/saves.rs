//! `$save` and what belongs to it: identities that are stored and have a system, how lists meet, what a missing identity means.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, ListMerge, SaveMode, Type};
use crate::route::code::{Body, Missing, SaveX, Shared, X};
use crate::route::compile::scope::Scope;
use crate::route::compile::{Compiler, Wanted};
use crate::route::tree::{self, ExprKind, Key, Verb};

impl<'a> Compiler<'a> {
    /// `$save` with everything that belongs to it.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn save(
        &mut self,
        scope: &mut Scope<'a>,
        save: &'a tree::Save,
        missing: Option<&'a Key>,
        merge: &'a [(Key, Key)],
        initial: Option<&'a tree::Body>,
        resource: &'static str,
        bodies: &[&Body],
        made_by: Option<Span>,
    ) -> SaveX {
        let line = self.line(save.span);
        let shared = match save.verb {
            Verb::Contained => Some(Shared::Contained),
            Verb::Logical => Some(Shared::Logical),
            _ => None,
        };
        if save.by.is_empty() && !matches!(save.verb, Verb::Create | Verb::Contained | Verb::Logical) {
            self.report(
                Diagnostic::error("K601", save.span, "nothing says what makes this resource the same one next time")
                    .label("no `by`")
                    .help("write `by` and an identifier, such as `by PID-3`"),
            );
        }
        let ty = fhir::type_named(resource);
        let has_identifier = ty.is_some_and(|t| t.element("identifier").is_some());
        let mut by = Vec::new();
        let mut derived = false;
        let mut places = Vec::new();
        if let Some(identifier) = fhir::type_named("Identifier") {
            let wanted = Wanted { name: "identifier", path: "Identifier".to_owned(), ..Wanted::bare(identifier) };
            for expr in &save.by {
                // `X ?? derived()`: what has no identity of its own gets one, as with `$missing: derive`.
                let expr = match &expr.kind {
                    ExprKind::Else(first, last) if is_derived(last) => {
                        derived = true;
                        first
                    }
                    _ => expr,
                };
                if let ExprKind::Else(..) = expr.kind {
                    self.report(
                        Diagnostic::warning("K605", expr.span, "an identity that falls back changes when the first value comes or goes")
                            .label("the same thing may be found under another identity next time")
                            .help("write a list for all of them, `by [a, b]`, or `first(a ?? b)` if that is what you mean"),
                    );
                }
                match &expr.kind {
                    _ if is_derived(expr) => derived = true,
                    ExprKind::Name(name, _) if name == "identifier" => {
                        if !has_identifier {
                            self.report(Diagnostic::error("K602", expr.span, format!("{resource} has no identifier")).label("no such element"));
                        }
                        if self.current_map.is_none() {
                            self.check_kinds(bodies, resource, expr.span);
                        }
                        by.push(X::Nothing);
                    }
                    _ => {
                        let compiled = self.wanted(scope, expr, &wanted);
                        if let Some(made_by) = made_by.filter(|_| has_identifier) {
                            self.check_stored(&compiled.places, bodies, resource, expr.span, made_by);
                        }
                        self.check_system(&compiled.x, expr.span);
                        places.extend(compiled.places);
                        by.push(compiled.x);
                    }
                }
            }
        }
        let initial = initial.zip(ty).map(|(body, ty)| self.resource_body(scope, body, ty));
        let merge = merge.iter().filter_map(|(element, how)| self.list_merge(element, how, ty)).collect();
        SaveX {
            mode: mode(save.verb, !save.by.is_empty()),
            shared,
            by,
            derived,
            missing: match self.word(missing, &["refuse", "skip", "derive"]) {
                Some(1) => Missing::Skip,
                Some(2) => Missing::Derive,
                _ => Missing::Refuse,
            },
            merge,
            initial,
            places,
            line,
        }
    }

    /// K602: the identity must be among the identifiers that the resource gets. `made_by` is the head of the map that makes it.
    fn check_stored(&mut self, places: &[String], bodies: &[&Body], resource: &str, span: Span, made_by: Span) {
        let field = |place: &str| place.split(['.', '[']).next().unwrap_or(place).to_owned();
        let stored = bodies.iter().flat_map(|b| &b.lines).any(|l| l.name == "identifier");
        let kept: Vec<String> = bodies.iter().flat_map(|b| &b.places).map(|p| field(p)).collect();
        let mut missing: Vec<String> = places.iter().filter(|p| p.contains('-')).map(|p| field(p)).filter(|f| !kept.contains(f)).collect();
        missing.dedup();
        if stored && missing.is_empty() {
            return;
        }
        let what = if missing.is_empty() { "the identity".to_owned() } else { missing.join(", ") };
        let line = match missing.as_slice() {
            [one] => format!("identifier+: {one}"),
            several => format!("identifier+: [{}]", several.join(", ")),
        };
        let are = if missing.len() > 1 { "are" } else { "is" };
        if self.blamed(span, std::iter::once(made_by)).is_none() {
            self.report(
                Diagnostic::error("K602", span, format!("{what} {are} not among the identifiers of this {resource}"))
                    .label("could never be found again")
                    .help(format!("add a line `{line}`")),
            );
        } else if !self.is_faulty(made_by) {
            // One fault, in the file that somebody here wrote, for all shipped routes that use the map; and only if it has no nearer one.
            let head = self.maps.iter().position(|m| m.span == made_by).map_or_else(String::new, |m| self.map_name(m));
            self.report(
                Diagnostic::error("K602", made_by, format!("{what} {are} not among the identifiers that this map makes"))
                    .label(format!("replaces the shipped map, and the shipped routes find the {resource} by {what}"))
                    .help(format!(
                        "add a line `{line}`; or begin with `extend: {head}` and change only some lines; or name it `{head}-Mine` and use it in a route of your own"
                    )),
            );
        }
    }

    fn list_merge(&mut self, element: &Key, how: &Key, ty: Option<Type>) -> Option<(&'static str, ListMerge)> {
        let found = ty.and_then(|t| t.element(&element.text));
        let Some(found) = found.filter(|e| e.is_list()) else {
            let help = ty.map_or_else(String::new, |t| self.suggest_element(t, &element.text));
            self.report(Diagnostic::error("K606", element.span, format!("{} is no list element", element.text)).label("only lists merge").help(help));
            return None;
        };
        let how = match how.text.split_once("by ") {
            _ if how.text == "union" => ListMerge::Union,
            _ if how.text == "replace" => ListMerge::Replace,
            Some(("", inner)) => {
                let inner_ty = found.types().next();
                let Some(by) = inner_ty.and_then(|t| t.element(inner.trim())) else {
                    let help = inner_ty.map_or_else(String::new, |t| self.suggest_element(t, inner.trim()));
                    self.report(Diagnostic::error("K606", how.span, format!("{} has no element {inner}", element.text)).label("by what?").help(help));
                    return None;
                };
                ListMerge::By(by.name())
            }
            _ => {
                self.report(Diagnostic::error("K606", how.span, format!("{} is no way to merge a list", how.text)).label("union, replace, or by ELEMENT"));
                return None;
            }
        };
        Some((found.name(), how))
    }
}

fn is_derived(expr: &tree::Expr) -> bool {
    matches!(&expr.kind, ExprKind::Call(name, _) if name.text == "derived")
}

pub(crate) fn mode(verb: Verb, by: bool) -> SaveMode {
    match verb {
        Verb::Create if by => SaveMode::CreateIfNone,
        Verb::Create | Verb::Contained | Verb::Logical => SaveMode::Create,
        Verb::Update => SaveMode::Update,
        Verb::Merge => SaveMode::Merge,
        Verb::Patch => SaveMode::Patch,
        Verb::Put => SaveMode::Put,
        Verb::Find => SaveMode::Find,
        Verb::Delete => SaveMode::Delete,
    }
}
