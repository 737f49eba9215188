//! The window of one target's queue: which of the deliveries in memory may start. Pure bookkeeping, no I/O, no clock.
//!
//! Never lets a delivery start while an earlier unfinished one in the window shares an order key.

use crate::exchange::{DeliveryId, OrderKey, Timestamp};
use crate::journal::Pending;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// How a delivery goes on after an attempt that did not succeed.
#[derive(Clone, Debug)]
pub(super) struct Again {
    /// Not before this time.
    pub(super) not_before: Timestamp,
    /// True if some attempt may have happened.
    pub(super) ambiguous: bool,
    /// The hash of the route set that it began with.
    pub(super) program: Option<String>,
    /// True if the target was at fault: the wait ends when it is back.
    pub(super) target_at_fault: bool,
}

/// What a delivery in the window is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for its keys, or is ready.
    Waiting,
    /// Waits for its time. The flag: the target was at fault, so the wait ends when the target is back.
    Delayed(Timestamp, bool),
    /// Is being delivered.
    Running,
    /// Is being parked.
    Parking,
}

struct Entry {
    pending: Pending,
    state: State,
}

/// One order key's line.
#[derive(Default)]
struct Line {
    /// The delivery that runs with this key.
    running: Option<DeliveryId>,
    /// How many are being parked with this key. They stand before all that wait, and keep what is not to be parked from starting.
    parking: usize,
    /// Those that wait, in the order of storing.
    waiting: VecDeque<DeliveryId>,
}

/// The deliveries of one target that are in memory.
#[derive(Default)]
pub(super) struct Window {
    entries: BTreeMap<DeliveryId, Entry>,
    lines: HashMap<OrderKey, Line>,
    ready: BTreeSet<DeliveryId>,
    /// First in their lines too, but to be parked.
    ready_blocked: BTreeSet<DeliveryId>,
    delayed: BTreeSet<(Timestamp, DeliveryId)>,
    keys: usize,
}

impl Window {
    /// How many order keys its deliveries have, all together.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// How many deliveries are in memory, running ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many run or are being parked.
    #[cfg(test)]
    fn running(&self) -> usize {
        self.entries.values().filter(|e| matches!(e.state, State::Running | State::Parking)).count()
    }

    /// Takes a delivery in; one that is here already is left alone. A replayed one may be older than others that are here:
    /// it gets its place before them, behind what runs.
    pub(super) fn add(&mut self, pending: Pending) {
        let id = pending.id;
        if self.entries.contains_key(&id) {
            return;
        }
        let mut overtaken = Vec::new();
        let mut blocked = pending.blocked;
        let mut before_others = false;
        for key in &pending.keys {
            let line = self.lines.entry(*key).or_default();
            let place = line.waiting.partition_point(|other| *other < id);
            // The journal does not know yet what is about to be parked; whoever comes after that is to be parked, too.
            let before = place.checked_sub(1).and_then(|n| line.waiting.get(n));
            blocked |= line.parking > 0 || before.is_some_and(|other| self.entries.get(other).is_some_and(|e| e.pending.blocked));
            before_others |= place < line.waiting.len();
            if place == 0
                && let Some(front) = line.waiting.front()
            {
                overtaken.push(*front);
            }
            line.waiting.insert(place, id);
        }
        for other in overtaken {
            self.ready.remove(&other);
            self.ready_blocked.remove(&other);
        }
        let state = match pending.not_before {
            Some(at) => {
                self.delayed.insert((at, id));
                State::Delayed(at, false)
            }
            None => State::Waiting,
        };
        self.keys += pending.keys.len();
        let keys = (blocked && before_others).then(|| pending.keys.clone());
        self.entries.insert(id, Entry { pending: Pending { blocked, ..pending }, state });
        self.consider(id);
        if let Some(keys) = keys {
            self.block_behind(id, &keys);
        }
    }

