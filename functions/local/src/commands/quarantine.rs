//! `ribera quarantine list|show|replay`: the batches that were refused, and why.

use jiff::civil::Date;
use ribera_core::ingest::event::EVENT_MANIFESTS_MAX;
use ribera_core::quarantine::{self, QuarantineEntry};
use ribera_core::ingest::{FailureCause, IngestReport, ManifestOutcome, Outcome};
use ribera_storage::object::ObjectPath;
use ribera_storage::{BatchId, DatasetName, Error, Result, StoreId, Unit, paths, text};
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::host::functions::Functions;
use crate::host::settings::{ComponentArgs, HostSettings};
use crate::lake::Lake;
use crate::{logs, show};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Muestra los lotes en cuarentena. / Shows the batches in quarantine.
    List {
        /// Solo esta tienda. / Only this store.
        #[arg(long)]
        store: Option<StoreId>,
        /// Solo este conjunto. / Only this dataset.
        #[arg(long)]
        dataset: Option<DatasetName>,
        /// Cuántos como máximo. / How many at most.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Muestra todo lo que se sabe de un lote. / Shows all that is known of a batch.
    #[command(after_help = "Ejemplo / Example:\n  ribera quarantine show 367/ventas/000000-0000000003")]
    Show {
        /// TIENDA/CONJUNTO/ÉPOCA-NÚMERO. / STORE/DATASET/EPOCH-SEQUENCE.
        batch: BatchId,
    },
    /// Vuelve a examinar lotes, aislado y con los límites de `ribera up`, por ejemplo tras corregir una definición. / Examines batches again, isolated and within the limits of `ribera up`, for instance after a definition was corrected.
    #[command(after_help = "Ejemplos / Examples:
  ribera quarantine replay 367/ventas/000000-0000000003
  ribera quarantine replay --all --dataset ventas")]
    Replay {
        /// TIENDA/CONJUNTO/ÉPOCA-NÚMERO. / STORE/DATASET/EPOCH-SEQUENCE.
        #[arg(required_unless_present = "all")]
        batch: Vec<BatchId>,
        /// Todos (con --store o --dataset, solo esos). / All (with --store or --dataset, only those).
        #[arg(long, conflicts_with = "batch")]
        all: bool,
        #[arg(long, requires = "all")]
        store: Option<StoreId>,
        #[arg(long, requires = "all")]
        dataset: Option<DatasetName>,
        #[command(flatten)]
        components: ComponentArgs,
    },
    /// Descarta un lote: sus días ya no lo esperan. / Discards a batch: its days no longer wait for it.
    #[command(after_help = "Ejemplo / Example:
  ribera quarantine discard 367/ventas/000000-0000000003 --reason \"credencial robada\"")]
    Discard {
        /// TIENDA/CONJUNTO/ÉPOCA-NÚMERO. / STORE/DATASET/EPOCH-SEQUENCE.
        batch: BatchId,
        /// Por qué; queda guardado. / Why; it is kept.
        #[arg(long)]
        reason: String,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    match args.action {
        Action::List { store, dataset, limit } => {
            let mut entries = matching(&lake, store.as_ref(), dataset.as_ref()).await?;
            let all = entries.len();
            entries.truncate(limit);
            context.answer(&json!({"total": all, "entries": entries}), |lang| list_text(lang, &entries, all))?;
            Ok(Exit::Ok)
        }
        Action::Show { batch } => show_batch(&lake, &batch, context).await,
        Action::Discard { batch, reason } => {
            let records = quarantine::discard(lake.ports(), &batch, &reason).await?;
            context.answer(&json!({"batch": batch, "records": records}), |lang| {
                lang.pick(format!("Descartado: {batch} ({records})."), format!("Discarded: {batch} ({records})."))
            })?;
            Ok(Exit::Ok)
        }
        Action::Replay { batch, all, store, dataset, components } => {
            let batches = match all {
                false => batch,
                true => {
                    let entries = matching(&lake, store.as_ref(), dataset.as_ref()).await?;
                    let mut batches: Vec<BatchId> = entries.into_iter().filter_map(|entry| entry.batch).collect();
                    batches.dedup();
                    batches
                }
            };
            replay(&lake, &batches, &components, context).await
        }
    }
}

async fn matching(lake: &Lake, store: Option<&StoreId>, dataset: Option<&DatasetName>) -> Result<Vec<QuarantineEntry>> {
    let mut entries = quarantine::list(lake.ports(), None, usize::MAX).await?;
    entries.retain(|entry| {
        let of = |batch: &BatchId| {
            store.is_none_or(|store| batch.store == *store) && dataset.is_none_or(|dataset| batch.dataset == *dataset)
        };
        entry.batch.as_ref().map_or(store.is_none() && dataset.is_none(), of)
    });
    Ok(entries)
}

async fn show_batch(lake: &Lake, batch: &BatchId, context: &Context) -> Result<Exit> {
    let entries = quarantine::show(lake.ports(), batch).await?;
    if entries.is_empty() {
        return Err(Error::config(format!("BATCH: must be in quarantine, got {batch}")).with_hint("ribera quarantine list"));
    }
    context.answer(&json!({"entries": entries}), |lang| {
        entries.iter().map(|entry| entry_text(lang, entry)).collect::<Vec<_>>().join("\n\n")
    })?;
    Ok(Exit::Ok)
}

