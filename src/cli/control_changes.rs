//! What commands do to a journal: with the daemon's engine, which keeps its queues in order meanwhile, or with the lock when no daemon runs.

use crate::cli::control::{ControlContext, Done, Item, Overridden, ReplayRequest, Request, Rules, Superseded};
use crate::engine::{Routes, deliveries, keys_by};
use crate::exchange::{DeliveryId, MessageId, OrderKey, Phi, Timestamp};
use crate::hl7v2::{Message, ParseOptions};
use crate::journal::{
    DeliveryRecord, DeliveryState, Disposition, Edit, Journal, JournalError, MessageRecord, NewDelivery, Reopening, Replay, Settle, Settlement, UnknownList,
};
use base64::Engine as _;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The most deliveries that a replay of whole keys (`--superseded key`) sends once more.
const SENT_ONCE_MORE_MAX: usize = 100_000;

/// What is to be known of a delivery that was given up; there may be a hundred thousand of them.
struct GivenUp {
    id: DeliveryId,
    target: Arc<str>,
    state: DeliveryState,
    keys: Vec<OrderKey>,
}

impl From<DeliveryRecord> for GivenUp {
    fn from(record: DeliveryRecord) -> Self {
        Self { id: record.id, target: record.target, state: record.state, keys: record.keys }
    }
}

/// Who changes the journal: a running engine keeps its queues in order meanwhile, a journal alone has none.
pub(crate) enum JournalAccess<'a> {
    Running(&'a ControlContext),
    Alone(&'a Journal, &'a Rules),
}

