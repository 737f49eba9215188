//! The words that cross borders: what a message, a delivery and a secret are to every other module.
//!
//! Nothing here parses, stores or sends. A type that only one module needs does not belong here.

mod envelope;
mod private;
mod row;

pub use envelope::{ControlId, DeliveryId, Envelope, Format, MessageId, OrderKey, Timestamp};
pub use private::{Phi, Secret};
pub use row::{InRow, Row};
