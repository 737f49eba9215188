//! Batch and single: level by level, each resource after those that it refers to.
//!
//! Servers resolve conditional references and `urn:uuid:` in transactions only, so everything is looked up first and then addressed by id.

use crate::fhir::{BundleKind, Json, Node, Save, SaveMode, Saves, Step, type_named, write_bundle};
use crate::target::fhir::answer::{Answer, Place, entry_place};
use crate::target::fhir::http::Effect;
use crate::target::fhir::judge::{Asked, setback, still_referred, word};
use crate::target::fhir::read::{may_refuse_patches, may_stumble_over_patches};
use crate::target::fhir::transaction::{accept, is_gone, outdated};
use crate::target::fhir::{FhirTarget, Work};
use crate::target::{Fault, Retry, Sending, Setback};
use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use serde_json::Value;

impl FhirTarget {
    pub(crate) async fn stepwise(&self, work: &mut Work<'_>, send: Sending) -> Result<(), Setback> {
        let finds: Vec<usize> = (0..work.steps.len()).filter(|n| matches!(&work.steps[*n], Step::Refer(r) if r.contains('?'))).collect();
        for n in finds {
            self.resolve(work, n).await?;
        }
        let mut waiting: Vec<usize> = (0..work.steps.len()).filter(|n| work.steps[*n].writes()).collect();
        let mut open: Vec<usize> = Vec::new();
        while let Some(first) = waiting.first().copied() {
            let ready: Vec<usize> = waiting.iter().copied().filter(|n| needs(&work.saves.entries[*n]).iter().all(|m| !waiting.contains(m))).collect();
            // A cycle: one of them goes first, without the references that close it.
            let level = if ready.is_empty() {
                open.push(first);
                vec![first]
            } else {
                apart(work.saves, &ready)
            };
            let saves = without_links(work.saves, &level, &waiting);
            self.write_level(work, &saves, &level, send).await?;
            waiting.retain(|n| !level.contains(n));
        }
        for n in open {
            self.close_cycle(work, n).await?;
        }
        Ok(())
    }

    /// Looks up and writes entries that do not refer to each other.
    async fn write_level(&self, work: &mut Work<'_>, saves: &Saves, level: &[usize], send: Sending) -> Result<(), Setback> {
        for &n in level {
            let mode = saves.entries[n].mode;
            let unknown = match &work.steps[n] {
                Step::PutWhere | Step::DeleteWhere => true,
                Step::Post { once } => *once && work.job.after_ambiguous,
                Step::Put { .. } | Step::Patch(_) | Step::Delete { .. } => mode.keeps_the_rest() || (work.job.after_ambiguous && mode != SaveMode::Put),
                Step::Refer(_) => false,
            };
            if !unknown {
                continue;
            }
            if let Some(current) = self.resolve(work, n).await? {
                let links = reference(work);
                work.change(n, &saves.entries[n], current, &links, self.patch_format(&saves.entries[n]));
            }
        }
        let level: Vec<usize> = level.iter().copied().filter(|n| work.steps[*n].writes()).collect();
        if level.is_empty() {
            return Ok(());
        }
        if send == Sending::Batch { self.write_batch(work, saves, &level).await } else { self.write_single(work, saves, &level).await }
    }

    async fn write_single(&self, work: &mut Work<'_>, saves: &Saves, level: &[usize]) -> Result<(), Setback> {
        for &n in level {
            let save = &saves.entries[n];
            let mut answer = self.request(work, save, n).await?;
            if may_stumble_over_patches(answer.status) && self.is_refused_patch(work, n).await? && work.send_whole(n) {
                answer = self.request(work, save, n).await?;
                if answer.is_success() {
                    self.never_patch_again();
                }
            }
            if !answer.is_success() && !is_gone(work, n, answer.status) {
                return Err(self.refused_one(work, &answer, n).await.about(&[n]));
            }
            let place = answer.place();
            self.take(work, &answer, n, place)?;
        }
        Ok(())
    }

    async fn request(&self, work: &Work<'_>, save: &Save, n: usize) -> Result<Answer, Setback> {
        let step = &work.steps[n];
        let request = step.request(save).expect("only entries that write are sent");
        let method = reqwest::Method::from_bytes(request.method.as_bytes()).expect("POST, PUT, PATCH and DELETE are methods");
        let mut http = self.client.request(method, format!("{}/{}", self.base, request.url)).header("Prefer", "return=minimal");
        if let Some(criterion) = request.if_none_exist {
            http = http.header("If-None-Exist", criterion);
        }
        if let Some(etag) = request.if_match {
            http = http.header(IF_MATCH, etag);
        }
        let mut body = Json::default();
        if let Step::Patch(change) = step {
            http = http.header(CONTENT_TYPE, change.patch.content_type()).body(change.patch.content().to_string());
        } else if step.write_resource(save, &reference(work), &mut body) {
            return self.send_json(http.header(CONTENT_TYPE, "application/fhir+json"), body, Effect::Writes).await;
        }
        self.send(http, Effect::Writes).await
    }

