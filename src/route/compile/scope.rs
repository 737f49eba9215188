//! What a name means where it stands: current values, parameters, `$let`s and the route's resources.

use crate::route::compile::Wanted;
use crate::route::compile::expression::Compiled;
use crate::route::tree::{Item, Key};
use crate::route::types::Ty;

/// Names in reach of an expression.
#[derive(Clone, Default)]
pub(crate) struct Scope<'a> {
    /// Inside a data type's map: no segments.
    pub(crate) pure_value: bool,
    /// Current values, outermost first; the index is the slot at run time.
    pub(crate) entries: Vec<Entry>,
    pub(crate) takes: Vec<(String, Ty, Option<Wanted>)>,
    pub(crate) lets: Vec<Let<'a>>,
    /// The map or resource that it belongs to; 0 for what belongs to none. Uses of one `$let` in it are one.
    pub(crate) unit: usize,
    /// Names being expanded, against circles.
    pub(crate) expanding: Vec<String>,
    /// What the route's questions found.
    pub(crate) asked: Vec<AskedName>,
    /// The resource of the route that is being made.
    pub(crate) own: Option<usize>,
    /// Resources of the route.
    pub(crate) resources: Vec<Named>,
}

/// What a question of the route found, as a name.
#[derive(Clone)]
pub(crate) struct AskedName {
    pub(crate) name: String,
    /// Which question.
    pub(crate) index: usize,
    pub(crate) ty: crate::fhir::Type,
    pub(crate) many: bool,
    /// The v2 places that the search hangs on.
    pub(crate) places: Vec<String>,
}

/// A resource of the route, as a name that others refer to.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// Its FHIR type.
    pub(crate) ty: &'static str,
    /// The segment that each is made from; conditions of `where` see it.
    pub(crate) segment: Option<&'static str>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) ty: Ty,
    /// A group of `$each ... by`: more than one value.
    pub(crate) group: bool,
    /// The `$let` that was iterated: inside, its name means the current value.
    pub(crate) variable: Option<String>,
    /// The field path that was iterated: segment, field.
    pub(crate) path: Option<(String, u16)>,
    /// The segment that the value is, or stands in.
    pub(crate) segment: Option<&'static str>,
    /// The route's questions that found the value.
    pub(crate) asked: Vec<usize>,
}

impl Entry {
    /// What is current, one at a time.
    pub(crate) fn one(ty: Ty, path: Option<(String, u16)>, segment: Option<&'static str>) -> Self {
        Self { ty, group: false, variable: None, path, segment, asked: Vec::new() }
    }

    /// The values of an expression, one at a time.
    pub(crate) fn of(values: &Compiled) -> Self {
        Self { asked: values.asked.clone(), ..Self::one(values.typed.ty.clone(), values.origin.clone(), values.segment) }
    }
}

/// A `$let`, compiled anew at each use, in the scope in which it was written.
#[derive(Clone)]
pub(crate) struct Let<'a> {
    pub(crate) name: &'a Key,
    pub(crate) item: &'a Item,
    pub(crate) entries: usize,
}

impl<'a> Scope<'a> {
    pub(crate) fn for_map(from: &Ty, takes: &[(String, Ty, Option<Wanted>)]) -> Self {
        let segment = if let Ty::Segment(name) = from { Some(*name) } else { None };
        Self { pure_value: segment.is_none(), entries: vec![Entry::one(from.clone(), None, segment)], takes: takes.to_vec(), ..Self::default() }
    }

    pub(crate) fn push(&mut self, entry: Entry) -> usize {
        self.entries.push(entry);
        self.entries.len() - 1
    }

    pub(crate) fn pop(&mut self) {
        self.entries.pop();
    }

    /// The innermost slot that knows its segment, with that segment's name. The header stands in no group, so whatever else is current says more.
    pub(crate) fn segment(&self) -> Option<(usize, &'static str)> {
        let known = || self.entries.iter().enumerate().rev().filter_map(|(n, e)| e.segment.map(|s| (n, s)));
        known().find(|(_, segment)| *segment != "MSH").or_else(|| known().next())
    }

    /// A `$let` by name with the scope in which it was written.
    pub(crate) fn find_let(&self, name: &str) -> Option<(&'a Item, Scope<'a>)> {
        let found = self.lets.iter().rev().find(|l| l.name.text == name)?;
        let mut scope = self.clone();
        scope.entries.truncate(found.entries);
        scope.expanding.push(name.to_owned());
        Some((found.item, scope))
    }
}
