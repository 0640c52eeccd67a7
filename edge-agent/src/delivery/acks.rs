//! The lake's answers: what it holds is compared with what was sent.

use std::collections::{BTreeMap, BTreeSet};

use ribera_storage::batch::{Ack, AckOutcome, Facts, QuarantineReason};
use ribera_storage::hex::sha256_hex;
use ribera_storage::object::ObjectPath;
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, Unit, paths};

use crate::agent::Agent;
use crate::journal::BatchRow;
use crate::plan::{LakeState, TRIES_MAX, has_passed};
use crate::ports::step;
use crate::report::{Problem, Stage, UploadReport};

/// Up to so many answers of a stream are asked for one by one; more are listed first.
const ASKED_SINGLY_MAX: usize = 3;
const LIST_PAGE: usize = 1000;
/// Answers are asked for again after this part of the time that the newest batch has waited, at most so long.
const ASK_AGAIN_AFTER: i64 = 4;
const ASK_AGAIN_S_MAX: i64 = 900;

impl<S: ObjectStore> Agent<S> {
    /// Asks for the answers that are awaited, acts on them and deletes what is done with.
    /// Returns what the lake refused or altered.
    pub async fn read_acks(&self, stores: &[StoreId], report: &mut UploadReport) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let mut streams: BTreeMap<(StoreId, DatasetName), Vec<BatchRow>> = BTreeMap::new();
        for batch in self.journal.awaiting_ack(&self.served_ids(stores))? {
            streams.entry((batch.store().clone(), batch.dataset().clone())).or_default().push(batch);
        }
        for ((store, dataset), batches) in streams {
            if !self.answers_are_due(&batches) {
                continue;
            }
            let answered = match self.answered(&batches).await {
                // What may not be read of one store says nothing of the others.
                Err(error) if error.kind() == ribera_storage::ErrorKind::Config => {
                    problems.push(Problem::new(Stage::Upload, &error).of(&store, Some(&dataset)));
                    continue;
                }
                answered => answered?,
            };
            for (batch, path) in batches.iter().zip(answered) {
                let Some(path) = path else { continue };
                self.ports.fail_points.hit(step::ACK_READ)?;
                let Some(bytes) = self.with_retries(async || self.ports.objects.get(&path).await).await? else {
                    continue;
                };
                let ack: Ack = match serde_json::from_slice(&bytes) {
                    Ok(ack) => ack,
                    // Not an answer (a portal's page, say): ask again later.
                    Err(error) => {
                        self.log(format!("{path}: is not an acknowledgement: {error}"));
                        continue;
                    }
                };
                match self.accept(batch, &ack, report).await? {
                    Answer::Taken(problem) => {
                        report.acknowledged += 1;
                        problems.extend(problem.map(|problem| problem.of(&store, Some(&dataset))));
                    }
                    // The stream's other batches wait under new numbers now.
                    Answer::NewEpoch => break,
                }
            }
        }
        Ok(problems)
    }

    /// Whether to ask for a stream's answers now: at first each time, then ever less often. A centre that is away for
    /// days must not cost a request per stream and tick.
    fn answers_are_due(&self, batches: &[BatchRow]) -> bool {
        let (Some(first), Some(sent_at)) = (batches.first(), batches.iter().map(|batch| batch.updated_at).max()) else {
            return false;
        };
        let now = self.ports.clock.now();
        let stream = (first.store().clone(), first.dataset().clone());
        let mut asked_at = self.answers_asked_at.borrow_mut();
        let is_due = asked_at.get(&stream).is_none_or(|asked_at| {
            let waited_s = now.duration_since(sent_at).as_secs();
            has_passed((waited_s / ASK_AGAIN_AFTER).clamp(0, ASK_AGAIN_S_MAX), *asked_at, now)
        });
        if is_due {
            asked_at.insert(stream, now);
        }
        is_due
    }

    /// Per batch: the path of its answer if there may be one.
    async fn answered(&self, batches: &[BatchRow]) -> Result<Vec<Option<ObjectPath>>> {
        let paths = batches.iter().map(|batch| paths::ack(&batch.manifest.batch)).collect::<Result<Vec<_>>>()?;
        let (Some(first), true) = (paths.first(), paths.len() > ASKED_SINGLY_MAX) else {
            return Ok(paths.into_iter().map(Some).collect());
        };
        let prefix = first.as_str().trim_end_matches(first.file_name()).to_owned();
        // Just before the first: its name without the extension sorts there.
        let mut after = first.as_str().trim_end_matches(".json").to_owned();
        let mut present = BTreeSet::new();
        loop {
            let page =
                self.with_retries(async || self.ports.objects.list(&prefix, Some(&after), LIST_PAGE).await).await?;
            let full = page.len() >= LIST_PAGE;
            present.extend(page.into_iter().map(|meta| meta.path));
            match present.last() {
                Some(last) if full => after = last.as_str().to_owned(),
                _ => break,
            }
        }
        Ok(paths.into_iter().map(|path| present.contains(&path).then_some(path)).collect())
    }

    async fn accept(&self, batch: &BatchRow, ack: &Ack, report: &mut UploadReport) -> Result<Answer> {
        let now = self.ports.clock.now();
        let ours = sha256_hex(batch.text.as_bytes());
        let (store, dataset) = (batch.store(), batch.dataset());
        let cloned = matches!(ack.outcome, AckOutcome::Quarantined { reason: QuarantineReason::ClonedJournal, .. });
        let latest = self.latest_units(batch)?;
        // Whoever superseded our newest extraction was not us.
        let overtaken = ack.outcome == AckOutcome::Superseded && !latest.is_empty();
        if cloned || ack.manifest_sha256 != ours || overtaken {
            self.leave_epoch(store, dataset, report).await?;
            return Ok(Answer::NewEpoch);
        }
        let (outcome, units, problem) = match &ack.outcome {
            AckOutcome::Committed { units, .. } => {
                let compared = compare(batch, units);
                let problem = altered(&compared, batch);
                ("committed".to_owned(), compared, problem)
            }
            AckOutcome::Superseded => ("superseded".to_owned(), Vec::new(), None),
            AckOutcome::Quarantined { reason, detail } => {
                let units = batch.manifest.units.iter().map(|facts| (facts.unit, LakeState::Quarantined)).collect();
                (format!("quarantined: {}: {detail}", reason.as_str()), units, Some(refused(batch, *reason, detail)))
            }
        };
        let repairable = match &ack.outcome {
            AckOutcome::Quarantined { reason, .. } => lost_on_the_way(*reason),
            _ => true,
        };
        let again = self.to_repeat(batch, &units, &latest, repairable).await?;
        self.journal.acknowledge(batch, &outcome, &units, &again, now)?;
        self.prune(&batch.file)?;
        if let Some(problem) = &problem {
            self.log(format!("store {store}, dataset {dataset}: {}", problem.message));
        }
        Ok(Answer::Taken(problem))
    }

    /// Units of the batch that were not extracted again since, with the tries they had.
    fn latest_units(&self, batch: &BatchRow) -> Result<BTreeMap<Unit, u32>> {
        let known = self.journal.all_units_of_batch(batch.id)?;
        Ok(known.into_iter().collect())
    }

    /// Units to extract again by themselves: those that the lake does not hold as sent, unless the
    /// store's gaps are to be left alone, or it was tried often enough.
    async fn to_repeat(
        &self,
        batch: &BatchRow,
        units: &[(Unit, LakeState)],
        latest: &BTreeMap<Unit, u32>,
        repairable: bool,
    ) -> Result<BTreeSet<Unit>> {
        let troubled = units.iter().filter(|(_, lake)| *lake != LakeState::Agrees).map(|(unit, _)| *unit);
        let again: BTreeSet<Unit> =
            troubled.filter(|unit| latest.get(unit).is_some_and(|tries| *tries + 1 < TRIES_MAX)).collect();
        if again.is_empty() || !repairable {
            return Ok(BTreeSet::new());
        }
        let Some(store) = self.config.store(batch.store()) else { return Ok(BTreeSet::new()) };
        let held = self.calendar(store).await?.hold_repair;
        Ok(if held { BTreeSet::new() } else { again })
    }
}

