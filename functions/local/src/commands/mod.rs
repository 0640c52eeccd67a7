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
    sql, Sql, "Consulta el lago; la respuesta dice qué falta detrás de ella. / Queries the lake; the answer says what is missing behind it.";
    tables, Tables, "Muestra las tablas del lago. / Shows the tables of the lake.";
    coverage, Coverage, "Muestra qué días-tienda están completos. / Shows which store-days are complete.";
    recover, Recover, "Muestra las órdenes que recuperan lo que falta. / Shows the commands that recover what is missing.";
    check, Check, "Prueba qué tiendas se alcanzan. / Tries which stores can be reached.";
    runs, Runs, "Muestra los últimos lotes. / Shows the last batches.";
    quarantine, Quarantine, "Muestra y reintenta los lotes rechazados. / Shows and replays refused batches.";
    store, Store, "Declara y muestra tiendas. / Declares and shows stores.";
    dataset, Dataset, "Revisa, publica y muestra definiciones de datos. / Checks, publishes and shows dataset definitions.";
    verify, Verify, "Prueba el lago desde sus archivos. / Proves the lake from its files.";
    repair, Repair, "Deshace lo que otro programa escribió en una tabla. / Undoes what another program wrote to a table.";
    maintain, Maintain, "Junta archivos, escribe puntos de control y limpia. / Merges files, writes checkpoints and cleans up.";
    rebuild, Rebuild, "Rehace registros y acuses desde el lago. / Makes ledger and acknowledgements again from the lake.";
    export, Export, "Exporta el lago a una base DuckDB. / Exports the lake to a DuckDB database.";
}
