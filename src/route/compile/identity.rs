//! Identities that are none: without a system, of several kinds, or written by two routes.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::SaveMode;
use crate::route::code::{Body, IdentifierShape, Item, Join, OrderX, Resource, Route, X};
use crate::route::compile::Compiler;
use crate::route::compile::scope::Scope;
use crate::route::tree::{RouteDoc, Verb};
use crate::route::types::Ty;

impl<'a> Compiler<'a> {
    /// K603: a map that never says whose number it is.
    pub(crate) fn check_system(&mut self, identity: &X, span: Span) {
        let mut maps = Vec::new();
        identifier_maps(identity, &mut maps);
        for map in maps {
            let Some(head) = self.maps.get(map) else { continue };
            let body = head.body;
            let open = body.from.is_some() || body.value.is_some() || body.first.is_some();
            if !open && !body.lines.iter().any(|l| l.element.text == "system") {
                let (name, made) = (self.map_name(map), head.span);
                let fault = Diagnostic::error("K603", span, "this identity never has a system").label("could be anybody's number").related(made, "made here");
                self.report(fault.help(format!("add a line `system:` to {name}")));
            }
        }
    }

    /// K604: all identifiers count for `by identifier`, so several kinds may find several resources.
    pub(crate) fn check_kinds(&mut self, bodies: &[&Body], resource: &str, span: Span) {
        let lines = bodies.iter().flat_map(|b| &b.lines).filter(|l| l.name == "identifier");
        let mut fields: Vec<String> = Vec::new();
        for line in lines {
            if !matches!(line.item, Item::Constant(..)) {
                for place in line.places.iter().map(|p| p.split(['.', '[']).next().unwrap_or(p).to_owned()) {
                    if !fields.contains(&place) {
                        fields.push(place);
                    }
                }
            }
        }
        if fields.len() > 1 {
            let fault = Diagnostic::warning("K604", span, format!("each of the identifiers of this {resource} would find it"))
                .label(format!("they come from {}", fields.join(", ")));
            self.report(fault.help(format!("name the one that identifies it: `by {}`", fields.first().map_or("", String::as_str))));
        }
    }

    /// `order-by`.
    pub(crate) fn order_by(&mut self, scope: &mut Scope<'a>, doc: &'a RouteDoc) -> Vec<OrderX> {
        let mut all = Vec::new();
        for order in &doc.order_by {
            let compiled = self.raw(scope, order);
            let identifier = match compiled.typed.ty {
                Ty::V2 { datatype: "CX", .. } => Some(IdentifierShape::Cx),
                Ty::V2 { datatype: "EI", .. } => Some(IdentifierShape::Ei),
                _ => None,
            };
            all.push(OrderX { x: compiled.x, identifier, places: compiled.places });
        }
        all
    }

    /// K618: a later message may be saved before an earlier one of the same resource.
    pub(crate) fn check_order(&mut self, doc: &RouteDoc, order_by: &[OrderX], resources: &[Resource]) {
        if order_by.is_empty() {
            return;
        }
        let field = |place: &str| place.split(['.', '[']).next().unwrap_or(place).to_owned();
        let ordered: Vec<String> = order_by.iter().flat_map(|o| &o.places).map(|p| field(p)).collect();
        for resource in resources {
            let save = &resource.save;
            let overwrites = save.mode.keeps_the_rest() || matches!(save.mode, SaveMode::Update | SaveMode::Put | SaveMode::Delete);
            let identified: Vec<String> = save.places.iter().filter(|p| p.contains('-')).map(|p| field(p)).collect();
            if save.shared.is_some() || !overwrites || identified.is_empty() || identified.iter().any(|p| ordered.contains(p)) {
                continue;
            }
            let Some(first) = doc.order_by.first() else { continue };
            let by = identified.first().map_or("", String::as_str);
            let fault = Diagnostic::warning("K618", first.span, format!("{} is identified by {by}, which is not in `order-by`", resource.name))
                .label("an older message may be saved after a newer one");
            self.report(fault.help(format!("add {by} to the list; without `order-by`, all identifiers of a message keep it in order")));
        }
    }

