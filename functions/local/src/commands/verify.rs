//! `ribera verify`: proves the lake from its files.

use ribera_storage::engine::{Engine, FindingKind, VerifyReport, verify};
use ribera_storage::{DatasetName, Result, text};
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::lake::{Lake, Versions};
use crate::progress::Progress;
use crate::terminal::colour::{GREEN, RED};
use crate::{show, terminal};

#[derive(Debug, clap::Args)]
#[command(after_help = "Revisa que cada archivo exista, sea el que se escribió, se lea entero con dos lectores
independientes y tenga las filas, sumas y estadísticas que dice el registro. Sale con 1 si halla algo.
/ Checks that every file exists, is the one that was written, can be read whole by two independent
readers, and has the rows, sums and statistics that the log says. Exits with 1 when it finds anything.

Ejemplos / Examples:
  ribera verify
  ribera verify --dataset ventas --json")]
pub struct Args {
    /// Solo este conjunto. / Only this dataset.
    #[arg(long)]
    dataset: Option<DatasetName>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    if let Some(name) = &args.dataset {
        lake.dataset(name)?;
    }
    let engine = Engine::open(&lake.engine_options()?)?;
    let root = lake.root()?;
    let mut reports = Vec::new();
    for dataset in lake.datasets.iter().filter(|one| args.dataset.as_ref().is_none_or(|name| one.name == *name)) {
        let Some(snapshot) = lake.snapshot(&dataset.name, &Versions::default()).await? else { continue };
        let progress = Progress::new(context, snapshot.table().as_str(), snapshot.file_count() as u64);
        let report = verify(&lake.objects, &engine, &snapshot, dataset, &root, |done| progress.at(done)).await?;
        progress.done();
        reports.push(report);
    }
    let sound = reports.iter().all(|report| report.findings.is_empty());
    context.answer(&json!({"sound": sound, "tables": reports}), |lang| text(lang, &reports))?;
    Ok(if sound { Exit::Ok } else { Exit::Findings })
}

fn text(lang: Lang, reports: &[VerifyReport]) -> String {
    /// Findings that are listed; `--json` gives all.
    const FINDINGS_MAX: usize = 50;
    if reports.is_empty() {
        return lang.pick("El lago todavía no tiene tablas.", "The lake has no tables yet.").to_owned();
    }
    let header = lang.pick(
        ["Tabla", "Versión", "Archivos", "Tamaño", "Filas", "Días-tienda", "Hallazgos"],
        ["Table", "Version", "Files", "Size", "Rows", "Store-days", "Findings"],
    );
    let mut table = show::table(&header);
    for report in reports {
        table.add_row([
            show::cell(&report.table),
            show::right(report.version),
            show::right(show::number(lang, report.files)),
            show::right(show::bytes(lang, report.bytes)),
            show::right(show::number(lang, report.rows)),
            show::right(show::number(lang, report.units)),
            show::right(report.findings.len()),
        ]);
    }
    let findings: Vec<_> = reports.iter().flat_map(|report| &report.findings).collect();
    let mut lines = vec![show::table_text(&table)];
    for finding in findings.iter().take(FINDINGS_MAX) {
        let kind = terminal::paint(finding.kind.as_str(), RED);
        lines.push(format!("{kind}  {}  {}", text::line(&finding.path), text::line(&finding.detail)));
    }
    for report in reports.iter().filter(|report| report.findings.iter().any(|one| one.kind == FindingKind::ForeignFile)) {
        let (name, repair) = (&report.table, format!("ribera repair {}", report.table));
        lines.push(lang.pick(
            format!("Otro programa escribió en {name}: {repair}"),
            format!("Another program wrote to {name}: {repair}"),
        ));
    }
    lines.push(match findings.len() {
        0 => terminal::paint(lang.pick("Todo en orden.", "All is well."), GREEN),
        count if count > FINDINGS_MAX => {
            let rest = count - FINDINGS_MAX;
            lang.pick(format!("… y {rest} hallazgos más: --json"), format!("… and {rest} more findings: --json"))
        }
        _ => lang
            .pick(
                "Los días dañados se recuperan extrayéndolos de nuevo: ribera-agent extract --force",
                "Damaged days are recovered by extracting them again: ribera-agent extract --force",
            )
            .to_owned(),
    });
    lines.join("\n")
}
