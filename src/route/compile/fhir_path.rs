//! FHIR as a source: paths like `Patient.name.family`, and what `as` makes of references and choices.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Element, Kind, Type};
use crate::route::asking::ElementStep;
use crate::route::code::{Path, Root, X};
use crate::route::compile::Compiler;
use crate::route::compile::expression::Compiled;
use crate::route::compile::scope::Scope;
use crate::route::tree::{Key, PathStep, Target};
use crate::route::types::{Ty, Typed};

impl<'a> Compiler<'a> {
    /// `Patient.name.family`: an element of the current value of that type.
    pub(crate) fn fhir_type_path(&mut self, scope: &Scope<'a>, name: &Key, tail: &[PathStep], span: Span) -> Compiled {
        // The path that was iterated means the current value; of several, the one that says most.
        let elements: Vec<&str> = tail.iter().map_while(|s| if let PathStep::Element(e) = s { Some(e.as_str()) } else { None }).collect();
        for length in (1..=elements.len()).rev() {
            let path = format!("{}.{}", name.text, elements.get(..length).unwrap_or_default().join("."));
            let current = scope.entries.iter().enumerate().rev().find(|(_, e)| e.path.as_ref().is_some_and(|(p, _)| *p == path));
            if let Some((slot, entry)) = current {
                let value = Compiled::new(current_value(slot), Typed::one(entry.ty.clone()));
                let compiled = Compiled { origin: entry.path.clone(), asked: entry.asked.clone(), ..value };
                return self.fhir_steps(compiled, path, tail.get(length..).unwrap_or_default(), span);
            }
        }
        let Some(ty) = fhir::type_named(&name.text) else { return Compiled::nothing() };
        let current = scope.entries.iter().enumerate().rev().find(|(_, e)| matches!(e.ty, Ty::Fhir(t) if t == ty || t.is(ty)));
        let Some((slot, entry)) = current else {
            let current: Vec<String> = scope.entries.iter().map(|e| e.ty.name()).collect();
            self.report(
                Diagnostic::error("K206", span, format!("no current value here is a {}", name.text))
                    .label("not the type of what is being mapped")
                    .help(if current.is_empty() { "begin the path with a segment".to_owned() } else { format!("in reach: {}", current.join(", ")) }),
            );
            return Compiled::nothing();
        };
        let value = Compiled::new(current_value(slot), Typed { ty: entry.ty.clone(), many: entry.group });
        let compiled = Compiled { asked: entry.asked.clone(), ..value };
        self.fhir_steps(compiled, name.text.clone(), tail, span)
    }

    /// Elements and indexes below a FHIR value.
    pub(crate) fn fhir_steps(&mut self, mut value: Compiled, mut path: String, tail: &[PathStep], span: Span) -> Compiled {
        let mut steps = Vec::new();
        for step in tail {
            match step {
                PathStep::Index(index) => {
                    value.typed.many = false;
                    steps.push(ElementStep::Index(*index));
                }
                PathStep::Component(n) => {
                    self.report(
                        Diagnostic::error("K204", span, format!("{} has no components", value.typed.ty.name()))
                            .label(format!("component {n} of what?"))
                            .help("an element of FHIR is named: .family"),
                    );
                    return Compiled::nothing();
                }
                PathStep::Element(name) => {
                    let Some((element, ty)) = self.fhir_element(&value.typed.ty, name, span) else { return Compiled::nothing() };
                    steps.push(ElementStep::Element(match &ty {
                        Ty::Choice(types) => types.iter().map(|t| (element.json_name(*t), *t)).collect(),
                        Ty::Fhir(ty) => vec![(element.json_name(*ty), *ty)],
                        _ => Vec::new(),
                    }));
                    path.push('.');
                    path.push_str(name);
                    value.typed.many |= element.is_list();
                    value.typed.ty = ty;
                    value.element = Some(element);
                }
            }
        }
        value.x = stepped(value.x, steps);
        value.places = vec![path.clone()];
        // FHIR's paths have no field number; names with dots never meet those of segments.
        value.origin = Some((path, 0));
        value
    }

