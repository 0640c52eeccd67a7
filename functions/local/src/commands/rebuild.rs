//! `ribera rebuild`: makes ledger, acknowledgements and coverage again from log, quarantine and
//! manifests.

use ribera_core::coverage::{self, CoverageSettings};
use ribera_core::rebuild::{self, RebuildReport};
use ribera_storage::Result;

use crate::cli::{Context, Exit};
use crate::lake::Lake;
use crate::show;

#[derive(Debug, clap::Args)]
#[command(after_help = "Ejemplos / Examples:
  ribera rebuild --dry-run
  ribera rebuild && ribera sweep")]
pub struct Args {
    /// Solo cuenta lo que se escribiría. / Only counts what would be written.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    let report = rebuild::rebuild(&lake.deps(), args.dry_run).await?;
    if !args.dry_run {
        let settings = CoverageSettings { yellow_percent: lake.settings.yellow_percent };
        coverage::refresh(&lake.deps(), &settings).await?;
    }
    let RebuildReport { manifests, acks_written, ledger_written, requeued, unreadable } = report;
    context.answer(&report, |lang| {
        let [manifests, acks, ledger, requeued, unreadable] =
            [manifests, acks_written, ledger_written, requeued, unreadable].map(|count| show::number(lang, count));
        lang.pick(
            format!(
                "Manifiestos: {manifests}. Acuses escritos: {acks}; registros: {ledger}; de vuelta a la entrada: {requeued}; ilegibles: {unreadable}."
            ),
            format!(
                "Manifests: {manifests}. Acknowledgements written: {acks}; ledger records: {ledger}; back to the inbox: {requeued}; unreadable: {unreadable}."
            ),
        )
    })?;
    Ok(if unreadable > 0 { Exit::Findings } else { Exit::Ok })
}
