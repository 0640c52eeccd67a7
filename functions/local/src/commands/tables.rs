//! `ribera tables`: the tables of the lake with size, version and columns.

use ribera_storage::engine::{DoubtfulFile, ViewColumn, days_columns, days_name, doubtful_files, view_columns};
use ribera_storage::{DatasetName, Result};
use serde::Serialize;

use crate::cli::{Context, Exit, Lang};
use crate::lake::{Lake, Versions};
use crate::show;

#[derive(Debug, clap::Args)]
#[command(after_help = "Ejemplos / Examples:
  ribera tables
  ribera tables ventas")]
pub struct Args {
    /// Muestra las columnas de este conjunto. / Shows this dataset's columns.
    dataset: Option<DatasetName>,
}

#[derive(Debug, Serialize)]
struct TableLine {
    dataset: DatasetName,
    title_es: String,
    title_en: String,
    table: DatasetName,
    /// `None` before the first commit.
    version: Option<u64>,
    files: u64,
    rows: u64,
    bytes: u64,
    /// Files whose log record cannot be trusted: `rows` may lack theirs.
    doubtful: Vec<DoubtfulFile>,
    columns: Vec<ColumnLine>,
    /// The rows and sums of every store-day, from the log alone; `None` unless the dataset is daily.
    days: Option<DaysLine>,
}

#[derive(Debug, Serialize)]
struct DaysLine {
    /// Its name in SQL.
    name: String,
    columns: Vec<ColumnLine>,
}

#[derive(Debug, Serialize)]
struct ColumnLine {
    name: String,
    #[serde(rename = "type")]
    sql_type: String,
    title_es: String,
    title_en: String,
}

impl From<ViewColumn> for ColumnLine {
    fn from(column: ViewColumn) -> Self {
        Self { name: column.name, sql_type: column.sql_type, title_es: column.title_es, title_en: column.title_en }
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    if let Some(name) = &args.dataset {
        lake.dataset(name)?;
    }
    let mut lines = Vec::new();
    for dataset in lake.datasets.iter().filter(|dataset| args.dataset.as_ref().is_none_or(|name| dataset.name == *name)) {
        let snapshot = lake.snapshot(&dataset.name, &Versions::default()).await?;
        let snapshot = snapshot.as_ref();
        let days = days_name(dataset)
            .map(|name| DaysLine { name, columns: days_columns(dataset).into_iter().map(ColumnLine::from).collect() });
        lines.push(TableLine {
            dataset: dataset.name.clone(),
            title_es: dataset.titles.es.clone(),
            title_en: dataset.titles.en.clone(),
            version: snapshot.map(|snapshot| snapshot.version()),
            files: snapshot.map_or(0, |snapshot| snapshot.file_count() as u64),
            rows: snapshot.map_or(0, |snapshot| snapshot.files().filter_map(|file| file.rows()).sum()),
            bytes: snapshot.map_or(0, |snapshot| snapshot.files().map(|file| file.size).sum()),
            doubtful: snapshot.map(|snapshot| doubtful_files(snapshot, dataset)).unwrap_or_default(),
            table: dataset.name.clone(),
            columns: view_columns(dataset).into_iter().map(ColumnLine::from).collect(),
            days,
        });
    }
    context.answer(&serde_json::json!({"tables": lines}), |lang| match args.dataset {
        Some(_) => columns_text(lang, &lines),
        None => lines_text(lang, &lines),
    })?;
    Ok(Exit::Ok)
}

fn lines_text(lang: Lang, lines: &[TableLine]) -> String {
    let header = lang.pick(
        ["Tabla", "Contenido", "Versión", "Filas", "Archivos", "Tamaño"],
        ["Table", "Content", "Version", "Rows", "Files", "Size"],
    );
    let mut table = show::table(&header);
    for line in lines {
        table.add_row([
            show::cell(&line.table),
            show::cell(lang.pick(&line.title_es, &line.title_en)),
            show::right(line.version.map_or("-".to_owned(), |version| version.to_string())),
            show::right(show::number(lang, line.rows)),
            show::right(show::number(lang, line.files)),
            show::right(show::bytes(lang, line.bytes)),
        ]);
    }
    let more = lang.pick(
        "Columnas de una tabla: ribera tables NOMBRE. `ventas_raw` es otro nombre de `ventas`; `ventas_days` tiene sus filas y sumas por día.",
        "Columns of a table: ribera tables NAME. `ventas_raw` is another name of `ventas`; `ventas_days` has its rows and sums by day.",
    );
    let mut text = format!("{}\n{more}", show::table_text(&table));
    for line in lines.iter().filter(|line| !line.doubtful.is_empty()) {
        let (name, count) = (&line.table, line.doubtful.len());
        let warning = lang.pick(
            format!("{name}: el registro de {count} archivos no es de fiar, y sus filas pueden faltar en la cuenta: ribera verify"),
            format!("{name}: the log record of {count} files cannot be trusted, and the count may lack their rows: ribera verify"),
        );
        text.push_str(&format!("\n{}", crate::terminal::paint(&warning, crate::terminal::colour::YELLOW)));
    }
    text
}

fn columns_text(lang: Lang, lines: &[TableLine]) -> String {
    let mut texts = vec![lines_text(lang, lines)];
    let Some(line) = lines.first() else { return texts.remove(0) };
    texts.push(column_table(lang, &line.columns));
    if let Some(days) = &line.days {
        let what = lang.pick(
            "filas y sumas de cada día y tienda, sin abrir archivos de datos",
            "rows and sums of each store and day; opens no data file",
        );
        texts.push(format!("{}: {what}\n{}", days.name, column_table(lang, &days.columns)));
    }
    texts.join("\n\n")
}

fn column_table(lang: Lang, columns: &[ColumnLine]) -> String {
    let mut table = show::table(&lang.pick(["Columna", "Tipo", "Qué es"], ["Column", "Type", "What it is"]));
    for column in columns {
        table.add_row([&column.name, &column.sql_type, lang.pick(&column.title_es, &column.title_en)].map(show::cell));
    }
    show::table_text(&table)
}
