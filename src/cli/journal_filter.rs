//! Which messages a command of the journal is about: their numbers, or what is known of them.

use crate::cli::Exit;
use crate::cli::journal::when;
use crate::cli::paint::err;
use crate::exchange::{MessageId, Phi, Timestamp};
use crate::journal::{DeliveryState, Found, Query, Reader};

/// The most messages that one command changes; more take another one.
pub(crate) const MESSAGES_MAX: usize = 100_000;

/// Messages that are read at once.
const PAGE: usize = 500;

/// What is known of messages with deliveries that were given up. Every part that is given must hold.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Filter {
    /// Only deliveries to this target
    #[arg(long)]
    pub target: Option<String>,
    /// Only deliveries by this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// The listener it came by
    #[arg(long)]
    pub listener: Option<String>,
    /// The code of the last attempt, such as http-422 or unmapped-code
    #[arg(long)]
    pub code: Option<String>,
    /// The reason has this text in it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// A patient identifier, as it stands in PID-3
    #[arg(long, value_name = "ID")]
    pub patient: Option<String>,
    /// `ADT^A01`, or `ADT` for all of them
    #[arg(long = "type", value_name = "TYPE")]
    pub message_type: Option<String>,
    /// Received at or after, such as 2026-11-24 or 2026-11-24T08:00 (this machine's zone)
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub since: Option<i64>,
    /// Received before
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub until: Option<i64>,
}

impl Filter {
    /// True if nothing is said that could narrow a choice down; a target alone is no choice of messages.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { target, route, listener, code, reason, patient, message_type, since, until } = self;
        [target, route, listener, code, reason, patient, message_type].iter().all(|part| part.is_none()) && since.is_none() && until.is_none()
    }

    /// The same as the journal takes it, for messages with a delivery in that state.
    pub(crate) fn query(&self, state: DeliveryState) -> Query {
        Query {
            term: self.patient.clone().map(Phi::new),
            message_type: self.message_type.clone(),
            listener: self.listener.clone(),
            from: self.since.map(Timestamp),
            to: self.until.map(Timestamp),
            state: Some(state),
            target: self.target.clone(),
            route: self.route.clone(),
            code: self.code.clone(),
            reason: self.reason.clone(),
            ..Query::default()
        }
    }

    /// The deliveries that it is about: all messages, newest first, each with its wanted deliveries. Faults have been printed.
    pub(crate) fn find(&self, reader: &Reader, state: DeliveryState) -> Result<Vec<Found>, Exit> {
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let query = Query { before, limit: PAGE, ..self.query(state) };
            let page = reader.search(&query).map_err(|e| {
                err!("kiln: {e}");
                Exit::CouldNot
            })?;
            before = page.last().map(|last| MessageId(last.id.0));
            let full = page.len() == PAGE;
            found.extend(page);
            if found.len() >= MESSAGES_MAX {
                err!("kiln: there are more than {MESSAGES_MAX}; this is about the newest of them, so run it again for the rest");
                found.truncate(MESSAGES_MAX);
                return Ok(found);
            }
            if !full {
                return Ok(found);
            }
        }
    }
}
