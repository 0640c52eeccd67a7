//! `ribera-agent spool`: what waits.

use serde::Serialize;

use super::{Common, Stopped, render, setup, stopped};
use crate::host::OsRandom;
use crate::journal::{BatchRow, BatchState, Journal, SpoolUse};
use crate::plan::LakeState;
use crate::report::{Exit, Stage};

/// The answer of `spool --json`.
#[derive(Debug, Serialize)]
pub struct SpoolList {
    pub total: SpoolUse,
    pub bytes_max: u64,
    pub batches: Vec<Waiting>,
    pub troubled: Vec<Troubled>,
}

#[derive(Debug, Serialize)]
pub struct Waiting {
    pub store: String,
    pub dataset: String,
    pub state: BatchState,
    /// Once it has one.
    pub position: Option<String>,
    pub first_unit: String,
    pub last_unit: String,
    pub rows: u64,
    pub bytes: u64,
    pub since: jiff::Timestamp,
}

/// A unit that the lake refused or altered, that was not proven, or whose rows cannot be sent.
#[derive(Debug, Serialize)]
pub struct Troubled {
    pub store: String,
    pub dataset: String,
    pub unit: String,
    pub lake: LakeState,
    pub proven: bool,
    pub tries: u32,
    /// Why its rows cannot be sent, if they cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

pub fn main(common: &Common) -> Result<Exit, Stopped> {
    let config = setup::config(common)?;
    let error = stopped(Stage::Journal, None);
    let journal = Journal::open_file_to_read(&config.journal_file(), &OsRandom).map_err(&error)?;
    let wanted = |batch: &BatchRow| common.stores.is_empty() || common.stores.contains(batch.store());
    let batches = journal.open_batches().map_err(&error)?;
    let mut troubled = Vec::new();
    for store in config.stores.iter().filter(|store| common.stores.is_empty() || common.stores.contains(&store.id)) {
        for (dataset, _) in config.datasets(store) {
            for row in journal.troubled_units(&store.id, dataset).map_err(&error)?.values() {
                troubled.push(Troubled {
                    store: store.id.to_string(),
                    dataset: dataset.to_string(),
                    unit: row.unit.to_string(),
                    lake: row.lake,
                    proven: row.proven,
                    tries: row.tries,
                    refused: row.refused.as_ref().map(|refusal| refusal.reason.clone()),
                });
            }
        }
    }
    let list = SpoolList {
        total: journal.spool_use(None).map_err(&error)?,
        bytes_max: config.limits.spool_bytes_max,
        batches: batches.iter().filter(|batch| wanted(batch)).map(waiting).collect(),
        troubled,
    };
    render::spool(common, &list);
    Ok(Exit::Done)
}

fn waiting(batch: &BatchRow) -> Waiting {
    let units = &batch.manifest.units;
    let unit = |facts: Option<&ribera_storage::batch::UnitFacts>| {
        facts.map(|facts| facts.unit.to_string()).unwrap_or_default()
    };
    Waiting {
        store: batch.store().to_string(),
        dataset: batch.dataset().to_string(),
        state: batch.state,
        position: (batch.state != BatchState::Spooled).then(|| batch.manifest.batch.position.to_string()),
        first_unit: unit(units.first()),
        last_unit: unit(units.last()),
        rows: batch.manifest.file.rows,
        bytes: batch.bytes,
        since: batch.updated_at,
    }
}
