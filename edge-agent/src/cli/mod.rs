//! The command line: one verb, one file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::civil::Date;
use ribera_storage::{DatasetName, StoreId};

/// The command line of `ribera-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "ribera-agent",
    version,
    about = "Lee la base de datos de la tienda y envía lotes al lago / Reads the store's database and sends batches to the lake"
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Configuration file
    #[arg(
        long,
        global = true,
        env = "RIBERA_AGENT_CONFIG",
        default_value = "/etc/ribera/agent.toml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// One JSON document on standard output instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Language of messages for people
    #[arg(long, global = true, env = "RIBERA_LANG", default_value = "es")]
    pub lang: Lang,
    /// Ask the source; send nothing, write nothing but the report
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Fill the spool; upload nothing
    #[arg(long, global = true)]
    pub local_only: bool,
    /// Only these stores
    #[arg(long, global = true, value_delimiter = ',', value_name = "IDS")]
    pub stores: Vec<StoreId>,
    /// Only these datasets
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAMES")]
    pub datasets: Vec<DatasetName>,
    /// Set a damaged journal aside and begin a new one
    #[arg(long, global = true)]
    pub new_journal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    Es,
    En,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Source, object store, folder and clock: what works, and the next step where it does not
    Check,
    /// One cycle: what changed in the lookback window is extracted and sent
    Once(Wait),
    /// Cycles by schedule until told to end
    Run,
    /// Send these days if they differ from what was sent
    Extract(Days),
    /// Send history, a month per batch; run again to resume
    Backfill(Days),
    /// What waits for upload or acknowledgement
    Spool,
}

#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Seconds to wait for the lake's acknowledgements before ending
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub wait_acks: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Days {
    /// First business day
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Date,
    /// Last business day
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Date,
    /// Send days whose fingerprints agree too
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: Wait,
}