enum Answer {
    Taken(Option<Problem>),
    NewEpoch,
}

/// What the lake says it holds beside what was sent.
fn compare(batch: &BatchRow, lake: &[(Unit, Facts)]) -> Vec<(Unit, LakeState)> {
    let lake: BTreeMap<Unit, &Facts> = lake.iter().map(|(unit, facts)| (*unit, facts)).collect();
    let state = |unit, sent: &Facts| match lake.get(&unit) {
        Some(held) if held.agrees_with(sent) => LakeState::Agrees,
        _ => LakeState::Differs,
    };
    batch.manifest.units.iter().map(|facts| (facts.unit, state(facts.unit, &facts.file))).collect()
}

fn altered(units: &[(Unit, LakeState)], batch: &BatchRow) -> Option<Problem> {
    let (unit, _) = units.iter().find(|(_, lake)| *lake == LakeState::Differs)?;
    let error = Error::data(format!(
        "batch {}: the lake holds other rows or sums of {unit} than were sent",
        batch.manifest.batch
    ))
    .with_hint(format!("ribera verify --store {}", batch.store()));
    Some(Problem::new(Stage::Lake, &error))
}

fn refused(batch: &BatchRow, reason: QuarantineReason, detail: &str) -> Problem {
    let error = Error::reject(format!("batch {}: quarantined as {}: {detail}", batch.manifest.batch, reason.as_str()))
        .with_hint(format!("ribera quarantine show {}", batch.manifest.batch));
    Problem::new(Stage::Lake, &error)
}

/// Reasons that a new extraction and upload can cure.
fn lost_on_the_way(reason: QuarantineReason) -> bool {
    use QuarantineReason::{
        FileAbsent, FileHashMismatch, FileUnreadable, ManifestInvalid, ManifestMisplaced, RowsMismatch, SumsMismatch,
    };
    matches!(
        reason,
        FileAbsent
            | FileHashMismatch
            | FileUnreadable
            | ManifestInvalid
            | ManifestMisplaced
            | RowsMismatch
            | SumsMismatch
    )
}