    /// Ends the waits whose time has come.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.delayed.first().copied()
            && at <= now
        {
            self.delayed.pop_first();
            self.undelay(id);
        }
    }

    /// Ends the waits that were the target's fault: it is back.
    pub(super) fn wake_all_of_target(&mut self) {
        let back: Vec<_> =
            self.delayed.iter().filter(|(_, id)| matches!(self.entries.get(id).map(|e| e.state), Some(State::Delayed(_, true)))).copied().collect();
        for (at, id) in back {
            self.delayed.remove(&(at, id));
            self.undelay(id);
        }
    }

    /// Ends the wait of one delivery: what it waited for has come.
    pub(super) fn wake_one(&mut self, id: DeliveryId) {
        if let Some(State::Delayed(at, _)) = self.entries.get(&id).map(|e| e.state) {
            self.delayed.remove(&(at, id));
            self.undelay(id);
        }
    }

    fn undelay(&mut self, id: DeliveryId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.state = State::Waiting;
            self.consider(id);
        }
    }

    /// When the next wait ends.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// The oldest delivery that may start, now running; `None` if none may.
    pub(super) fn start(&mut self) -> Option<Pending> {
        let id = self.ready.pop_first()?;
        Some(self.begin(id, State::Running))
    }

    /// As [`Window::start`], but the one with the fewest attempts: if the oldest could never succeed, it alone would ask for ever
    /// whether the target is back.
    pub(super) fn start_probe(&mut self) -> Option<Pending> {
        let attempts = |id: &DeliveryId| self.entries.get(id).map_or(0, |entry| entry.pending.attempts);
        let id = self.ready.iter().copied().min_by_key(|id| (attempts(id), *id))?;
        self.ready.remove(&id);
        Some(self.begin(id, State::Running))
    }

    /// The oldest delivery that is to be parked. What is to be parked behind it need not wait for it; all others do, until [`Window::finish`].
    pub(super) fn start_blocked(&mut self) -> Option<Pending> {
        let id = self.ready_blocked.pop_first()?;
        Some(self.begin(id, State::Parking))
    }

    fn begin(&mut self, id: DeliveryId, state: State) -> Pending {
        let entry = self.entries.get_mut(&id).expect("what is ready is in the window");
        entry.state = state;
        let pending = entry.pending.clone();
        for key in &pending.keys {
            let line = self.lines.get_mut(key).expect("a key of an entry has a line");
            let front = line.waiting.pop_front();
            debug_assert_eq!(front, Some(id), "what is ready is first in all of its lines");
            match state {
                State::Parking => line.parking += 1,
                _ => line.running = Some(id),
            }
        }
        if state == State::Parking {
            for key in &pending.keys {
                if let Some(front) = self.lines.get(key).and_then(|line| line.waiting.front().copied()) {
                    self.consider(front);
                }
            }
        }
        pending
    }

    /// The delivery is settled for good: it leaves, and whoever waited for it may be ready.
    pub(super) fn finish(&mut self, id: DeliveryId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.keys -= entry.pending.keys.len();
        self.leave_lines(id, &entry);
        if let State::Delayed(at, _) = entry.state {
            self.delayed.remove(&(at, id));
        }
        self.ready.remove(&id);
        self.ready_blocked.remove(&id);
    }

    /// Drops what waits to be parked: whether it still must is read anew.
    pub(super) fn forget_blocked(&mut self) {
        let blocked: Vec<_> = self.entries.iter().filter(|(_, e)| e.pending.blocked && e.state == State::Waiting).map(|(id, _)| *id).collect();
        for id in blocked {
            self.finish(id);
        }
    }

    fn leave_lines(&mut self, id: DeliveryId, entry: &Entry) {
        for key in &entry.pending.keys {
            let Some(line) = self.lines.get_mut(key) else { continue };
            if entry.state == State::Parking {
                line.parking = line.parking.saturating_sub(1);
            } else if line.running == Some(id) {
                line.running = None;
            } else if let Some(place) = line.waiting.iter().position(|other| *other == id) {
                line.waiting.remove(place);
            }
            match line.waiting.front().copied() {
                Some(front) => self.consider(front),
                None if line.running.is_none() && line.parking == 0 => {
                    self.lines.remove(key);
                }
                None => {}
            }
        }
        if self.lines.capacity() > 1_024 && self.lines.len() < self.lines.capacity() / 8 {
            self.lines.shrink_to(self.lines.len() * 2);
        }
    }

    /// The delivery did not succeed and goes back to its place. It keeps its turn: later ones with its keys wait for it.
    pub(super) fn put_back(&mut self, id: DeliveryId, again: Again, now: Timestamp) {
        let Again { not_before, ambiguous, program, target_at_fault } = again;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.state != State::Running {
            return;
        }
        entry.state = State::Delayed(not_before, target_at_fault);
        entry.pending.attempts += 1;
        entry.pending.ambiguous = ambiguous;
        entry.pending.program = entry.pending.program.take().or(program);
        entry.pending.not_before = Some(not_before);
        entry.pending.first_attempt = entry.pending.first_attempt.or(Some(now));
        self.delayed.insert((not_before, id));
        let keys = entry.pending.keys.clone();
        for key in keys {
            let line = self.lines.entry(key).or_default();
            line.running = None;
            let place = line.waiting.partition_point(|other| *other < id);
            line.waiting.insert(place, id);
        }
    }

    /// A dead letter of `id` blocks: everything behind it that shares a key, directly or through others, is to be parked when its turn comes.
    pub(super) fn block_behind(&mut self, id: DeliveryId, keys: &[OrderKey]) {
        let mut poisoned: BTreeSet<OrderKey> = keys.iter().copied().collect();
        let mut freed = Vec::new();
        for (other, entry) in self.entries.range_mut((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded)) {
            if matches!(entry.state, State::Running | State::Parking) || !entry.pending.keys.iter().any(|k| poisoned.contains(k)) {
                continue;
            }
            poisoned.extend(&entry.pending.keys);
            entry.pending.blocked = true;
            if let State::Delayed(at, _) = entry.state {
                self.delayed.remove(&(at, *other));
                entry.state = State::Waiting;
            }
            freed.push(*other);
        }
        for other in freed {
            self.ready.remove(&other);
            self.consider(other);
        }
    }

    /// Marks the delivery as ready if it waits for nothing but a place.
    fn consider(&mut self, id: DeliveryId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let blocked = entry.pending.blocked;
        let first = |key: &OrderKey| {
            self.lines.get(key).is_some_and(|line| line.running.is_none() && (blocked || line.parking == 0) && line.waiting.front() == Some(&id))
        };
        if entry.state == State::Waiting && entry.pending.keys.iter().all(first) {
            let set = if entry.pending.blocked { &mut self.ready_blocked } else { &mut self.ready };
            set.insert(id);
        }
    }

    /// How many are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::MessageId;
    use proptest::prelude::*;

    fn id(n: u64) -> DeliveryId {
        DeliveryId { message: MessageId(n), number: 0 }
    }

    fn pending(n: u64, keys: &[u64]) -> Pending {
        Pending {
            id: id(n),
            route: "adt".into(),
            keys: keys.iter().map(|k| OrderKey(*k)).collect(),
            attempts: 0,
            not_before: None,
            ambiguous: false,
            program: None,
            received: Timestamp(0),
            first_attempt: None,
            blocked: false,
            awaited: None,
            owed: false,
        }
    }

    fn again(at: i64) -> Again {
        Again { not_before: Timestamp(at), ambiguous: false, program: None, target_at_fault: true }
    }

    fn started(window: &mut Window) -> Vec<u64> {
        std::iter::from_fn(|| window.start()).map(|p| p.id.message.0).collect()
    }

    #[test]
    fn patients_run_in_parallel_and_each_in_order() {
        let mut window = Window::default();
        for (n, keys) in [(1, &[7][..]), (2, &[8]), (3, &[7]), (4, &[7, 8]), (5, &[9])] {
            window.add(pending(n, keys));
        }
        assert_eq!(started(&mut window), [1, 2, 5]);
        window.finish(id(1));
        assert_eq!(started(&mut window), [3]);
        window.finish(id(3));
        assert_eq!(started(&mut window), [] as [u64; 0], "4 waits for 2 too");
        window.finish(id(2));
        assert_eq!(started(&mut window), [4]);
    }

    #[test]
    fn a_retry_keeps_its_turn_until_its_time() {
        let mut window = Window::default();
        window.add(pending(1, &[7]));
        window.add(pending(2, &[7]));
        assert_eq!(started(&mut window), [1]);
        window.put_back(id(1), again(100), Timestamp(0));
        window.wake(Timestamp(99));
        assert_eq!(started(&mut window), [] as [u64; 0]);
        assert_eq!(window.next_wake(), Some(Timestamp(100)));
        window.wake(Timestamp(100));
        assert_eq!(started(&mut window), [1]);
        window.put_back(id(1), again(1_000), Timestamp(0));
        window.wake_all_of_target();
        assert_eq!(started(&mut window), [1]);
    }

    #[test]
    fn a_blocking_dead_letter_marks_what_stands_behind_it() {
        let mut window = Window::default();
        for (n, keys) in [(1, &[7][..]), (2, &[7, 8]), (3, &[8]), (4, &[9])] {
            window.add(pending(n, keys));
        }
        let first = window.start().expect("1 is ready");
        window.block_behind(first.id, &first.keys);
        window.finish(first.id);
        let blocked: Vec<_> = std::iter::from_fn(|| {
            let next = window.start_blocked().or_else(|| window.start())?;
            window.finish(next.id);
            Some((next.id.message.0, next.blocked))
        })
        .collect();
        assert_eq!(blocked, [(2, true), (3, true), (4, false)]);
        assert_eq!((window.len(), window.lines.len()), (0, 0), "nothing stays behind");
    }

    #[test]
    fn what_is_to_be_parked_is_parked_side_by_side_and_the_rest_waits_for_it() {
        let mut window = Window::default();
        for (n, keys) in [(1, &[7][..]), (2, &[7]), (3, &[7, 8]), (4, &[9])] {
            window.add(pending(n, keys));
        }
        let first = window.start().expect("1 is ready");
        window.block_behind(first.id, &first.keys);
        window.finish(first.id);
        let parking: Vec<_> = std::iter::from_fn(|| window.start_blocked()).map(|p| p.id.message.0).collect();
        assert_eq!(parking, [2, 3], "neither waits for the other");
        // Read before the journal knows that 3 is parked: it comes after 3.
        window.add(pending(5, &[8]));
        assert_eq!(started(&mut window), [4]);
        assert_eq!(window.start_blocked().map(|p| p.id.message.0), Some(5));
        for n in [3, 2, 5, 4] {
            window.finish(id(n));
        }
        assert_eq!((window.len(), window.lines.len()), (0, 0), "nothing stays behind");
    }

    #[test]
    fn a_replayed_older_one_goes_before_those_that_wait() {
        let mut window = Window::default();
        window.add(pending(5, &[7]));
        window.add(pending(6, &[7]));
        assert_eq!(started(&mut window), [5]);
        window.add(pending(2, &[7]));
        assert_eq!(started(&mut window), [] as [u64; 0], "5 runs");
        window.finish(id(5));
        assert_eq!(started(&mut window), [2]);
        window.finish(id(2));
        assert_eq!(started(&mut window), [6]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(Vec<u64>),
        Start,
        Finish(usize),
        PutBack(usize),
        Wake,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => prop::collection::btree_set(0u64..6, 1..4).prop_map(|keys| Step::Add(keys.into_iter().collect())),
            4 => Just(Step::Start),
            3 => any::<usize>().prop_map(Step::Finish),
            1 => any::<usize>().prop_map(Step::PutBack),
            1 => Just(Step::Wake),
        ]
    }

    proptest! {
        /// Against the definition: a delivery starts only if no earlier unfinished one shares a key, and in the end all have run.
        #[test]
        fn order_holds_whatever_happens(steps in prop::collection::vec(step(), 0..80)) {
            let (mut window, mut next, mut now) = (Window::default(), 0, 0);
            let mut unfinished: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            let mut running: Vec<u64> = Vec::new();
            let check_start = |window: &mut Window, unfinished: &BTreeMap<u64, Vec<u64>>, running: &mut Vec<u64>| {
                if let Some(started) = window.start() {
                    let n = started.id.message.0;
                    for (earlier, keys) in unfinished.range(..n) {
                        assert!(!keys.iter().any(|k| started.keys.contains(&OrderKey(*k))), "{n} started before {earlier}");
                    }
                    running.push(n);
                }
            };
            for step in steps {
                match step {
                    Step::Add(keys) => { next += 1; window.add(pending(next, &keys)); unfinished.insert(next, keys); }
                    Step::Start => check_start(&mut window, &unfinished, &mut running),
                    Step::Finish(n) if !running.is_empty() => { let n = running.swap_remove(n % running.len()); window.finish(id(n)); unfinished.remove(&n); }
                    Step::PutBack(n) if !running.is_empty() => { let n = running.swap_remove(n % running.len()); window.put_back(id(n), again(now + 1), Timestamp(now)); }
                    Step::Wake => { now += 1; window.wake(Timestamp(now)); }
                    Step::Finish(_) | Step::PutBack(_) => {}
                }
                prop_assert_eq!(window.running(), running.len());
            }
            window.wake(Timestamp(i64::MAX));
            for _ in 0..=next {
                while window.ready() > 0 { check_start(&mut window, &unfinished, &mut running); }
                for n in running.drain(..) { window.finish(id(n)); unfinished.remove(&n); }
            }
            prop_assert_eq!((window.len(), window.keys()), (0, 0));
            prop_assert!(window.lines.is_empty() && window.delayed.is_empty());
        }
    }
}
