//! `ribera-agent config check`: is the configuration file right, without asking anybody anything.

use clap::Subcommand;
use serde::Serialize;

use super::{Common, Stopped, render, setup};
use crate::reach;
use crate::report::Exit;

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigVerb {
    /// Revisa el archivo y dice qué haría / Checks the file and says what it would do
    #[command(after_help = "Ejemplo / Example:\n  ribera-agent --config agent.toml config check")]
    Check,
}

/// What a store would read.
#[derive(Debug, Serialize)]
pub struct StoreSummary {
    pub store: String,
    /// Kind and place, without secrets.
    pub source: String,
    /// From the file; a definition in the lake wins.
    pub time_zone: Option<String>,
    pub datasets: Vec<String>,
}

/// The answer of `config check --json`.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub file: String,
    pub folder: String,
    pub stores: Vec<StoreSummary>,
    pub exit_code: u8,
}

pub fn main(common: &Common, verb: &ConfigVerb) -> Result<Exit, Stopped> {
    let ConfigVerb::Check = verb;
    // With its secrets: one that is not set is what a run would stop at.
    let config = setup::config(common)?;
    let stores = config.stores.iter().map(|store| StoreSummary {
        store: store.id.to_string(),
        source: match reach::place(&store.source) {
            Some((host, port)) => format!("{} {host}:{port}", store.source.kind()),
            None => store.source.kind().to_owned(),
        },
        time_zone: store.time_zone.clone(),
        datasets: config.datasets(store).map(|(name, _)| name.to_string()).collect(),
    });
    let answer = Answer {
        file: common.config.display().to_string(),
        folder: config.folder.display().to_string(),
        stores: stores.collect(),
        exit_code: Exit::Done.code(),
    };
    render::config(common, &answer);
    Ok(Exit::Done)
}
