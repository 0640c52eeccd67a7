//! `ribera-agent audit`: what the source says now, what was last extracted, and what the lake took,
//! side by side. Sends nothing, writes nothing.

use std::collections::BTreeMap;
use std::rc::Rc;

use ribera_storage::batch::{Ack, AckOutcome, Facts};
use ribera_storage::dataset::DatasetKind;
use ribera_storage::{DatasetName, Error, ExactDecimal, ObjectStore, Result, StoreId, Unit, paths};
use serde::Serialize;

use super::{AuditDays, Common, Stopped, audit_show, checked_days, hints, setup};
use crate::agent::{Agent, DatasetContext, ServedStore};
use crate::calendar::Days;
use crate::config::DatasetMapping;
use crate::objects::Objects;
use crate::plan::{Fingerprint, LakeState, LeftOut, UnitRow, days_of_life};
use crate::report::{Exit, Problem, Stage};
use crate::run::collect::no_day_left;
use crate::source::{self, pieces};

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
    /// A value of the day's rows cannot be sent as it is.
    Refused,
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

/// Days of a dataset that were asked for and not looked at.
#[derive(Debug, Serialize)]
pub struct LeftOutOf {
    pub store: StoreId,
    pub dataset: DatasetName,
    #[serde(flatten)]
    pub days: LeftOut,
}

/// The answer of `audit --json`.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub days: Vec<Audited>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutOf>,
    pub problems: Vec<Problem>,
    pub exit_code: u8,
}

pub async fn main(common: &Common, args: &AuditDays) -> Result<Exit, Stopped> {
    let days = checked_days(args.from, args.to)?;
    let ready = setup::agent(&Common { dry_run: true, ..common.clone() })?;
    let agent = &ready.agent;
    let (mut audited, mut problems, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_days = None;
    for store in agent.served(&common.stores) {
        for (name, mapping) in agent.config.datasets(&store.config) {
            if !common.datasets.is_empty() && !common.datasets.contains(name) {
                continue;
            }
            // Each database by itself: one that is away leaves the others alone.
            for piece in pieces(store.source.as_ref(), &days) {
                match audit(agent, store, name, mapping, &piece).await {
                    Ok(None) => {}
                    Ok(Some((found, out))) => {
                        has_days = Some(has_days == Some(true) || found.is_some());
                        audited.extend(found.into_iter().flatten());
                        let of = |days| LeftOutOf { store: store.config.id.clone(), dataset: name.clone(), days };
                        left_out.extend(out.into_iter().map(of));
                    }
                    Err(error) => problems.push(Problem::new(Stage::Source, &error).of(&store.config.id, Some(name))),
                }
            }
        }
    }
    if has_days == Some(false) && problems.is_empty() {
        problems.push(no_day_left(left_out.first().map(|one| &one.days)));
    }
    let exit = problems.iter().map(|problem| problem.exit).max();
    let all_agree = audited.iter().all(|one| one.verdict == Verdict::Agrees);
    let exit = exit.unwrap_or(if all_agree { Exit::Done } else { Exit::Unproven });
    hints::complete(common, &mut problems);
    audit_show::audit(common, &Answer { days: audited, left_out, problems, exit_code: exit.code() }, args.all);
    Ok(exit)
}

/// The days of one dataset, if there are any in the store's life, and those left out; `None` for a dataset
/// without days.
async fn audit(
    agent: &Agent<Objects>,
    store: &ServedStore,
    name: &DatasetName,
    mapping: &DatasetMapping,
    days: &Days,
) -> Result<Option<(Option<Vec<Audited>>, Vec<LeftOut>)>> {
    let definition = agent.definition(name).await?;
    if definition.kind != DatasetKind::Daily {
        return Ok(None);
    }
    let calendar = Rc::new(agent.calendar(&store.config).await?);
    let context = DatasetContext { store, name, mapping, definition, calendar: calendar.clone() };
    let mut reading = agent.begin_reading(&context).await?;
    let (left, left_out) = days_of_life(days, calendar.opened, calendar.closed, reading.today);
    let Some(days) = left else { return Ok(Some((None, left_out))) };
    agent.switch_database(&mut reading, days.from).await?;
    let found = agent.query_fingerprints_of_each(&mut reading, &days).await;
    // The answer is there; a source that cannot end a read-only transaction changes nothing.
    let _ = reading.session.end().await;
    let source::Answer { found, refused } = found?;
    let known = agent.journal.units_between(&store.config.id, name, days.from, days.to)?;
    let mut audited = Vec::new();
    let nothing = Fingerprint::default();
    for day in days.iter().map(Unit::Day) {
        let source = found.get(&day).unwrap_or(&nothing);
        let local = known.get(&day);
        // Open days without rows are not sent, and nobody waits for them.
        if local.is_none() && source.facts.rows == 0 && !refused.contains_key(&day) {
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
            verdict: if refused.contains_key(&day) { Verdict::Refused } else { verdict(source, local) },
            lake,
        });
    }
    Ok(Some((Some(audited), left_out)))
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
        _ if local.refused.is_some() => Verdict::Refused,
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
            let of = |facts: &Facts| facts.sums.get(name).copied().unwrap_or(ExactDecimal::ZERO);
            // As many digits for each: 54.20 beside 54.20, and a day without rows has 0.00.
            let scale = sides.iter().flatten().map(|facts| of(facts).scale()).max().unwrap_or(0);
            let sum = |facts: &Facts| of(facts).rescale(scale).unwrap_or(of(facts)).to_string();
            measures.push((name.clone(), sides.map(|side| side.map(sum))));
        }
        measures
    }
}
