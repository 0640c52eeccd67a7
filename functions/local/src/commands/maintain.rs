//! `ribera maintain`: merging, checkpoints, vacuum.

use ribera_storage::Result;
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::lake::Lake;
use crate::maintain::{TableMaintenance, maintain};
use crate::progress::Progress;
use crate::show;

#[derive(Debug, clap::Args)]
#[command(after_help = "Junta archivos pequeños (y prueba filas y sumas de cada día-tienda antes de cambiar nada),
escribe puntos de control y borra lo que nadie puede necesitar desde hace 7 días.
/ Merges small files (and proves rows and sums of every store-day before anything changes),
writes checkpoints and deletes what nobody can have needed for 7 days.

Ejemplos / Examples:
  ribera maintain --dry-run
  ribera maintain")]
pub struct Args {
    /// Solo muestra lo que se haría. / Only shows what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    let mut bar: Option<(String, Progress)> = None;
    let done = maintain(&lake, args.dry_run, |table, done, all| {
        if bar.as_ref().is_none_or(|(name, _)| name != table.as_str()) {
            bar = Some((table.to_string(), Progress::new(context, table.as_str(), all)));
        }
        if let Some((_, bar)) = &bar {
            bar.at(done);
        }
    })
    .await?;
    if let Some((_, bar)) = bar {
        bar.done();
    }
    context.answer(&json!({"dry_run": args.dry_run, "tables": done}), |lang| text(lang, &done, args.dry_run))?;
    Ok(if done.iter().all(|table| table.failures.is_empty()) { Exit::Ok } else { Exit::Findings })
}

fn text(lang: Lang, done: &[TableMaintenance], dry_run: bool) -> String {
    if done.is_empty() {
        return lang.pick("El lago todavía no tiene tablas.", "The lake has no tables yet.").to_owned();
    }
    let header = lang.pick(
        ["Tabla", "Archivos antes", "después", "Filas juntadas", "Días-tienda probados", "Punto de control", "Borrados", "Liberado"],
        ["Table", "Files before", "after", "Rows merged", "Store-days proved", "Checkpoint", "Deleted", "Freed"],
    );
    let mut table = show::table(&header);
    for one in done {
        table.add_row([
            show::cell(&one.table),
            show::right(show::number(lang, one.files_before)),
            show::right(show::number(lang, one.files_after)),
            show::right(show::number(lang, one.rows_merged)),
            show::right(show::number(lang, one.units_proved)),
            show::right(one.checkpoint.map_or("-".to_owned(), |version| version.to_string())),
            show::right(show::number(lang, one.files_deleted)),
            show::right(show::bytes(lang, one.bytes_deleted)),
        ]);
    }
    let mut text = show::table_text(&table);
    for (one, failure) in done.iter().flat_map(|one| one.failures.iter().map(move |failure| (one, failure))) {
        let line = lang.pick(format!("{}: sin juntar: {failure}", one.table), format!("{}: not merged: {failure}", one.table));
        text.push_str(&format!("\n{}", crate::terminal::paint(&line, crate::terminal::colour::RED)));
    }
    if dry_run {
        text.push_str(lang.pick("\nNada se cambió (--dry-run).", "\nNothing was changed (--dry-run)."));
    }
    text
}
