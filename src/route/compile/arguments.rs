//! Calls of maps, and what `$with` hands to their `$takes`.

use crate::diagnostic::Diagnostic;
use crate::route::code::{CodeTable, Coded, Join, X};
use crate::route::compile::join::fits;
use crate::route::compile::{Compiler, Wanted};
use crate::route::tree::Item;
use crate::route::types::Ty;
use std::sync::Arc;

impl<'a> Compiler<'a> {
    pub(crate) fn call_map(&mut self, map: usize, source: &Ty, wanted: &Wanted) -> Join {
        let arguments = self.arguments(map);
        let name = self.maps[map].ty.name();
        let coded = (matches!(name, "CodeableConcept" | "Coding") && self.maps[map].choice.is_none()).then(|| {
            let (table, translate) = match (source, wanted.binding()) {
                (Ty::V2 { table, .. }, _) => (*table, None),
                _ => (None, None),
            };
            Coded { coding: name == "Coding", table: table.map(CodeTable::new), translate }
        });
        Join::Map { map, arguments, coded }
    }

    /// What `$with` passes to this map's parameters, in their order.
    pub(crate) fn arguments(&mut self, map: usize) -> Vec<X> {
        match self.current_map {
            Some(current) => self.maps[current].calls.push(map),
            None => self.called.push(map),
        }
        let takes: Vec<(String, Ty, Option<Wanted>)> = self.maps[map].takes.clone();
        takes.iter().map(|(name, ty, wanted)| self.argument(name, ty, wanted.as_ref())).collect()
    }

    pub(crate) fn argument(&mut self, name: &str, ty: &Ty, wanted: Option<&Wanted>) -> X {
        let Some(level) = self.with.last_mut() else { return X::Nothing };
        let Some(n) = level.items.iter().position(|(key, _)| key.text == name) else { return X::Nothing };
        level.used[n] = true;
        let (key, item) = level.items[n];
        let mut scope = level.scope.clone();
        let compiled = match (item, wanted) {
            (Item::Expr(expr), Some(wanted)) => self.wanted(&mut scope, expr, wanted),
            (Item::Expr(expr), None) => self.raw(&mut scope, expr),
            (Item::Constant(constant), Some(wanted)) => match self.constant(&constant.text, wanted, constant.span) {
                Some((name, node)) => return X::Node(name, node),
                None => return X::Nothing,
            },
            (Item::Constant(constant), None) => return X::Text(Arc::from(constant.text.as_str())),
            (other, _) => {
                self.report(Diagnostic::error("K111", other.span(), "a parameter is one expression").label("a body or list").help("name it in `$let` first"));
                return X::Nothing;
            }
        };
        let right = match (&compiled.typed.ty, ty) {
            (Ty::Nothing, _) => true,
            (a @ Ty::V2 { .. }, b @ Ty::V2 { .. }) => {
                fits(a, b) || matches!((a, b), (Ty::V2 { datatype: x, .. }, Ty::V2 { datatype: y, .. }) if self.v2.is_primitive(x) && self.v2.is_primitive(y))
            }
            (Ty::Text, Ty::V2 { datatype, .. }) => self.v2.is_primitive(datatype),
            (Ty::V2 { datatype, .. }, Ty::Text) => self.v2.is_primitive(datatype),
            (Ty::Resource(_) | Ty::Fhir(_), Ty::Resource(_)) | (Ty::Fhir(_), Ty::Fhir(_)) => true,
            (a, b) => a == b,
        };
        if !right {
            self.report(
                Diagnostic::error("K401", item.span(), format!("parameter {name} is {}, not {}", ty.name(), compiled.typed.ty.name()))
                    .label("another type")
                    .related(key.span, "passed here"),
            );
        }
        if compiled.typed.many {
            self.report(
                Diagnostic::error("K405", item.span(), format!("parameter {name} takes one value, and this may yield several"))
                    .label("may be many")
                    .help("first(...) takes the first"),
            );
        }
        compiled.x
    }
}
