//! The verbs of `ribera`, one file each.
//!
//! To add a verb: a file here with `pub struct Args` (`clap::Args`) and
//! `pub async fn run(args: Args, context: &Context) -> Result<Exit>`, and one line below.

use clap::Subcommand;
use ribera_storage::Result;

use crate::cli::{Context, Exit};

/// Each line: module, variant, what it does as `es / en`.
macro_rules! verbs {
    ($($module:ident, $variant:ident, $about:literal;)*) => {
        $(pub mod $module;)*

        #[derive(Debug, Subcommand)]
        pub enum Verb {
            $(#[command(about = $about)] $variant($module::Args),)*
        }

        impl Verb {
            pub async fn run(self, context: &Context) -> Result<Exit> {
                match self {
                    $(Self::$variant(args) => $module::run(args, context).await,)*
                }
            }
        }
    };
}

verbs! {
    up, Up, "Atiende el lago: ingesta, cobertura y estado. / Serves the lake: ingest, coverage and status.";
    sweep, Sweep, "Ingiere ya todo lo pendiente. / Ingests everything that waits, now.";
}
