//! The segments that the journal consists of at the moment, and which of them holds a message.

use crate::exchange::MessageId;
use crate::journal::filter::Filter;
use crate::journal::query::DeliveryState;
use arc_swap::ArcSwap;
use rusqlite::Connection;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Kinds of rows in `tally`.
pub(in crate::journal) mod kind {
    /// a = listener, b = message type, c = disposition.
    pub(in crate::journal) const MESSAGE: i64 = 1;
    /// a = target, c = state.
    pub(in crate::journal) const DELIVERY: i64 = 2;
    /// a = listener.
    pub(in crate::journal) const DUPLICATE: i64 = 3;
    /// a = listener.
    pub(in crate::journal) const REUSED: i64 = 4;
}

/// Deliveries of one target by state; the index is the number that is stored.
pub(in crate::journal) type States = [i64; 6];

/// All states, at the place of the number that is stored.
pub(in crate::journal) const STATES: [DeliveryState; 6] =
    [DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::DeadLetter, DeliveryState::Parked, DeliveryState::Skipped, DeliveryState::Superseded];

/// The number that is stored for a state.
pub(in crate::journal) fn state_number(state: DeliveryState) -> usize {
    STATES.iter().position(|known| *known == state).unwrap_or(0)
}

/// One file of messages, as writer and readers share it.
pub(in crate::journal) struct Segment {
    /// Its first message; 0 for the one that holds what was carried over.
    pub(in crate::journal) first: u64,
    /// Its file.
    pub(in crate::journal) path: PathBuf,
    /// What is in it for each target, as of the last commit.
    pub(in crate::journal) targets: Mutex<HashMap<Arc<str>, States>>,
    /// When its newest message was received: older ones than a duplicate window need not be looked at.
    pub(in crate::journal) last_received: AtomicI64,
    /// Tells quickly that a control ID is not in it; made behind the scenes once it takes no more messages.
    pub(in crate::journal) filter: OnceLock<Filter>,
}

impl Segment {
    /// Reads what must be known about a segment. Constant time: the counts are rows, kept by the commits themselves.
    pub(in crate::journal) fn load(first: u64, path: PathBuf, connection: &Connection) -> rusqlite::Result<Self> {
        let mut targets: HashMap<Arc<str>, States> = HashMap::new();
        let mut query = connection.prepare("SELECT a, c, n FROM tally WHERE kind = ?1")?;
        let mut rows = query.query([kind::DELIVERY])?;
        while let Some(row) = rows.next()? {
            let (target, state, count): (Arc<str>, usize, i64) = (row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs() as usize, row.get(2)?);
            if let Some(place) = targets.entry(target).or_default().get_mut(state) {
                *place = count;
            }
        }
        let last = connection.query_row("SELECT coalesce((SELECT received FROM message ORDER BY id DESC LIMIT 1), 0)", [], |row| row.get(0))?;
        Ok(Self { first, path, targets: Mutex::new(targets), last_received: AtomicI64::new(last), filter: OnceLock::new() })
    }

    /// The file's name.
    pub(in crate::journal) fn file(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Deliveries to a target in one state.
    pub(in crate::journal) fn count(&self, target: &str, state: DeliveryState) -> u64 {
        self.targets.lock().expect("no holder panics").get(target).and_then(|states| states.get(state_number(state))).map_or(0, |count| count.unsigned_abs())
    }

    /// Whether something in it waits or blocks on this target.
    pub(in crate::journal) fn may_block(&self, target: &str) -> bool {
        self.count(target, DeliveryState::Parked) + self.count(target, DeliveryState::DeadLetter) > 0
    }

    /// Takes over what a commit changed.
    pub(in crate::journal) fn add(&self, changes: &HashMap<Arc<str>, States>) {
        let mut targets = self.targets.lock().expect("no holder panics");
        for (target, change) in changes {
            let states = targets.entry(target.clone()).or_default();
            states.iter_mut().zip(change).for_each(|(state, change)| *state += change);
        }
    }

    /// When its newest message was received, in milliseconds.
    pub(in crate::journal) fn last_received(&self) -> i64 {
        self.last_received.load(Ordering::Relaxed)
    }
}

/// All segments, ascending; the first is the one that holds what was carried over, the last is the one that takes messages.
pub(in crate::journal) struct Shelf {
    segments: ArcSwap<Vec<Arc<Segment>>>,
}

impl Shelf {
    /// A shelf of these segments, ascending.
    pub(in crate::journal) fn new(segments: Vec<Arc<Segment>>) -> Self {
        Self { segments: ArcSwap::from_pointee(segments) }
    }

    /// All of them at this moment.
    pub(in crate::journal) fn all(&self) -> Arc<Vec<Arc<Segment>>> {
        self.segments.load_full()
    }

    /// Puts others in their place.
    pub(in crate::journal) fn replace(&self, segments: Vec<Arc<Segment>>) {
        self.segments.store(Arc::new(segments));
    }

    /// The segment that holds a message if any does. Retention goes from the oldest segment on, so whatever is older than the oldest
    /// segment was carried over.
    pub(in crate::journal) fn home(&self, id: MessageId) -> Option<Arc<Segment>> {
        let segments = self.segments.load();
        let place = segments.partition_point(|segment| segment.first <= id.0);
        place.checked_sub(1).and_then(|place| segments.get(place)).cloned()
    }
}
