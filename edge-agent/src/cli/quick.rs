//! `ribera-agent check --quick`: which servers can be reached, without any credentials.

use std::collections::BTreeMap;

use futures::StreamExt;
use ribera_storage::StoreId;
use serde::Serialize;

use super::{CheckArgs, Common, Stopped, check_show, setup};
use crate::report::Exit;
use crate::source::reach::{self, Cause, Reach, State};

/// A store and what came of it; nothing for one whose database is a file of this machine.
#[derive(Debug, Serialize)]
pub struct Reached {
    pub store: StoreId,
    #[serde(flatten)]
    pub reach: Option<Reach>,
}

/// The answer of `check --quick --json`.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub stores: Vec<Reached>,
    /// Percentage of reachable ones among the stores whose database is on the network.
    pub reachable_percent: f64,
    /// The stores that each cause stops.
    pub causes: BTreeMap<Cause, Vec<StoreId>>,
    pub exit_code: u8,
}

pub async fn main(common: &Common, args: &CheckArgs) -> Result<Exit, Stopped> {
    let config = setup::config_without_secrets(common)?;
    let wanted = config.stores.iter().filter(|store| common.stores.is_empty() || common.stores.contains(&store.id));
    let stores = futures::stream::iter(wanted)
        .map(|store| async move {
            let reach = reach::reach_source(&store.source, args.timeout()).await;
            Reached { store: store.id.clone(), reach }
        })
        .buffered(args.workers())
        .collect()
        .await;
    let answer = answer(stores);
    check_show::reached(common, &answer);
    Ok(if answer.causes.is_empty() { Exit::Done } else { Exit::Source })
}

fn answer(stores: Vec<Reached>) -> Answer {
    let mut causes: BTreeMap<Cause, Vec<StoreId>> = BTreeMap::new();
    let (mut tried, mut open) = (0_u32, 0_u32);
    for one in &stores {
        let Some(reach) = &one.reach else { continue };
        tried += 1;
        open += u32::from(reach.state == State::PortOk);
        if let Some(cause) = reach.cause {
            causes.entry(cause).or_default().push(one.store.clone());
        }
    }
    let reachable_percent = (open * 1000).checked_div(tried).map_or(100.0, |permille| f64::from(permille) / 10.0);
    let exit = if causes.is_empty() { Exit::Done } else { Exit::Source };
    Answer { stores, reachable_percent, causes, exit_code: exit.code() }
}
