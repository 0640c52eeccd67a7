//! `ribera-agent config`: is the configuration file right, without asking anybody anything; and the
//! adapters that come with the agent.

use clap::{Args, Subcommand};
use ribera_storage::Error;
use serde::Serialize;

use super::{Common, Stopped, render, setup, stopped};
use crate::config::adapters::{SHIPPED, Shipped, shipped};
use crate::config::twins;
use crate::report::{Exit, Stage};
use crate::source::reach;

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigVerb {
    /// Revisa el archivo y dice qué haría / Checks the file and says what it would do
    #[command(after_help = "Ejemplo / Example:\n  ribera-agent --config agent.toml config check")]
    Check,
    /// Los adaptadores que trae el agente / The adapters that come with the agent
    #[command(
        after_help = "Ejemplos / Examples:\n  ribera-agent config adapters\n  ribera-agent config adapters abasto\n  ribera-agent config adapters abasto --grant | mariadb BASE"
    )]
    Adapters(AdaptersArgs),
}

#[derive(Debug, Clone, Args)]
pub struct AdaptersArgs {
    /// Escribe el de este nombre / Prints the one of this name
    pub name: Option<String>,
    /// Su usuario de solo lectura, como SQL / Its read-only user, as SQL
    #[arg(long, requires = "name", conflicts_with = "schema")]
    pub grant: bool,
    /// Las tablas del producto, como SQL / The product's tables, as SQL
    #[arg(long, requires = "name")]
    pub schema: bool,
}

/// A line of `config adapters --json`.
#[derive(Debug, Serialize)]
pub struct AdapterSummary {
    pub name: &'static str,
    pub kind: &'static str,
    pub datasets: Vec<String>,
    pub es: &'static str,
    pub en: &'static str,
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
    /// Pairs of stores with one tax number, one adapter and days in common.
    pub twins: Vec<[String; 2]>,
    pub exit_code: u8,
}

pub fn main(common: &Common, verb: &ConfigVerb) -> Result<Exit, Stopped> {
    if let ConfigVerb::Adapters(args) = verb {
        return adapters(common, args);
    }
    // With its secrets: one that is not set is what a run would stop at.
    let config = setup::config(common)?;
    let stores = config.stores.iter().map(|store| StoreSummary {
        store: store.id.to_string(),
        source: match reach::shown(&store.source) {
            Some(place) => format!("{} {place}", store.source.kind()),
            None => store.source.kind().to_owned(),
        },
        time_zone: store.time_zone.clone(),
        datasets: config.datasets(store).map(|(name, _)| name.to_string()).collect(),
    });
    let answer = Answer {
        file: common.config.display().to_string(),
        folder: config.folder.display().to_string(),
        stores: stores.collect(),
        twins: twins(&config.stores)
            .into_iter()
            .map(|(one, other)| [one.id.to_string(), other.id.to_string()])
            .collect(),
        exit_code: Exit::Done.code(),
    };
    render::config(common, &answer);
    Ok(Exit::Done)
}

/// Needs no configuration file.
fn adapters(common: &Common, args: &AdaptersArgs) -> Result<Exit, Stopped> {
    let config_error = stopped(Stage::Definition, Some(Exit::Config));
    let Some(name) = &args.name else {
        let all = SHIPPED.iter().map(summary).collect::<ribera_storage::Result<Vec<_>>>().map_err(&config_error)?;
        render::adapters(common, &all);
        return Ok(Exit::Done);
    };
    let one = shipped(name).ok_or_else(|| {
        let known: Vec<&str> = SHIPPED.iter().map(|one| one.name).collect();
        let known = known.join(", ");
        let error = Error::config(format!("adapter: must be one that comes with the agent ({known}), got {name:?}"));
        config_error(error.with_hint("ribera-agent config adapters"))
    })?;
    let text = match (args.grant, args.schema) {
        (true, _) => one.grant,
        (_, true) => one.schema,
        _ => one.mapping,
    };
    print!("{text}");
    Ok(Exit::Done)
}

fn summary(one: &Shipped) -> ribera_storage::Result<AdapterSummary> {
    let datasets = one.datasets()?.keys().map(ToString::to_string).collect();
    Ok(AdapterSummary { name: one.name, kind: one.kind, datasets, es: one.es, en: one.en })
}