    /// True for a patch whose resource is still the one that it was made for: what the server does not like is the patch.
    async fn is_refused_patch(&self, work: &Work<'_>, n: usize) -> Result<bool, Setback> {
        let (Some(Step::Patch(change)), Some(save)) = (work.steps.get(n), work.saves.entries.get(n)) else { return Ok(false) };
        Ok(!self.is_outdated(save.resource_type, change).await?)
    }

    /// The answer, and the entries that were sent in their order.
    async fn post_batch(&self, work: &Work<'_>, saves: &Saves, level: &[usize]) -> Result<(Answer, Vec<usize>), Setback> {
        let mut body = Json::default();
        let sent = write_bundle(BundleKind::Batch, saves, &work.steps, work.job.delivery, &|n| level.contains(&n), &reference(work), &mut body);
        Ok((self.post_bundle(body).await?, sent))
    }

    async fn write_batch(&self, work: &mut Work<'_>, saves: &Saves, level: &[usize]) -> Result<(), Setback> {
        let (mut answer, mut sent) = self.post_batch(work, saves, level).await?;
        // Some servers judge a batch as a whole before they do any of it.
        if may_refuse_patches(answer.status) && answer.is_fhir() && level.iter().any(|n| matches!(work.steps[*n], Step::Patch(_))) {
            if let Some(outdated) = self.find_outdated(work, &answer).await {
                return Err(outdated);
            }
            if self.without_patches(work).await? {
                (answer, sent) = self.post_batch(work, saves, level).await?;
            }
        }
        let Some(entries) = answer.entries("batch-response", sent.len()) else { return Err(setback(&answer, Asked::Endpoint, "the batch").about(&sent)) };
        let mut worst: Option<Setback> = None;
        let mut alone = Vec::new();
        for (entry, &n) in entries.iter().zip(&sent) {
            let place = entry_place(entry);
            let failed = if (200..300).contains(&place.status) || is_gone(work, n, place.status) {
                self.take(work, &answer, n, place).err()
            } else if may_stumble_over_patches(place.status) && self.is_refused_patch(work, n).await? {
                alone.push(n);
                None
            } else {
                let one = entry_answer(entry, place.status);
                Some(self.refused_one(work, &one, n).await.about(&[n]))
            };
            // What can heal is tried again first: only then is the message to blame.
            if let Some(failed) = failed.filter(|f| worst.as_ref().is_none_or(|w| w.retry == Retry::Permanent && f.retry != Retry::Permanent)) {
                worst = Some(failed);
            }
        }
        // A patch that a batch's entry could not carry is tried as a request of its own.
        if let Err(failed) = self.write_single(work, saves, &alone).await
            && worst.as_ref().is_none_or(|w| w.retry == Retry::Permanent && failed.retry != Retry::Permanent)
        {
            worst = Some(failed);
        }
        worst.map_or(Ok(()), Err)
    }

    /// Takes a 2xx for one entry: later entries may now refer to it by id.
    fn take(&self, work: &mut Work<'_>, answer: &Answer, n: usize, place: Place) -> Result<(), Setback> {
        let save = &work.saves.entries[n];
        let id = work.steps[n].id().map(str::to_owned).or_else(|| place.id.clone());
        if let Some(late) = accept(work, n, place.id, place.etag, place.status) {
            return Err(late);
        }
        match (save.mode, id) {
            (SaveMode::Delete, _) => work.steps[n] = Step::Refer(String::new()),
            (_, Some(id)) => work.steps[n] = Step::Refer(format!("{}/{id}", save.resource_type)),
            (_, None) => {
                let summary = format!("the server saved '{}', but does not say under which id", save.name);
                return Err(answer.setback(Retry::Ambiguous, Fault::Target, "not-promised", summary));
            }
        }
        Ok(())
    }

