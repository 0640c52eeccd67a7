//! `ribera rebuild`: makes ledger, acknowledgements and coverage again from log, quarantine and
//! manifests.

use ribera_core::coverage::{self, CoverageSettings};
use ribera_storage::Result;
use ribera_storage::object::ObjectPath;
use ribera_storage::rebuild::{Rebuilt, rebuild};
use serde_json::json;

use crate::cli::{Context, Exit};
use crate::lake::Lake;
use crate::ports::SystemClock;
use crate::show;

#[derive(Debug, clap::Args)]
#[command(after_help = "Lo que el lago no tiene aunque su manifiesto esté hecho vuelve a la entrada: `ribera sweep` lo ingiere.
/ What the lake lacks although its manifest is done goes back to the inbox: `ribera sweep` ingests it.

Ejemplo / Example:
  ribera rebuild && ribera sweep")]
pub struct Args {}

pub async fn run(_args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    let Rebuilt { batches, reopened, unreadable } = rebuild(&lake.objects, &SystemClock).await?;
    let settings = CoverageSettings { yellow_percent: lake.settings.yellow_percent, ..CoverageSettings::default() };
    coverage::refresh(lake.ports(), &settings).await?;
    let unreadable: Vec<&str> = unreadable.iter().map(ObjectPath::as_str).collect();
    let value = json!({"batches": batches, "reopened": reopened, "unreadable": unreadable});
    context.answer(&value, |lang| {
        let [batches, again, bad] =
            [batches, reopened.len() as u64, unreadable.len() as u64].map(|count| show::number(lang, count));
        let mut lines = vec![lang.pick(
            format!("Lotes rehechos: {batches}; de vuelta a la entrada: {again}; ilegibles: {bad}."),
            format!("Batches made again: {batches}; back to the inbox: {again}; unreadable: {bad}."),
        )];
        lines.extend(reopened.iter().map(|batch| format!("  {batch}")));
        lines.extend(unreadable.iter().map(|path| format!("  {path}")));
        lines.join("\n")
    })?;
    Ok(if unreadable.is_empty() { Exit::Ok } else { Exit::Findings })
}
