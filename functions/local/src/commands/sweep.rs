//! `ribera sweep`: ingests everything that waits, now, the same way as `ribera up`.

use comfy_table::{Table, presets};
use ribera_core::ingest::{ManifestOutcome, Outcome};
use ribera_storage::{Result, text};
use serde::Serialize;

use crate::cli::{Context, Exit, Lang};
use crate::host::functions::Functions;
use crate::host::serve::Host;
use crate::host::settings::{FunctionArgs, HostSettings};
use crate::host::tally::Tally;
use crate::logs;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    functions: FunctionArgs,
}

/// What a sweep did.
#[derive(Debug, Clone, Serialize)]
pub struct Swept {
    #[serde(flatten)]
    tally: Tally,
}

impl From<Tally> for Swept {
    fn from(tally: Tally) -> Self {
        Self { tally }
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    logs::start(context.json);
    context.existing_store()?;
    let settings = HostSettings::load(args.functions.component.settings.as_deref())?;
    let functions = Functions::start(&context.lake, settings, &args.functions).await?;
    let host = Host::start(functions, &context.lake);
    host.ingester.sweep_all().await?;
    let swept = Swept::from(host.ingester.tally());
    host.stop().await;
    context.answer(&swept, |lang| table(&swept, lang))?;
    Ok(if swept.tally.failed > 0 { Exit::Findings } else { Exit::Ok })
}

/// Counts, and below them each manifest that is worth a look.
pub fn table(swept: &Swept, lang: Lang) -> String {
    let tally = &swept.tally;
    let mut counts = Table::new();
    counts.load_style(presets::UTF8_BORDERS_ONLY);
    for (name, count) in [
        (lang.pick("lotes en el lago", "batches in the lake"), tally.committed),
        (lang.pick("filas", "rows"), tally.rows),
        (lang.pick("ya superados", "superseded already"), tally.superseded),
        (lang.pick("en cuarentena", "quarantined"), tally.quarantined),
        (lang.pick("esperan su archivo", "waiting for their file"), tally.waiting),
        (lang.pick("se reintentarán", "to be tried again"), tally.failed),
    ] {
        counts.add_row([name.to_owned(), count.to_string()]);
    }
    let mut text = counts.to_string();
    for one in tally.notable.values() {
        text.push('\n');
        text.push_str(&line(one, lang));
    }
    text
}

fn line(one: &ManifestOutcome, lang: Lang) -> String {
    let path = text::line(&one.path);
    match &one.outcome {
        Outcome::Quarantined { reason, detail } => {
            let hint = one.batch.as_ref().map(|batch| format!("  ribera quarantine show {batch}")).unwrap_or_default();
            format!("{path}: {} {}: {}{hint}", lang.pick("cuarentena,", "quarantined,"), reason.as_str(), text::line(detail))
        }
        Outcome::Failed { message, .. } => format!("{path}: {} {}", lang.pick("falló:", "failed:"), text::line(message)),
        _ => format!("{path}: {}", lang.pick("espera su archivo", "waits for its file")),
    }
}
