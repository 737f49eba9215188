//! What an expression yields while a message is mapped.

use crate::fhir::{Node, Type};
use crate::hl7v2::{Message, Part, Piece};
use crate::route::code::Row;
use crate::route::decimal::Decimal;
use std::borrow::Cow;
use std::rc::Rc;

/// One value. Its kind takes a whole word, so that it is copied in whole words: loads across what was stored just now are slow.
#[derive(Clone)]
#[repr(u32)]
pub(crate) enum Value<'m> {
    /// A v2 field repetition, component or subcomponent.
    Part(Part),
    Segment(u32),
    Text(Cow<'m, str>),
    Number(Box<Decimal>),
    /// A whole number.
    Whole(i64),
    Bool(bool),
    /// A time in v2's notation.
    Moment(Cow<'m, str>),
    Duration(Box<Span>),
    /// A table's row.
    Row(Box<Row>),
    /// A structured numeric that `sn()` read from text: comparator, first number, separator, second number.
    Sn(Rc<[Cow<'m, str>; 4]>),
    /// FHIR, under its JSON name. Boxed like other rare ones: most values are parts, and every step of an expression moves them.
    Node(Box<(&'static str, Node)>),
    /// A FHIR value that a question found, and its type.
    Fhir(&'m serde_json::Value, Type),
    /// A resource of this run, to be referred to.
    Made(usize),
    /// A v2 value that a map or a constant made.
    Piece(Box<Piece>),
    /// The values of `$each ... by` that have one key; never empty.
    Group(Rc<[Value<'m>]>),
    /// v2's `""`.
    Null,
}

impl Value<'_> {
    /// The segment that it is, or stands in; of a group, the first one's.
    pub(crate) fn segment(&self, message: &Message) -> Option<u32> {
        match self {
            Value::Segment(n) => Some(*n),
            Value::Part(part) => u32::try_from(message.place_of(*part).0).ok(),
            Value::Group(group) => group.first().and_then(|first| first.segment(message)),
            _ => None,
        }
    }
}

/// A length of time: calendar months and exact seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) months: i32,
    pub(crate) seconds: i64,
    /// The number as written, and its UCUM unit, for FHIR's Duration.
    pub(crate) unit: &'static str,
    pub(crate) count: i64,
}

/// Zero or more values.
#[derive(Clone)]
pub(crate) struct Values<'m> {
    pub(crate) items: Items<'m>,
    /// Did the message contribute? Constants alone bring no element to life.
    pub(crate) alive: bool,
}

#[derive(Clone)]
pub(crate) enum Items<'m> {
    None,
    One(Value<'m>),
    Many(Vec<Value<'m>>),
}

impl<'m> Values<'m> {
    pub(crate) fn none() -> Self {
        Self { items: Items::None, alive: false }
    }

    pub(crate) fn one(value: Value<'m>) -> Self {
        Self { items: Items::One(value), alive: true }
    }

    pub(crate) fn constant(value: Value<'m>) -> Self {
        Self { items: Items::One(value), alive: false }
    }

    pub(crate) fn option(value: Option<Value<'m>>, alive: bool) -> Self {
        match value {
            Some(value) => Self { items: Items::One(value), alive },
            None => Self::none(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match &self.items {
            Items::None => true,
            Items::One(_) => false,
            Items::Many(v) => v.is_empty(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.items {
            Items::None => 0,
            Items::One(_) => 1,
            Items::Many(v) => v.len(),
        }
    }

    pub(crate) fn push(&mut self, value: Value<'m>) {
        self.items = match std::mem::replace(&mut self.items, Items::None) {
            Items::None => Items::One(value),
            Items::One(first) => Items::Many(vec![first, value]),
            Items::Many(mut all) => {
                all.push(value);
                Items::Many(all)
            }
        };
    }

    pub(crate) fn as_slice(&self) -> &[Value<'m>] {
        match &self.items {
            Items::None => &[],
            Items::One(value) => std::slice::from_ref(value),
            Items::Many(all) => all,
        }
    }

    pub(crate) fn first(self) -> Option<Value<'m>> {
        match self.items {
            Items::None => None,
            Items::One(value) => Some(value),
            Items::Many(all) => all.into_iter().next(),
        }
    }

    pub(crate) fn last(self) -> Option<Value<'m>> {
        match self.items {
            Items::None => None,
            Items::One(value) => Some(value),
            Items::Many(all) => all.into_iter().next_back(),
        }
    }
}

impl<'m> IntoIterator for Values<'m> {
    type Item = Value<'m>;
    type IntoIter = IntoValues<'m>;

    fn into_iter(self) -> IntoValues<'m> {
        match self.items {
            Items::None => IntoValues(None, Vec::new().into_iter()),
            Items::One(value) => IntoValues(Some(value), Vec::new().into_iter()),
            Items::Many(all) => IntoValues(None, all.into_iter()),
        }
    }
}

/// Iterates without an allocation for one value.
pub(crate) struct IntoValues<'m>(Option<Value<'m>>, std::vec::IntoIter<Value<'m>>);

impl<'m> Iterator for IntoValues<'m> {
    type Item = Value<'m>;

    fn next(&mut self) -> Option<Value<'m>> {
        self.0.take().or_else(|| self.1.next())
    }
}
