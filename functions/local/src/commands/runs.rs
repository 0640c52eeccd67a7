//! `ribera runs`: the batches settled last, and what became of them.

use ribera_storage::batch::AckOutcome;
use ribera_storage::ledger::{self, LedgerRecord};
use ribera_storage::{DatasetName, Result, StoreId};
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::show;

#[derive(Debug, clap::Args)]
#[command(after_help = "Ejemplos / Examples:
  ribera runs
  ribera runs --store 367 --dataset ventas --limit 50")]
pub struct Args {
    /// Solo esta tienda. / Only this store.
    #[arg(long)]
    store: Option<StoreId>,
    /// Solo este conjunto. / Only this dataset.
    #[arg(long)]
    dataset: Option<DatasetName>,
    /// Cuántas, las últimas primero. / How many, the latest first.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let objects = context.existing_store()?;
    let records = match (&args.store, &args.dataset) {
        (Some(store), dataset) => ledger::store_runs(&objects, store, dataset.as_ref(), args.limit).await?,
        (None, None) => ledger::recent_runs(&objects, args.limit).await?,
        (None, Some(dataset)) => {
            let mut records = ledger::recent_runs(&objects, usize::MAX).await?;
            records.retain(|record| record.batch.dataset == *dataset);
            records.truncate(args.limit);
            records
        }
    };
    context.answer(&json!({"runs": records}), |lang| runs_text(lang, &records))?;
    Ok(Exit::Ok)
}

fn runs_text(lang: Lang, records: &[LedgerRecord]) -> String {
    if records.is_empty() {
        return lang.pick("Todavía no hay lotes.", "No batches yet.").to_owned();
    }
    let header = lang.pick(
        ["Resuelto", "Tienda", "Conjunto", "Lote", "Filas", "Tamaño", "Segundos", "Resultado"],
        ["Settled", "Store", "Dataset", "Batch", "Rows", "Size", "Seconds", "Outcome"],
    );
    let mut table = show::table(&header);
    for record in records {
        let timings = &record.timings;
        let began = timings.received_at.unwrap_or(timings.started_at);
        let seconds = timings.settled_at.duration_since(began).as_secs_f64().max(0.0);
        table.add_row([
            show::cell(show::moment(timings.settled_at)),
            show::cell(&record.batch.store),
            show::cell(&record.batch.dataset),
            show::cell(record.batch.position),
            show::right(show::number(lang, record.rows)),
            show::right(show::bytes(lang, record.bytes)),
            show::right(format!("{seconds:.2}")),
            show::cell(outcome_text(lang, &record.outcome)),
        ]);
    }
    show::table_text(&table)
}

fn outcome_text(lang: Lang, outcome: &AckOutcome) -> String {
    match outcome {
        AckOutcome::Committed { version, .. } => lang.pick(format!("en el lago, versión {version}"), format!("in the lake, version {version}")),
        AckOutcome::Superseded => lang.pick("superado por uno más nuevo", "superseded by a newer one").to_owned(),
        AckOutcome::Quarantined { reason, detail } => {
            lang.pick(format!("en cuarentena: {}: {detail}", reason.as_str()), format!("in quarantine: {}: {detail}", reason.as_str()))
        }
    }
}
