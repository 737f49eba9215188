//! `order-by`: the values that keep the deliveries of a route in order.

use crate::exchange::{MessageId, Timestamp};
use crate::hl7v2::{Message, Part};
use crate::route::code::IdentifierShape;
use crate::route::program::{Context, OrderValue, RouteId, RouteSet};
use crate::route::run::value::Value;
use crate::route::run::{Env, Run};

impl RouteSet {
    /// The values of a route's `order-by` for a message, without repeats. `None` if the route has no `order-by` or it yields nothing: then the
    /// identifiers of the message decide.
    pub fn order_values(&self, route: RouteId, listener: &str, message: &Message) -> Option<Vec<OrderValue>> {
        let (_, _, code) = self.program(route)?;
        if code.order_by.is_empty() {
            return None;
        }
        let context = Context { received: Timestamp(0), zone: None, authority: None, message: MessageId(0), listener, answers: crate::fhir::Answers::NONE };
        let mut run = self.start(route, message, &context)?;
        let values = run.order_values();
        (!values.is_empty()).then_some(values)
    }
}

impl<'m> Run<'m> {
    /// What `order-by` yields. A value of more than [`ORDER_VALUES_MAX`] is not looked at.
    pub(crate) fn order_values(&mut self) -> Vec<OrderValue> {
        let mut all: Vec<OrderValue> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for order in &self.route.order_by {
            for value in self.eval(&order.x, &Env::root()) {
                let found = match (&value, order.identifier) {
                    (Value::Part(part), Some(shape)) => {
                        let (segment, field) = self.message.place_of(*part);
                        let place = u16::try_from(field).ok().map(|field| (self.message.segment_name(segment).to_owned(), field));
                        OrderValue { place, value: self.first_piece(*part), assigner: Some(self.assigner(*part, shape)) }
                    }
                    _ => OrderValue { place: None, value: self.text_of(&value).trim().to_owned(), assigner: None },
                };
                if !found.value.is_empty() && seen.insert(found.clone()) {
                    all.push(found);
                }
                if all.len() > ORDER_VALUES_MAX {
                    return all;
                }
            }
        }
        all
    }

    /// The namespace, else the universal id.
    fn assigner(&self, part: Part, shape: IdentifierShape) -> String {
        let (first, second) = match shape {
            IdentifierShape::Cx => {
                let hd = self.down(part, 4);
                (self.leaf_text(self.down(hd, 1)), self.leaf_text(self.down(hd, 2)))
            }
            IdentifierShape::Ei => (self.leaf_text(self.down(part, 2)), self.leaf_text(self.down(part, 3))),
        };
        let first = first.trim();
        if first.is_empty() || first == "\"\"" { second.trim().to_owned() } else { first.to_owned() }
    }

    fn first_piece(&self, part: Part) -> String {
        self.leaf_text(self.down(part, 1)).trim().to_owned()
    }
}

/// One more than a delivery may have, so that the engine sees that there are too many.
const ORDER_VALUES_MAX: usize = 1_001;
