//! `ribera-agent audit`: what the source says now, what was last extracted, and what the lake took,
//! side by side. Sends nothing, writes nothing.

use std::collections::BTreeMap;
use std::rc::Rc;

use ribera_storage::batch::{Ack, AckOutcome, Facts};
use ribera_storage::dataset::DatasetKind;
use ribera_storage::{DatasetName, Error, ExactDecimal, ObjectStore, Result, StoreId, Unit, paths};
use serde::Serialize;

use super::{AuditDays, Common, Stopped, checked_days, render, setup};
use crate::agent::{Agent, DatasetContext, ServedStore};
use crate::config::DatasetMapping;
use crate::journal::{LakeState, UnitRow};
use crate::objects::Objects;
use crate::plan::Days;
use crate::report::{Exit, Problem, Stage};
use crate::source::{Fingerprint, pieces};

/// What comes of comparing a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All three agree, and the source's audit proved it.
    Agrees,
    /// The lake has what was sent, but no audit proved it.
    Unproven,
    /// The source changed since, or the day was never sent.
    SourceDiffers,
    /// The lake has not answered yet.
    Waiting,
    /// The lake holds other rows or sums than were sent.
    LakeDiffers,
    /// The lake refused the batch.
    Quarantined,
}

/// One day: rows and sums by column, of each of the three that has them.
#[derive(Debug, Serialize)]
pub struct Audited {
    pub store: StoreId,
    pub dataset: DatasetName,
    pub day: Unit,
    pub source: Facts,
    pub local: Option<Facts>,
    pub lake: Option<Facts>,
    pub verdict: Verdict,
}

/// The answer of `audit --json`.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub days: Vec<Audited>,
    pub problems: Vec<Problem>,
    pub exit_code: u8,
}

pub async fn main(common: &Common, args: &AuditDays) -> Result<Exit, Stopped> {
    let days = checked_days(args.from, args.to)?;
    let ready = setup::agent(&Common { dry_run: true, ..common.clone() })?;
    let agent = &ready.agent;
    let (mut audited, mut problems) = (Vec::new(), Vec::new());
    for store in agent.served(&common.stores) {
        for (name, mapping) in agent.config.datasets(&store.config) {
            if !common.datasets.is_empty() && !common.datasets.contains(name) {
                continue;
            }
            // Each database by itself: one that is away leaves the others alone.
            for piece in pieces(store.source.as_ref(), &days) {
                match audit(agent, store, name, mapping, &piece).await {
                    Ok(found) => audited.extend(found),
                    Err(error) => problems.push(Problem::new(Stage::Source, &error).of(&store.config.id, Some(name))),
                }
            }
        }
    }
    let exit = problems.iter().map(|problem| problem.exit).max();
    let all_agree = audited.iter().all(|one| one.verdict == Verdict::Agrees);
    let exit = exit.unwrap_or(if all_agree { Exit::Done } else { Exit::Unproven });
    render::audit(common, &Answer { days: audited, problems, exit_code: exit.code() }, args.all);
    Ok(exit)
}

/// The days of one dataset; nothing of a dataset that has no days.
async fn audit(
    agent: &Agent<Objects>,
    store: &ServedStore,
    name: &DatasetName,
    mapping: &DatasetMapping,
    days: &Days,
) -> Result<Vec<Audited>> {
    let definition = agent.definition(name).await?;
    if definition.kind != DatasetKind::Daily {
        return Ok(Vec::new());
    }
    let place = Rc::new(agent.place(&store.config).await?);
    let context = DatasetContext { store, name, mapping, definition, place: place.clone() };
    let mut reading = agent.begin_reading(&context).await?;
    let until_today = Days { from: days.from, to: days.to.min(reading.today) };
    let Some(days) = until_today.within(place.opened, place.closed) else { return Ok(Vec::new()) };
    agent.turn_to(&mut reading, days.from).await?;
    let found = agent.ask(&mut reading, &days).await;
    // The answer is there; a source that cannot end a read-only transaction changes nothing.
    let _ = reading.session.end().await;
    let found = found?;
    let known = agent.journal.units_between(&store.config.id, name, days.from, days.to)?;
    let mut audited = Vec::new();
    let nothing = Fingerprint::default();
    for day in days.iter().map(Unit::Day) {
        let source = found.get(&day).unwrap_or(&nothing);
        let local = known.get(&day);
        // Open days without rows are not sent, and nobody waits for them.
        if local.is_none() && source.facts.rows == 0 {
            continue;
        }
        let lake = match local {
            Some(local) => lake_facts(agent, local, day).await?,
            None => None,
        };
        audited.push(Audited {
            store: store.config.id.clone(),
            dataset: name.clone(),
            day,
            source: source.facts.clone(),
            local: local.map(|local| local.facts.clone()),
            verdict: verdict(source, local),
            lake,
        });
    }
    Ok(audited)
}

/// What the lake answered that it holds of the day's last batch.
async fn lake_facts(agent: &Agent<Objects>, local: &UnitRow, day: Unit) -> Result<Option<Facts>> {
    if !matches!(local.lake, LakeState::Agrees | LakeState::Differs) {
        return Ok(None);
    }
    let Some(batch) = agent.journal.batch(local.batch)? else { return Ok(None) };
    let path = paths::ack(&batch.manifest.batch)?;
    let Some(bytes) = agent.ports.objects.get(&path).await? else { return Ok(None) };
    let ack: Ack = serde_json::from_slice(&bytes)
        .map_err(|error| Error::data(format!("{path}: is not an acknowledgement")).with_source(error))?;
    Ok(match ack.outcome {
        AckOutcome::Committed { units, .. } => units.into_iter().collect::<BTreeMap<Unit, Facts>>().remove(&day),
        _ => None,
    })
}

fn verdict(source: &Fingerprint, local: Option<&UnitRow>) -> Verdict {
    let Some(local) = local else { return Verdict::SourceDiffers };
    match local.lake {
        LakeState::Quarantined => Verdict::Quarantined,
        LakeState::Differs => Verdict::LakeDiffers,
        _ if !source.facts.agrees_with(&local.facts) => Verdict::SourceDiffers,
        LakeState::Waiting => Verdict::Waiting,
        LakeState::Agrees if !local.proven => Verdict::Unproven,
        LakeState::Agrees => Verdict::Agrees,
    }
}

impl Audited {
    /// Every measure with what the three say of it: rows first, then the sums.
    pub fn measures(&self) -> Vec<(String, [Option<String>; 3])> {
        let sides = [Some(&self.source), self.local.as_ref(), self.lake.as_ref()];
        let rows = sides.map(|side| side.map(|facts| facts.rows.to_string()));
        let mut measures = vec![("rows".to_owned(), rows)];
        let names: std::collections::BTreeSet<&String> =
            sides.iter().flatten().flat_map(|facts| facts.sums.keys()).collect();
        for name in names {
            let sum = |facts: &Facts| facts.sums.get(name).copied().unwrap_or(ExactDecimal::ZERO).to_string();
            measures.push((name.clone(), sides.map(|side| side.map(sum))));
        }
        measures
    }
}