impl JournalAccess<'_> {
    /// Does what is asked.
    pub(crate) async fn apply(&self, request: &Request) -> Result<Done, String> {
        match request {
            Request::Prune => self.prune().await,
            Request::Reload => self.reload().await,
            Request::Status => Ok(Done::default()),
            Request::Import { .. } => Err("an import needs a connection of its own".to_owned()),
            Request::Replay(request) => self.replay(request).await,
            Request::Skip(request) => self.skip(request).await,
            Request::Known { table, codes } => self.known(table.as_deref(), codes).await,
        }
    }

    fn journal(&self) -> &Journal {
        match self {
            Self::Running(context) => context.engine.journal(),
            Self::Alone(journal, _) => journal,
        }
    }

    async fn record(&self, number: u64) -> Result<MessageRecord, String> {
        self.journal().show(MessageId(number)).await.map_err(|e| format!("message {number}: {e}"))
    }

    async fn reload(&self) -> Result<Done, String> {
        let Self::Running(context) = self else { return Err("no daemon runs on this journal".to_owned()) };
        let (ask, answer) = oneshot::channel();
        context.reloads.send(ask).await.map_err(|_| "this daemon has no site file to read again")?;
        let said = answer.await.map_err(|_| "the daemon stopped before it answered")??;
        Ok(Done { said, ..Done::default() })
    }

    async fn prune(&self) -> Result<Done, String> {
        let pruned = self.journal().prune(now()).await.map_err(|e| e.to_string())?;
        tracing::info!(segments = pruned.segments, messages = pruned.messages, "pruned on request");
        Ok(Done { segments: pruned.segments, messages: pruned.messages, carried: pruned.carried, ..Done::default() })
    }

    /// Everything is looked at and decided before anything is changed: what is refused has changed nothing.
    async fn replay(&self, request: &ReplayRequest) -> Result<Done, String> {
        let edit = match &request.edit {
            Some(edit) => Some(self.read_edit(request, edit).await?),
            None => None,
        };
        let (mut new, mut again) = (Vec::new(), Vec::new());
        for item in &request.items {
            let record = self.record(item.message).await?;
            if record.deliveries.is_empty() && matches!(record.disposition, Disposition::Unrouted | Disposition::Filtered) {
                let content = edit.as_ref().map_or_else(|| record.content().expose().clone(), |edit| edit.bytes.expose().clone());
                let ways: Vec<_> =
                    self.ways(&record, content).await?.into_iter().filter(|w| request.target.as_deref().is_none_or(|t| t == &*w.target)).collect();
                if !ways.is_empty() {
                    new.push((record.id, ways));
                }
            }
            again.extend(record.deliveries.into_iter().filter(|d| is_given_up(d.state) && item.means(request, d)).map(GivenUp::from));
        }
        let widened = |number: u16| edit.iter().flat_map(|edit| &edit.keys).filter(move |(of, _)| *of == number).flat_map(|(_, keys)| keys.iter().copied());
        let reopening: Vec<_> = again.iter().map(|d| Reopening { id: d.id, keys: widened(d.id.number).collect() }).collect();
        let later = self.journal().later_delivered(reopening.clone()).await.map_err(|e| e.to_string())?;
        let mut ids = match request.superseded {
            Superseded::Skip | Superseded::Send => BTreeSet::new(),
            Superseded::Key => {
                let all = self.journal().all_later_delivered(reopening, SENT_ONCE_MORE_MAX).await.map_err(|e| e.to_string())?;
                all.ok_or_else(|| format!("more than {SENT_ONCE_MORE_MAX} deliveries came later, which is too many to send once more; nothing was changed"))?
            }
        };
        let mut done = Done::default();
        let mut superseded = Vec::new();
        for (delivery, later) in again.iter().zip(later) {
            if later.count > 0 {
                let newest = later.newest.map_or(0, |id| id.message.0);
                done.superseded.push(Overridden { message: delivery.id.message.0, target: delivery.target.to_string(), later: later.count, newest });
                if request.superseded == Superseded::Skip {
                    superseded.push(delivery);
                    continue;
                }
            }
            ids.insert(delivery.id);
        }
        // From here on it is done.
        if let (Some(edit), [Item { message, .. }]) = (edit, request.items.as_slice()) {
            self.journal().edit(MessageId(*message), edit).await.map_err(|e| match e {
                JournalError::Missing => format!("message {message} is under way at this moment; nothing was changed"),
                e => e.to_string(),
            })?;
        }
        for (message, ways) in new {
            done.deliveries += self.add(message, ways).await.map_err(|e| e.to_string())?;
        }
        for delivery in superseded {
            self.supersede(delivery).await?;
        }
        let how = Replay { at: now(), by: request.by.clone(), as_received: request.as_received, delivered_too: request.superseded == Superseded::Key };
        let ids: Vec<DeliveryId> = ids.into_iter().collect();
        done.deliveries += match self {
            Self::Running(context) => context.engine.replay(&ids, &how).await,
            Self::Alone(journal, _) => journal.replay(&ids, &how).await,
        }
        .map_err(|e| e.to_string())?;
        tracing::info!(deliveries = done.deliveries, superseded = done.superseded.len(), "replayed on request");
        Ok(done)
    }

    /// A later message was delivered: what an older one says is no news any more. What waited behind it goes on.
    async fn supersede(&self, delivery: &GivenUp) -> Result<(), String> {
        if delivery.state == DeliveryState::Superseded {
            return Ok(());
        }
        let settle = Settle { delivery: delivery.id, at: now(), program: None, outcome: Settlement::Superseded };
        self.journal().settle(settle).await.map_err(|e| e.to_string())?;
        self.resume(&delivery.target, &delivery.keys).await
    }

    /// What waited behind a delivery goes on.
    async fn resume(&self, target: &str, keys: &[OrderKey]) -> Result<(), String> {
        let resumed = match self {
            Self::Running(context) => context.engine.resume_parked(target, keys).await,
            Self::Alone(journal, _) => journal.resume_parked(target, keys, now()).await,
        };
        match resumed {
            // The site has this target no more; what is parked for it stays so.
            Ok(_) | Err(JournalError::Missing) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// What an operator made of a message, which stays as it was received, and the keys that keep it in order.
    async fn read_edit(&self, request: &ReplayRequest, edit: &str) -> Result<Edit, String> {
        let [Item { message: number, .. }] = request.items.as_slice() else { return Err("one message at a time can be edited".to_owned()) };
        let record = self.record(*number).await?;
        if matches!(record.disposition, Disposition::Refused { .. }) {
            return Err(format!("message {number} was refused: its sender still has it, and it is nowhere to be delivered"));
        }
        if let Some(waits) = record.deliveries.iter().find(|d| d.state == DeliveryState::Pending) {
            return Err(format!("a delivery of message {number} to {} waits or is under way; edit the message when that has come to its end", waits.target));
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(edit).map_err(|_| "the edited message cannot be read".to_owned())?;
        let bytes = Bytes::from(bytes);
        let listener = &record.envelope.listener;
        let message = Message::parse(bytes.clone(), &self.parse_options(listener)).map_err(|fault| format!("the edited message cannot be read: {fault}"))?;
        let mut keys = Vec::new();
        if let Some(routes) = self.routes().await? {
            keys = record.deliveries.iter().map(|d| (d.id.number, keys_by(&routes, &d.route, &message, listener, self.journal().secret()))).collect();
        }
        Ok(Edit { at: now(), by: request.by.clone(), bytes: Phi::new(bytes), keys })
    }

    async fn known(&self, table: Option<&str>, codes: &[String]) -> Result<Done, String> {
        let list = table.map_or(UnknownList::Systems, |name| UnknownList::Table(name.to_owned()));
        let mut done = Done::default();
        for code in codes {
            done.messages += self.journal().forget_unknown(list.clone(), Some(Phi::new(code.clone()))).await.map_err(|e| e.to_string())?;
        }
        Ok(done)
    }

    /// The routes in force; `None` for a journal that no daemon ever ran on.
    async fn routes(&self) -> Result<Option<Arc<Routes>>, String> {
        match self {
            Self::Running(context) => Ok(Some(context.engine.routes())),
            Self::Alone(journal, _) => Routes::last_applied(journal).await.map(|routes| routes.map(Arc::new)).map_err(|e| e.to_string()),
        }
    }

    fn parse_options(&self, listener: &Arc<str>) -> ParseOptions {
        match self {
            Self::Running(context) => context.engine.parse_options(listener),
            Self::Alone(_, rules) => rules.manners.get(listener).copied().unwrap_or_default(),
        }
    }

    async fn add(&self, id: MessageId, ways: Vec<NewDelivery>) -> Result<u64, JournalError> {
        match self {
            Self::Running(context) => context.engine.add_deliveries(id, ways).await,
            Self::Alone(journal, _) => journal.add_deliveries(id, ways).await.map(|ids| ids.len() as u64),
        }
    }

    /// Where the routes in force would send it.
    async fn ways(&self, record: &MessageRecord, content: Bytes) -> Result<Vec<NewDelivery>, String> {
        let Some(routes) = self.routes().await? else { return Ok(Vec::new()) };
        let listener = &record.envelope.listener;
        let Ok(message) = Message::parse(content, &self.parse_options(listener)) else { return Ok(Vec::new()) };
        let taken = routes.set.matching(listener, &message).taken;
        Ok(deliveries(&routes, &taken, &message, listener, self.journal().secret()))
    }

    async fn skip(&self, request: &ReplayRequest) -> Result<Done, String> {
        let mut done = Done::default();
        for item in &request.items {
            let record = self.record(item.message).await?;
            for d in record.deliveries.iter().filter(|d| d.state == DeliveryState::DeadLetter && item.means(request, d)) {
                let reason = if request.by.is_empty() { "given up by an operator".to_owned() } else { format!("given up by {}", request.by) };
                let settle = Settle { delivery: d.id, at: now(), program: None, outcome: Settlement::Skipped { reason } };
                self.journal().settle(settle).await.map_err(|e| e.to_string())?;
                self.resume(&d.target, &d.keys).await?;
                done.deliveries += 1;
            }
        }
        tracing::info!(deliveries = done.deliveries, "skipped on request");
        Ok(done)
    }
}

impl Item {
    /// Whether a delivery is among those that are meant.
    fn means(&self, request: &ReplayRequest, delivery: &DeliveryRecord) -> bool {
        request.target.as_deref().is_none_or(|target| target == &*delivery.target)
            && self.deliveries.as_ref().is_none_or(|numbers| numbers.contains(&delivery.id.number))
    }
}

fn is_given_up(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::DeadLetter | DeliveryState::Skipped | DeliveryState::Superseded)
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