    /// K617: a patch for a server that takes none.
    pub(crate) fn check_patches(&mut self, doc: &RouteDoc) {
        let Some(target) = doc.to.iter().find(|t| self.options.no_patches.contains(&t.text)) else { return };
        let saves = doc.resources.iter().filter_map(|(_, body)| body.save.as_ref()).chain(doc.shared.iter().map(|(_, save)| save));
        let faults: Vec<Span> = saves.filter(|save| save.verb == Verb::Patch).map(|save| save.span).collect();
        for span in faults {
            let fault = Diagnostic::error("K617", span, format!("{} takes no patches, as the site says", target.text)).label("would be refused");
            self.report(fault.help("`merge by` changes the same and writes the whole resource; or say `patch: json` at the target"));
        }
    }

    /// K608: two routes that take one message and write one resource at one target: the one that comes last wins.
    pub(crate) fn check_rivals(&mut self, docs: &[&RouteDoc], routes: &[Route]) {
        for (n, (doc, route)) in docs.iter().zip(routes).enumerate() {
            for (other_doc, other) in docs.iter().zip(routes).take(n) {
                let Some(target) = doc.to.iter().find(|t| other_doc.to.iter().any(|o| o.text == t.text)) else { continue };
                let exclusive = route.when.is_some() || other.when.is_some();
                let apart = !route.from.is_empty() && !other.from.is_empty() && !route.from.iter().any(|f| other.from.contains(f));
                if exclusive || apart || !route.on.iter().any(|a| other.on.iter().any(|b| a.meets(b))) {
                    continue;
                }
                for resource in &route.resources {
                    let Some(rival) = other.resources.iter().find(|r| rivals(r, resource)) else { continue };
                    let own = |doc: &RouteDoc, name: &str| {
                        doc.resources.iter().find(|(k, _)| k.text == name).map(|(k, b)| b.save.as_ref().map_or(k.span, |s| s.span))
                    };
                    let (Some(second), Some(first)) = (own(doc, &resource.name), own(other_doc, &rival.name)) else { continue };
                    // Told where somebody can change it.
                    let (at, before, name) =
                        if self.sources.shipped(second.source) { (first, second, &doc.name.text) } else { (second, first, &other_doc.name.text) };
                    let what = resource.resource_type;
                    let fault = Diagnostic::warning("K608", at, format!("route {name} writes the same {what} to {}", target.text))
                        .label("the one that comes last wins")
                        .related(before, "written here, too");
                    self.report(fault.help("make both with one route, divide the messages by `when`, or let both `merge`"));
                }
            }
        }
    }
}

/// Do both write what may be one resource, and at least one all of it? Two that merge change only what each maps.
fn rivals(a: &Resource, b: &Resource) -> bool {
    let writes =
        |r: &Resource| r.save.shared.is_none() && (r.save.mode.keeps_the_rest() || matches!(r.save.mode, SaveMode::Update | SaveMode::Put | SaveMode::Delete));
    let whole = |r: &Resource| !r.save.mode.keeps_the_rest();
    let field = |place: &str| place.split(['.', '[']).next().unwrap_or(place).to_owned();
    let common = || a.save.places.iter().any(|p| b.save.places.iter().any(|q| field(p) == field(q)));
    a.resource_type == b.resource_type && writes(a) && writes(b) && (whole(a) || whole(b)) && common()
}

fn identifier_maps(x: &X, found: &mut Vec<usize>) {
    match x {
        X::Convert(_, conversion) => {
            if let Join::Map { map, .. } = &conversion.join {
                found.push(*map);
            }
        }
        other => other.sources().into_iter().for_each(|inner| identifier_maps(inner, found)),
    }
}