    fn fhir_element(&mut self, ty: &Ty, name: &str, span: Span) -> Option<(Element, Ty)> {
        let ty = match ty {
            Ty::Fhir(ty) => *ty,
            Ty::Choice(types) => {
                let names: Vec<&str> = types.iter().map(|t| t.name()).collect();
                self.report(
                    Diagnostic::error("K402", span, format!("which type has .{name}?"))
                        .label("several types are possible")
                        .help(format!("choose with `as`, in parentheses: (... as {}).{name}", names.first().copied().unwrap_or("Quantity"))),
                );
                return None;
            }
            Ty::Nothing => return None,
            other => {
                self.report(
                    Diagnostic::error("K301", span, format!("{} has no element {name}", other.name()))
                        .label("not a FHIR value")
                        .help("parts of a v2 value are numbers: .1"),
                );
                return None;
            }
        };
        if let Some(element) = ty.element(name).or_else(|| ty.element(&format!("{name}[x]"))) {
            let types: Vec<Type> = element.types().collect();
            let of = if element.is_choice() { Ty::Choice(types) } else { types.first().map_or(Ty::Nothing, |t| Ty::Fhir(*t)) };
            return Some((element, of));
        }
        if let Some((element, branch)) = ty.property(name) {
            return Some((element, Ty::Fhir(branch)));
        }
        let help = self.suggest_element(ty, name);
        self.report(Diagnostic::error("K301", span, format!("{} has no element {name}", ty.name())).label("unknown element").help(help));
        None
    }

    /// `Appointment.participant.actor as Patient`, `Observation.value as Quantity`: what a source's value is, not what it becomes.
    /// `None` if it is no such thing.
    pub(crate) fn fhir_cast(&mut self, raw: &mut Compiled, target: &Target, span: Span) -> Option<Compiled> {
        let element = raw.element?;
        let ty = fhir::type_named(&target.name).filter(|_| target.variant.is_none())?;
        let (places, asked) = (raw.places.clone(), raw.asked.clone());
        let cast = |x: &mut X, step: ElementStep, ty: Type, many: bool| {
            let x = stepped(std::mem::replace(x, X::Nothing), vec![step]);
            Some(Compiled { places, asked, element: Some(element), ..Compiled::new(x, Typed { ty: Ty::Fhir(ty), many }) })
        };
        let many = raw.typed.many;
        match &raw.typed.ty {
            Ty::Choice(types) => {
                if !types.contains(&ty) {
                    let names: Vec<&str> = types.iter().map(|t| t.name()).collect();
                    self.report(
                        Diagnostic::error("K401", span, format!("{} is never a {}", element.name(), ty.name()))
                            .label("not among its types")
                            .help(format!("it is one of: {}", names.join(", "))),
                    );
                }
                cast(&mut raw.x, ElementStep::Of(ty), ty, many)
            }
            Ty::Fhir(from) if from.name() == "Reference" && ty.kind() == Kind::Resource => {
                let targets: Vec<&str> = element.targets().collect();
                if !targets.is_empty() && !targets.contains(&"Resource") && !targets.contains(&ty.name()) {
                    self.report(
                        Diagnostic::error("K309", span, format!("{} never refers to a {}", element.name(), ty.name()))
                            .label("wrong kind of resource")
                            .help(format!("it refers to: {}", targets.join(", "))),
                    );
                }
                cast(&mut raw.x, ElementStep::Follow(ty), ty, many)
            }
            Ty::Fhir(from) if ty.is(*from) => cast(&mut raw.x, ElementStep::Of(ty), ty, many),
            _ => None,
        }
    }
}

/// What is current in a slot.
fn current_value(slot: usize) -> X {
    X::Path(Path { root: Root::Slot(slot), field: None, steps: Vec::new() })
}

/// Further steps on a FHIR value.
fn stepped(x: X, more: Vec<ElementStep>) -> X {
    match x {
        x if more.is_empty() => x,
        X::Elements(inner, mut steps) => {
            steps.extend(more);
            X::Elements(inner, steps)
        }
        x => X::Elements(Box::new(x), more),
    }
}