/// Puts the manifests back, then lets the component ingest them: the files in quarantine are those that broke
/// a decoder, or an instance.
async fn replay(lake: &Lake, batches: &[BatchId], args: &ComponentArgs, context: &Context) -> Result<Exit> {
    logs::start(context.json);
    // First what may fail without the quarantine being touched.
    let settings = HostSettings::load(args.settings.as_deref())?;
    let functions = Functions::isolated(&context.lake, settings, args).await?;
    let mut manifests = Vec::new();
    for batch in batches {
        manifests.push(quarantine::replay(lake.ports(), batch).await?);
    }
    let report = IngestReport { outcomes: ingest(&functions, &manifests).await };
    let refused = |outcome: &Outcome| matches!(outcome, Outcome::Quarantined { .. } | Outcome::Failed { .. });
    let all_well = !report.outcomes.iter().any(|one| refused(&one.outcome));
    context.answer(&report, |lang| {
        let lines = report.outcomes.iter().map(|one| {
            let name = one.batch.as_ref().map_or(text::line(&one.path).into_owned(), ToString::to_string);
            format!("{name}: {}", outcome_text(lang, &one.outcome))
        });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() { lang.pick("Nada en cuarentena.", "Nothing in quarantine.").to_owned() } else { lines.join("\n") }
    })?;
    Ok(if all_well { Exit::Ok } else { Exit::Findings })
}

/// All in one call. If that call dies, each manifest has one of its own.
async fn ingest(functions: &Functions, manifests: &[ObjectPath]) -> Vec<ManifestOutcome> {
    let mut outcomes = Vec::new();
    for group in manifests.chunks(EVENT_MANIFESTS_MAX) {
        match functions.ingest(group).await {
            Ok(report) => outcomes.extend(report.outcomes),
            Err(error) if group.len() == 1 => outcomes.extend(group.iter().map(|path| failed(path, &error))),
            Err(_) => {
                for path in group {
                    match functions.ingest(std::slice::from_ref(path)).await {
                        Ok(report) => outcomes.extend(report.outcomes),
                        Err(error) => outcomes.push(failed(path, &error)),
                    }
                }
            }
        }
    }
    outcomes
}

/// The manifest lies in the inbox: sweeps try it again, and quarantine it when their calls die too.
fn failed(path: &ObjectPath, error: &Error) -> ManifestOutcome {
    let batch = paths::batch_of("inbox", path).ok();
    ManifestOutcome { path: path.to_string(), batch, outcome: Outcome::Failed { message: error.message().to_owned(), cause: FailureCause::Retry } }
}

/// What became of a manifest, for people.
pub fn outcome_text(lang: Lang, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed { version, rows } => {
            let rows = show::number(lang, *rows);
            lang.pick(format!("en el lago, versión {version}, {rows} filas"), format!("in the lake, version {version}, {rows} rows"))
        }
        Outcome::Superseded => lang.pick("superado por uno más nuevo", "superseded by a newer one").to_owned(),
        Outcome::Quarantined { reason, detail } => {
            format!("{}: {}: {}", lang.pick("en cuarentena", "in quarantine"), reason.as_str(), text::line(detail))
        }
        Outcome::AlreadyDone => lang.pick("ya estaba resuelto", "was settled already").to_owned(),
        Outcome::Waiting => lang.pick("espera su archivo", "waits for its file").to_owned(),
        Outcome::Failed { message, .. } => {
            format!("{}: {}", lang.pick("falló, se intentará de nuevo", "failed, to be tried again"), text::line(message))
        }
    }
}

fn list_text(lang: Lang, entries: &[QuarantineEntry], all: usize) -> String {
    if entries.is_empty() {
        return lang.pick("Nada en cuarentena.", "Nothing in quarantine.").to_owned();
    }
    let header = lang.pick(["Lote", "Desde", "Motivo", "Días", "Detalle"], ["Batch", "Since", "Reason", "Days", "Detail"]);
    let mut table = show::table(&header);
    for entry in entries {
        let record = &entry.record;
        table.add_row([
            show::cell(entry.batch.as_ref().map_or(record.manifest_path.clone(), ToString::to_string)),
            show::cell(show::moment(record.quarantined_at)),
            show::cell(record.reason.as_str()),
            show::cell(units_text(&record.units)),
            show::cell(&record.detail),
        ]);
    }
    let mut text = show::table_text(&table);
    if all > entries.len() {
        text.push_str(&lang.pick(format!("\n{} de {all}", entries.len()), format!("\n{} of {all}", entries.len())));
    }
    text
}

fn units_text(units: &[Unit]) -> String {
    let dates: Vec<Date> = units.iter().filter_map(|unit| unit.date()).collect();
    match (dates.first(), dates.last()) {
        (Some(first), Some(last)) => show::days(*first, *last),
        _ => units.first().map_or("-".to_owned(), ToString::to_string),
    }
}

fn entry_text(lang: Lang, entry: &QuarantineEntry) -> String {
    let record = &entry.record;
    // What is no JSON is quoted: nothing in it may look like a line of ours.
    let manifest = serde_json::from_str::<serde_json::Value>(&record.manifest)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| format!("\"{}\"", text::line(&record.manifest)));
    let lines = [
        (lang.pick("Lote", "Batch"), entry.batch.as_ref().map_or("-".to_owned(), ToString::to_string)),
        (lang.pick("Motivo", "Reason"), record.reason.as_str().to_owned()),
        (lang.pick("Detalle", "Detail"), text::line(&record.detail).into_owned()),
        (lang.pick("Desde", "Since"), show::moment(record.quarantined_at)),
        (lang.pick("Días", "Days"), units_text(&record.units)),
        (lang.pick("Manifiesto", "Manifest"), format!("{}\n{manifest}", text::line(&record.manifest_path))),
    ];
    lines.map(|(title, text)| format!("{title}: {text}")).join("\n")
}
