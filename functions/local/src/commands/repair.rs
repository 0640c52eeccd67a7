//! `ribera repair`: undoes what another program did to a table.

use ribera_storage::delta::Repaired;
use ribera_storage::{DatasetName, Result, text};
use serde::Serialize;
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::lake::Lake;
use crate::{show, terminal};

/// Paths that the text for people lists; `--json` gives all.
const PATHS_MAX: usize = 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "Solo Ribera escribe en el lago. Si otro programa lo hizo (OPTIMIZE, un punto de control, una
inserción), esta orden saca sus archivos y devuelve los nuestros que aún existen, con lo que el registro sabía de ellos.
Lo que no puede volver falta después: `ribera recover` dice cómo traerlo.
/ Only Ribera writes the lake. If another program did (OPTIMIZE, a checkpoint, an insert), this command takes its files
out and brings back those of ours that still exist, with what the log knew of them. What cannot come back is missing
afterwards: `ribera recover` says how to bring it.

Ejemplos / Examples:
  ribera repair ventas --dry-run
  ribera repair ventas && ribera recover")]
pub struct Args {
    /// El conjunto cuyas tablas se reparan. / The dataset whose tables are repaired.
    dataset: DatasetName,
    /// Solo muestra qué se haría. / Only shows what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Table {
    table: String,
    version: Option<u64>,
    removed: Vec<String>,
    restored: Vec<String>,
    unset: Vec<String>,
    lost: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    let dataset = lake.dataset(&args.dataset)?;
    let Repaired { version, removed, restored, unset, lost } =
        lake.table(&dataset.name).repair(lake.ports(), dataset, args.dry_run).await?;
    let tables = [Table { table: dataset.name.to_string(), version, removed, restored, unset, lost }];
    let whole = tables.iter().all(|table| table.lost.is_empty() && table.removed.len() <= table.restored.len());
    context.answer(&json!({"dry_run": args.dry_run, "tables": tables}), |lang| report(lang, &args, &tables))?;
    Ok(if whole { Exit::Ok } else { Exit::Findings })
}

fn report(lang: Lang, args: &Args, tables: &[Table]) -> String {
    let mut lines = Vec::new();
    for table in tables {
        let [removed, restored, lost] =
            [&table.removed, &table.restored, &table.lost].map(|paths| show::number(lang, paths.len() as u64));
        lines.push(match args.dry_run {
            true => lang.pick(
                format!("{}: saldrían {removed} archivos ajenos, volverían {restored}, perdidos {lost}", table.table),
                format!("{}: {removed} foreign files would leave, {restored} would come back, {lost} are lost", table.table),
            ),
            false => lang.pick(
                format!("{}: {removed} archivos ajenos fuera, {restored} devueltos, {lost} perdidos", table.table),
                format!("{}: {removed} foreign files out, {restored} brought back, {lost} lost", table.table),
            ),
        });
        for (sign, paths) in [("-", &table.removed), ("+", &table.restored), ("-", &table.unset), ("!", &table.lost)] {
            lines.extend(paths.iter().take(PATHS_MAX).map(|path| format!("  {sign} {}", text::line(path))));
        }
    }
    if tables.iter().any(|table| !table.lost.is_empty() || table.removed.len() > table.restored.len()) {
        let hint = lang.pick("Lo que falta ahora: ribera recover", "What is missing now: ribera recover");
        lines.push(terminal::paint(hint, terminal::colour::YELLOW));
    }
    lines.join("\n")
}
