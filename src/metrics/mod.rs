//! Counters, gauges and histograms under fixed names; labels come from configuration or closed lists only.
//!
//! Never carries a value from a message: a message type is a label only if the caller looked it up in the dictionary.

mod registry;

pub use registry::{ApplicationAck, FrameFault, Metrics, Outcome, Queue};