    /// Why one entry was refused.
    async fn refused_one(&self, work: &mut Work<'_>, answer: &Answer, n: usize) -> Setback {
        let name = format!("the saving of '{}'", work.saves.entries[n].name);
        let by_id = work.steps[n].id().is_some();
        if let (true, Step::Patch(change)) = (may_refuse_patches(answer.status), &work.steps[n]) {
            match self.is_outdated(work.saves.entries[n].resource_type, change).await {
                Ok(true) => {
                    work.forget(n);
                    return outdated(answer);
                }
                Ok(false) => {}
                Err(setback) => return setback,
            }
        }
        let asked = if by_id { Asked::Instance } else { Asked::Endpoint };
        match answer.status {
            409 if matches!(work.steps[n], Step::Delete { .. } | Step::DeleteWhere) => still_referred(answer),
            // HAPI says 409 to an If-Match that is old.
            409 | 412 if by_id => {
                work.forget(n);
                answer.setback(Retry::Transient, Fault::Race, word(answer.status), "somebody else changed the resource in between; it is read again")
            }
            412 => self.explain_412(work, answer, &[n]).await,
            400 | 404 | 405 | 409 | 410 | 422 if answer.is_fhir() => self.find_stale(work, answer).await.unwrap_or_else(|| setback(answer, asked, &name)),
            _ => setback(answer, asked, &name),
        }
    }

    /// Writes the whole resource, now that all it refers to exists. One that was only found stays as it is.
    async fn close_cycle(&self, work: &mut Work<'_>, n: usize) -> Result<(), Setback> {
        let save = &work.saves.entries[n];
        let Some(saved) = work.saved.iter().find(|s| s.entry == n).cloned() else { return Ok(()) };
        if save.mode == SaveMode::Delete || (save.mode == SaveMode::CreateIfNone && saved.status != 201) {
            return Ok(());
        }
        let (id, etag) = (saved.id.clone(), saved.etag.clone());
        if save.mode.keeps_the_rest() {
            let Some(found) = self.get(save.resource_type, &id).await? else { return Ok(()) };
            work.steps[n] = Step::Put { id, etag: found.etag, body: None };
            let links = reference(work);
            work.change(n, save, found.resource, &links, self.patch_format(save));
            if !work.steps[n].writes() {
                return Ok(());
            }
        } else {
            work.steps[n] = Step::Put { id, etag, body: None };
        }
        // Until the link is there, the entry is not done: the next attempt writes it again.
        work.saved.retain(|s| s.entry != n);
        self.write_single(work, work.saves, &[n]).await
    }
}

/// The reference string for each entry: its id, which all that are referred to have by now.
fn reference(work: &Work<'_>) -> impl Fn(usize) -> String + use<> {
    let ids: Vec<String> =
        work.saves.entries.iter().zip(&work.steps).map(|(save, step)| step.id().map_or(String::new(), |id| format!("{}/{id}", save.resource_type))).collect();
    move |n| ids.get(n).cloned().unwrap_or_default()
}

fn needs(save: &Save) -> Vec<usize> {
    let mut all = Vec::new();
    if save.mode != SaveMode::Delete {
        save.body.links(&mut |n| all.push(n));
        if let Some(initial) = &save.initial {
            initial.links(&mut |n| all.push(n));
        }
    }
    all
}

/// Without those that are the same resource as an earlier one: they follow in a level of their own.
fn apart(saves: &Saves, ready: &[usize]) -> Vec<usize> {
    let mut level: Vec<usize> = Vec::new();
    for &n in ready {
        if !level.iter().any(|m| saves.entries[*m].same_resource(&saves.entries[n])) {
            level.push(n);
        }
    }
    level
}

/// The entries of a level without references to what is not there yet.
fn without_links(saves: &Saves, level: &[usize], waiting: &[usize]) -> Saves {
    let mut saves = saves.clone();
    for &n in level {
        let entry = &mut saves.entries[n];
        let keep = |m: usize| !waiting.contains(&m);
        let t = type_named(entry.resource_type);
        let cut = |node: &Node| node.without_links(&keep, t).unwrap_or_else(|| Node::Object(Vec::new()));
        if needs(entry).iter().any(|m| !keep(*m)) {
            entry.body = cut(&entry.body);
            entry.initial = entry.initial.as_ref().map(cut);
        }
    }
    saves
}

/// An entry of a batch's answer, as if it had come alone.
fn entry_answer(entry: &Value, status: u16) -> Answer {
    let body = entry.pointer("/response/outcome").or_else(|| entry.get("resource")).cloned();
    Answer {
        status,
        etag: None,
        location: None,
        retry_after: None,
        text: crate::exchange::Phi::new(body.as_ref().map(Value::to_string).unwrap_or_default()),
        body,
    }
}
