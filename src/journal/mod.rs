//! What makes a message durable: append with group commit, deliveries, attempts, outcomes, search.
//!
//! No SQL outside this folder. Only this module makes a `Stored`, and only after the commit's fsync.
