//! What commands do to a journal: with the daemon's engine, which keeps its queues in order meanwhile, or with the lock when no daemon runs.

use crate::cli::control::{Done, Ears, Item, Overridden, Request, Rules, Superseded, Wish};
use crate::engine::{Routes, deliveries, keys_by};
use crate::exchange::{DeliveryId, MessageId, Phi, Timestamp};
use crate::hl7v2::{Message, ParseOptions};
use crate::journal::{
    DeliveryRecord, DeliveryState, Disposition, Edit, Journal, JournalError, MessageRecord, NewDelivery, Replay, Settle, Settlement, UnknownList,
};
use base64::Engine as _;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Who changes the journal: a running engine keeps its queues in order meanwhile, a journal alone has none.
pub(crate) enum Hands<'a> {
    Running(&'a Ears),
    Alone(&'a Journal, &'a Rules),
}

impl Hands<'_> {
    /// Does what is asked.
    pub(crate) async fn apply(&self, request: &Request) -> Result<Done, String> {
        match request {
            Request::Prune => self.prune().await,
            Request::Reload => self.reload().await,
            Request::Status => Ok(Done::default()),
            Request::Import { .. } => Err("an import needs a connection of its own".to_owned()),
            Request::Replay(wish) => self.replay(wish).await,
            Request::Skip(wish) => self.skip(wish).await,
            Request::Known { table, codes } => self.known(table.as_deref(), codes).await,
        }
    }

    fn journal(&self) -> &Journal {
        match self {
            Self::Running(ears) => ears.engine.journal(),
            Self::Alone(journal, _) => journal,
        }
    }

    async fn record(&self, number: u64) -> Result<MessageRecord, String> {
        self.journal().show(MessageId(number)).await.map_err(|e| format!("message {number}: {e}"))
    }

    async fn reload(&self) -> Result<Done, String> {
        let Self::Running(ears) = self else { return Err("no daemon runs on this journal".to_owned()) };
        let (ask, answer) = oneshot::channel();
        let deaf = |_| "this daemon has no site file to read again";
        ears.reloads.send(ask).await.map_err(|_| deaf(()))?;
        let said = answer.await.map_err(|_| "the daemon stopped before it answered")??;
        Ok(Done { said, ..Done::default() })
    }

    async fn prune(&self) -> Result<Done, String> {
        let pruned = self.journal().prune(now()).await.map_err(|e| e.to_string())?;
        tracing::info!(segments = pruned.segments, messages = pruned.messages, "pruned on request");
        Ok(Done { segments: pruned.segments, messages: pruned.messages, carried: pruned.carried, ..Done::default() })
    }

    async fn replay(&self, wish: &Wish) -> Result<Done, String> {
        if let Some(edit) = &wish.edit {
            self.edit(wish, edit).await?;
        }
        let mut done = Done::default();
        let mut again = Vec::new();
        for item in &wish.items {
            let record = self.record(item.message).await?;
            if record.deliveries.is_empty() && matches!(record.disposition, Disposition::Unrouted | Disposition::Filtered) {
                let ways: Vec<_> = self.ways(&record).await?.into_iter().filter(|w| wish.target.as_deref().is_none_or(|t| t == &*w.target)).collect();
                if !ways.is_empty() {
                    done.deliveries += self.add(record.id, ways).await.map_err(|e| e.to_string())?;
                }
            }
            again.extend(record.deliveries.into_iter().filter(|d| is_given_up(d.state) && item.means(wish, d)));
        }
        let mut how = Replay { at: now(), by: wish.by.clone(), as_received: wish.as_received, delivered_too: false };
        let ids: Vec<_> = again.iter().map(|d| d.id).collect();
        let later = self.journal().later_delivered(&ids).await.map_err(|e| e.to_string())?;
        let mut ids = BTreeSet::new();
        for (delivery, later) in again.iter().zip(later) {
            let newest = later.deliveries.last().map_or(0, |d| d.message.0);
            if later.count > 0 {
                let target = delivery.target.to_string();
                done.superseded.push(Overridden { message: delivery.id.message.0, target, later: later.count, newest });
            }
            match wish.superseded {
                Superseded::Skip if later.count > 0 => {
                    self.supersede(delivery).await?;
                    continue;
                }
                Superseded::Key if later.count > later.deliveries.len() as u64 => {
                    let (message, count) = (delivery.id.message.0, later.count);
                    return Err(format!("{count} deliveries came after message {message}, which is too many to send once more; nothing was replayed"));
                }
                Superseded::Key => ids.extend(later.deliveries),
                Superseded::Skip | Superseded::Send => {}
            }
            ids.insert(delivery.id);
        }
        how.delivered_too = wish.superseded == Superseded::Key;
        let ids: Vec<DeliveryId> = ids.into_iter().collect();
        done.deliveries += match self {
            Self::Running(ears) => ears.engine.replay(&ids, &how).await,
            Self::Alone(journal, _) => journal.replay(&ids, &how).await,
        }
        .map_err(|e| e.to_string())?;
        tracing::info!(deliveries = done.deliveries, superseded = done.superseded.len(), "replayed on request");
        Ok(done)
    }

    /// A later message was delivered: what an older one says is no news any more. What waited behind it goes on.
    async fn supersede(&self, delivery: &DeliveryRecord) -> Result<(), String> {
        if delivery.state == DeliveryState::Superseded {
            return Ok(());
        }
        let settle = Settle { delivery: delivery.id, at: now(), program: None, outcome: Settlement::Superseded };
        self.journal().settle(settle).await.map_err(|e| e.to_string())?;
        self.resume(delivery).await
    }

    /// What waited behind a delivery goes on.
    async fn resume(&self, delivery: &DeliveryRecord) -> Result<(), String> {
        let resumed = match self {
            Self::Running(ears) => ears.engine.resume_parked(&delivery.target, &delivery.keys).await,
            Self::Alone(journal, _) => journal.resume_parked(&delivery.target, &delivery.keys, now()).await,
        };
        match resumed {
            // The site has this target no more; what is parked for it stays so.
            Ok(_) | Err(JournalError::Missing) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Keeps what an operator made of a message, which stays as it was received.
    async fn edit(&self, wish: &Wish, edit: &str) -> Result<(), String> {
        let [Item { message: number, .. }] = wish.items.as_slice() else { return Err("one message at a time can be edited".to_owned()) };
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
        let edit = Edit { at: now(), by: wish.by.clone(), bytes: Phi::new(bytes), keys };
        self.journal().edit(record.id, edit).await.map_err(|e| match e {
            JournalError::Missing => format!("message {number} is under way at this moment; nothing was changed"),
            e => e.to_string(),
        })
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
            Self::Running(ears) => Ok(Some(ears.engine.routes())),
            Self::Alone(journal, _) => Routes::last_applied(journal).await.map(|routes| routes.map(Arc::new)).map_err(|e| e.to_string()),
        }
    }

    fn parse_options(&self, listener: &Arc<str>) -> ParseOptions {
        match self {
            Self::Running(ears) => ears.engine.parse_options(listener),
            Self::Alone(_, rules) => rules.manners.get(listener).copied().unwrap_or_default(),
        }
    }

    async fn add(&self, id: MessageId, ways: Vec<NewDelivery>) -> Result<u64, JournalError> {
        match self {
            Self::Running(ears) => ears.engine.add_deliveries(id, ways).await,
            Self::Alone(journal, _) => journal.add_deliveries(id, ways).await.map(|ids| ids.len() as u64),
        }
    }

    /// Where the routes in force would send it.
    async fn ways(&self, record: &MessageRecord) -> Result<Vec<NewDelivery>, String> {
        let Some(routes) = self.routes().await? else { return Ok(Vec::new()) };
        let listener = &record.envelope.listener;
        let Ok(message) = Message::parse(record.content().expose().clone(), &self.parse_options(listener)) else { return Ok(Vec::new()) };
        let taken = routes.set.matching(listener, &message).taken;
        Ok(deliveries(&routes, &taken, &message, listener, self.journal().secret()))
    }

    async fn skip(&self, wish: &Wish) -> Result<Done, String> {
        let mut done = Done::default();
        for item in &wish.items {
            let record = self.record(item.message).await?;
            for d in record.deliveries.iter().filter(|d| d.state == DeliveryState::DeadLetter && item.means(wish, d)) {
                let reason = if wish.by.is_empty() { "given up by an operator".to_owned() } else { format!("given up by {}", wish.by) };
                let settle = Settle { delivery: d.id, at: now(), program: None, outcome: Settlement::Skipped { reason } };
                self.journal().settle(settle).await.map_err(|e| e.to_string())?;
                self.resume(d).await?;
                done.deliveries += 1;
            }
        }
        tracing::info!(deliveries = done.deliveries, "skipped on request");
        Ok(done)
    }
}

impl Item {
    /// Whether a delivery is among those that are meant.
    fn means(&self, wish: &Wish, delivery: &DeliveryRecord) -> bool {
        wish.target.as_deref().is_none_or(|target| target == &*delivery.target)
            && self.deliveries.as_ref().is_none_or(|numbers| numbers.contains(&delivery.id.number))
    }
}

fn is_given_up(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::DeadLetter | DeliveryState::Skipped | DeliveryState::Superseded)
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
