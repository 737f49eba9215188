//! A place in FHIR as both sides write it: the guide's columns and the compiled lines.

use crate::fhir::{self, Type};

/// `Patient`, then `contact`, `organization`, `(Organization)`, `name`; with the type behind each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) root: &'static str,
    pub(crate) steps: Vec<String>,
    /// Type names: of the root, then behind each step; empty where R4 knows no such element.
    pub(crate) types: Vec<&'static str>,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.root)?;
        self.steps.iter().try_for_each(|s| write!(f, ".{s}"))
    }
}

impl At {
    /// A resource or a type.
    pub(crate) fn root(name: &str) -> Option<Self> {
        let ty = fhir::type_named(name)?;
        Some(Self { root: ty.name(), steps: Vec::new(), types: vec![ty.name()] })
    }

    fn ty(&self) -> Option<Type> {
        self.types.last().and_then(|t| fhir::type_named(t))
    }

    fn push(&self, step: String, ty: &'static str) -> Self {
        let mut made = self.clone();
        made.steps.push(step);
        made.types.push(ty);
        made
    }

    /// An element by its name in JSON or in the specification; of a choice, only its type tells the branch.
    pub(crate) fn step(&self, name: &str) -> Self {
        let name = name.trim_start_matches('_');
        let found = self.ty().and_then(|ty| {
            ty.property(name).map(|(e, t)| (e.name(), t.name())).or_else(|| {
                let choice = if name.ends_with("[x]") { name.to_owned() } else { format!("{name}[x]") };
                ty.element(&choice).map(|e| (e.name(), ""))
            })
        });
        match found {
            Some((element, ty)) => self.push(element.trim_end_matches("[x]").to_owned(), ty),
            None => self.push(name.to_owned(), ""),
        }
    }

    /// The extension of that URL.
    pub(crate) fn extension(&self, url: &str) -> Self {
        self.push(format!("extension({url})"), "Extension")
    }

    /// The resource that a reference leads to; a place that is this resource already stays.
    pub(crate) fn resource(&self, name: &str) -> Self {
        let ty = fhir::type_named(name).map_or("", Type::name);
        if self.types.last() == Some(&ty) { self.clone() } else { self.push(format!("({name})"), ty) }
    }

    pub(crate) fn parent(&self) -> Self {
        let mut made = self.clone();
        if made.steps.pop().is_some() {
            made.types.pop();
        }
        made
    }

    pub(crate) fn last(&self) -> &str {
        self.steps.last().map_or("", String::as_str)
    }

    /// The same place under the name that an item brings: a branch of a choice.
    pub(crate) fn branch(&self, name: &str) -> Self {
        if name == "value" || self.steps.is_empty() || self.last() == name { self.clone() } else { self.parent().step(name) }
    }
}
