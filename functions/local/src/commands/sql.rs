//! `ribera sql`: answers SQL over the lake, and says what is missing behind the answer.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};

use ribera_core::coverage::AnswerCoverage;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::engine::{
    Answer, AnswerColumn, DoubtfulFile, Engine, Planner, Scans, days_name, stores_of, view_files,
};
use ribera_storage::{DatasetName, Error, Result, StoreId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::{Context, Exit, Lang};
use crate::evidence::{Evidence, Judgement};
use crate::lake::{DatasetTable, Lake, Versions};
use crate::terminal::colour::{GREEN, YELLOW};
use crate::{show, terminal};

/// Rows that the table for people shows; `--csv` and `--json` give all.
const TABLE_ROWS_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Ejemplos / Examples:
  ribera sql \"SELECT store_id, month, sum(total) FROM ventas GROUP BY ALL ORDER BY ALL\"
  ribera sql \"SELECT month, sum(rows), sum(total) FROM ventas_days GROUP BY ALL ORDER BY ALL\"
  ribera sql --csv \"SELECT * FROM ventas WHERE fecha = '2017-03-01'\" > ventas.csv
  ribera sql --version 12 \"SELECT count(*) FROM ventas\"
  ribera sql --require-complete \"SELECT sum(total) FROM ventas WHERE month = '2017-03'\"")]
pub struct Args {
    /// La consulta (DuckDB), de solo lectura; `-` la lee de la entrada. / The query (DuckDB), read-only; `-` reads it from standard input.
    query: String,
    /// Filas como CSV; la cobertura va a la salida de errores. / Rows as CSV; the coverage goes to standard error.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Lee la tabla como estaba en esta versión (N o TABLA=N). / Reads the table as of this version (N or TABLE=N).
    #[arg(long, value_name = "[TABLE=]N")]
    version: Vec<String>,
    /// Termina con 1 si falta algún día detrás de la respuesta. / Exits with 1 when any day behind the answer is not complete.
    #[arg(long)]
    require_complete: bool,
}

/// The coverage behind an answer, by dataset.
#[derive(Debug, Serialize)]
struct Behind {
    /// Every due store-day behind the answer is complete.
    complete: bool,
    /// Filters of the query narrowed the store-days; else the whole dataset counts.
    narrowed: bool,
    /// The version read of each table.
    versions: BTreeMap<DatasetName, u64>,
    /// Files behind the answer whose log record cannot be trusted. Their rows are in the answer.
    doubtful: Vec<DoubtfulFile>,
    /// Why the coverage is not known; then nothing counts as complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
    #[serde(flatten)]
    coverage: AnswerCoverage,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let query = query_text(&args.query)?;
    let lake = Lake::open(context).await?;
    let planner = Planner::open(&lake.datasets)?;
    let select = planner.read_only(&query)?;
    let scans = planner.scans(&select)?;
    let is_read = |dataset: &DatasetDefinition| scans.reads_of(dataset.name.as_str());
    let versions = settle_versions(&lake, &scans, &args.version)?;
    // Evidence, snapshots, answer, judgement: a doubt that is settled while the query runs still
    // counts for the rows that the query read.
    let is_touched =
        |store: &StoreId| lake.datasets.iter().any(|dataset| scans.touch(dataset, store, None));
    let reads_days = |dataset: &DatasetDefinition| days_name(dataset).is_some_and(|days| scans.reads(&days));
    let evidence = Evidence::gather(&lake, is_read, is_touched).await?;
    let tables = lake.tables_of(is_read, reads_days, &versions).await?;

    let engine = open_engine(&lake, &scans, &tables)?;
    let answer = engine.ask(&select)?;
    if context.json {
        let mut out = terminal::safe_json(std::io::stdout().lock());
        write_json_rows(&mut out, &answer)?;
        let behind = all_behind(&lake, &scans, &evidence, tables).await?;
        let coverage = serde_json::to_string(&behind).map_err(unserialisable)?;
        return finish(writeln!(out, "\"coverage\":{coverage}}}"), &args, &behind);
    }
    if args.csv {
        write_csv(&mut csv_output(), &answer)?;
    } else {
        terminal::print(&table_text(context.lang, &answer)?)?;
    }
    let behind = all_behind(&lake, &scans, &evidence, tables).await?;
    let notes: Vec<String> = behind.iter().map(|one| note(context, one)).collect();
    if args.csv {
        notes.iter().for_each(|note| terminal::complain(note));
    } else if !notes.is_empty() {
        terminal::print(&format!("\n{}", notes.join("\n")))?;
    }
    finish(Ok(()), &args, &behind)
}

/// A reader that went away is no error.
fn finish(written: std::io::Result<()>, args: &Args, behind: &[Behind]) -> Result<Exit> {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let complete = behind.iter().all(|one| one.complete);
    Ok(if args.require_complete && !complete { Exit::Findings } else { Exit::Ok })
}

fn query_text(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    std::io::read_to_string(std::io::stdin()).map_err(|error| Error::from(error).context("standard input"))
}

fn settle_versions(lake: &Lake, scans: &Scans, texts: &[String]) -> Result<Versions> {
    let mut versions = Versions::parse(texts)?;
    let mut tables = Vec::new();
    for dataset in &lake.datasets {
        if scans.reads_of(dataset.name.as_str()) {
            tables.push(dataset.name.clone());
        }
    }
    versions.settle(&tables)?;
    Ok(versions)
}

/// Every dataset can be described, its rows and its days. The rows of those that the query reads
/// are there; DuckDB itself decides which files its filters need.
fn open_engine(lake: &Lake, scans: &Scans, tables: &BTreeMap<DatasetName, DatasetTable>) -> Result<Engine> {
    let engine = Engine::open(&lake.engine_options()?)?;
    let (root, zones) = (lake.root()?, lake.zones());
    for dataset in &lake.datasets {
        let name = dataset.name.as_str();
        let snapshot = tables.get(&dataset.name).and_then(|table| table.snapshot.as_ref());
        if scans.reads(name) {
            let files = snapshot.map(|snapshot| view_files(snapshot, dataset, &root)).transpose()?.unwrap_or_default();
            let stores = snapshot.and_then(stores_of);
            engine.define(dataset, &files, stores.as_ref(), &zones, scans.narrow(name))?;
        } else {
            engine.define_unread(dataset)?;
        }
        match days_name(dataset) {
            Some(days) if scans.reads(&days) => engine.define_days(dataset, snapshot, &root)?,
            _ => engine.define_unread_days(dataset)?,
        }
    }
    engine.define_other_names(&lake.datasets)?;
    engine.lock()?;
    Ok(engine)
}

async fn all_behind(
    lake: &Lake,
    scans: &Scans,
    evidence: &Evidence,
    tables: BTreeMap<DatasetName, DatasetTable>,
) -> Result<Vec<Behind>> {
    let mut all = Vec::new();
    for (name, DatasetTable { snapshot, doubtful }) in tables {
        let dataset = lake.dataset(&name)?;
        let versions = snapshot.iter().map(|snapshot| (snapshot.table().clone(), snapshot.version())).collect();
        // By the very versions that were read, whatever was committed meanwhile.
        let (coverage, unknown) = match evidence.judge(lake, &name, snapshot).await? {
            Judgement::Known(coverage) => (coverage.behind_where(scans.touched(dataset)), None),
            Judgement::Unknown(why) => {
                let (days, gaps) = Default::default();
                (AnswerCoverage { dataset: name.clone(), days, gaps }, Some(why))
            }
        };
        let doubtful: Vec<DoubtfulFile> =
            doubtful.into_iter().filter(|file| may_be_behind(scans, dataset, file)).collect();
        all.push(Behind {
            complete: coverage.days.missing == 0
                && coverage.days.partial == 0
                && unknown.is_none()
                && doubtful.is_empty(),
            narrowed: scans.narrow(name.as_str()),
            versions,
            doubtful,
            unknown,
            coverage,
        });
    }
    Ok(all)
}

/// Whether rows of the file can be behind the answer.
fn may_be_behind(scans: &Scans, dataset: &DatasetDefinition, file: &DoubtfulFile) -> bool {
    match file.store.as_deref().and_then(|store| store.parse().ok()) {
        Some(store) => scans.touch(dataset, &store, None),
        None => true,
    }
}

fn table_text(lang: Lang, answer: &Answer<'_>) -> Result<String> {
    let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    let mut table = show::table(&names);
    let mut rows = 0_usize;
    answer.each_row(|row| {
        rows += 1;
        if rows <= TABLE_ROWS_MAX {
            let cells = row.iter().zip(&answer.columns).map(|(cell, column)| {
                let text = cell.unwrap_or("NULL");
                if is_number(&column.sql_type) { show::right(text) } else { show::cell(text) }
            });
            table.add_row(cells.collect::<Vec<_>>());
        }
        Ok(())
    })?;
    let count = show::number(lang, rows as u64);
    let mut text = show::table_text(&table);
    if rows > TABLE_ROWS_MAX {
        let shown = show::number(lang, TABLE_ROWS_MAX as u64);
        text.push_str(&lang.pick(
            format!("\n{shown} de {count} filas; todas con --csv o --json"),
            format!("\n{shown} of {count} rows; all of them with --csv or --json"),
        ));
    } else if std::io::stdout().is_terminal() || rows != 1 {
        text.push('\n');
        text.push_str(&show::counted(lang, rows as u64, ["fila", "filas"], ["row", "rows"]));
    }
    Ok(text)
}

/// `{"columns":[...],"rows":[{...},...],` with the end left to the caller. Rows are objects.
/// Integers beyond 2^53 and decimals are strings: exact for every reader.
fn write_json_rows(out: &mut impl std::io::Write, answer: &Answer<'_>) -> Result<()> {
    let names = unique_names(&answer.columns);
    let columns: Vec<Value> = names
        .iter()
        .zip(&answer.columns)
        .map(|(name, column)| json!({"name": name, "type": column.sql_type}))
        .collect();
    write!(out, "{{\"columns\":{},\"rows\":[", Value::from(columns))?;
    let mut count = 0_u64;
    answer.each_row(|row| {
        let cells = names.iter().zip(row).zip(&answer.columns);
        let object: Map<String, Value> =
            cells.map(|((name, cell), column)| (name.clone(), json_value(*cell, &column.sql_type))).collect();
        let comma = if count > 0 { "," } else { "" };
        count += 1;
        Ok(write!(out, "{comma}{}", Value::from(object))?)
    })?;
    Ok(write!(out, "],\"row_count\":{count},")?)
}

/// Files and pipes get the values as they are; a terminal gets no control characters.
fn csv_output() -> Box<dyn std::io::Write> {
    let out = std::io::stdout().lock();
    if std::io::stdout().is_terminal() { Box::new(terminal::safe_text(out)) } else { Box::new(out) }
}

fn write_csv(out: &mut impl std::io::Write, answer: &Answer<'_>) -> Result<()> {
    let mut out = std::io::BufWriter::new(out);
    let header: Vec<String> = answer.columns.iter().map(|column| csv_field(&column.name)).collect();
    let written = (|| {
        writeln!(out, "{}", header.join(","))?;
        answer.each_row(|row| {
            let cells: Vec<String> = row.iter().map(|cell| cell.map(csv_field).unwrap_or_default()).collect();
            Ok(writeln!(out, "{}", cells.join(","))?)
        })?;
        Ok(out.flush()?)
    })();
    match written {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        written => written,
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An empty text is quoted: it is not NULL.
fn csv_field(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([',', '"', '\n', '\r']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

fn unique_names(columns: &[AnswerColumn]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for column in columns {
        let mut name = column.name.clone();
        let mut number = 1;
        while names.contains(&name) {
            name = format!("{}_{number}", column.name);
            number += 1;
        }
        names.push(name);
    }
    names
}

fn json_value(cell: Option<&str>, sql_type: &str) -> Value {
    const EXACT_MAX: i64 = 1 << 53;
    let Some(text) = cell else { return Value::Null };
    let exact = || text.parse::<i64>().ok().filter(|value| value.abs() <= EXACT_MAX).map(Value::from);
    let value = match sql_type {
        "BOOLEAN" => text.parse::<bool>().ok().map(Value::from),
        "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT" | "UTINYINT" | "USMALLINT" | "UINTEGER"
        | "UBIGINT" | "UHUGEINT" => exact(),
        "FLOAT" | "DOUBLE" => text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Value::from),
        "TIMESTAMP WITH TIME ZONE" => Some(Value::from(text.replacen(' ', "T", 1).replace("+00", "Z"))),
        "TIMESTAMP" => Some(Value::from(text.replacen(' ', "T", 1))),
        _ => None,
    };
    value.unwrap_or_else(|| Value::from(text))
}

fn is_number(sql_type: &str) -> bool {
    sql_type.starts_with("DECIMAL")
        || matches!(
            sql_type,
            "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT" | "UTINYINT" | "USMALLINT" | "UINTEGER"
                | "UBIGINT" | "UHUGEINT" | "FLOAT" | "DOUBLE"
        )
}

/// What the answer's last lines say about one dataset.
fn note(context: &Context, behind: &Behind) -> String {
    let lang = context.lang;
    let dataset = &behind.coverage.dataset;
    let mut lines = match &behind.unknown {
        Some(why) => {
            let head = lang.pick(
                format!("Cobertura de {dataset}: no se conoce. {why}"),
                format!("Coverage of {dataset}: not known. {why}"),
            );
            vec![terminal::paint(&head, YELLOW)]
        }
        None => coverage_lines(lang, behind),
    };
    lines.extend(show::doubtful_lines(lang, dataset, &behind.doubtful));
    lines.join("\n")
}

fn coverage_lines(lang: Lang, behind: &Behind) -> Vec<String> {
    /// Runs of gaps that are listed before the rest is summed up.
    const RUNS_MAX: usize = 10;
    let AnswerCoverage { dataset, days, gaps } = &behind.coverage;
    let due = show::number(lang, days.complete + days.partial + days.missing);
    let scope = match behind.narrowed {
        true => "",
        false => lang.pick(" (todo el conjunto)", " (the whole dataset)"),
    };
    if days.partial + days.missing == 0 {
        let text = match days.complete {
            0 => lang.pick(
                format!("Cobertura de {dataset}{scope}: no hay días exigibles detrás de esta respuesta."),
                format!("Coverage of {dataset}{scope}: no due days behind this answer."),
            ),
            _ => lang.pick(
                format!("Cobertura de {dataset}{scope}: completos los {due} días-tienda detrás de esta respuesta."),
                format!("Coverage of {dataset}{scope}: all {due} store-days behind this answer are complete."),
            ),
        };
        return vec![terminal::paint(&text, GREEN)];
    }
    let what = gap_counts(lang, days.missing, days.partial);
    let head = lang.pick(
        format!("Cobertura de {dataset}{scope}: de {due} días-tienda detrás de esta respuesta, {what}:"),
        format!("Coverage of {dataset}{scope}: of {due} store-days behind this answer, {what}:"),
    );
    let mut lines = vec![terminal::paint(&head, YELLOW)];
    for gap in gaps.iter().take(RUNS_MAX) {
        let what = gap_counts(lang, gap.missing.into(), gap.partial.into());
        lines.push(format!("  {}  {}  {what}", gap.store, show::days(gap.from, gap.to)));
    }
    if gaps.len() > RUNS_MAX {
        let rest = gaps.len() - RUNS_MAX;
        lines.push(lang.pick(format!("  … y {rest} tramos más"), format!("  … and {rest} more runs")));
    }
    let recover = format!("ribera recover --dataset {dataset}");
    lines.push(lang.pick(format!("  Para recuperarlos: {recover}"), format!("  To recover them: {recover}")));
    lines
}

/// `faltan 21, parciales 2` and the like.
pub fn gap_counts(lang: Lang, missing: u64, partial: u64) -> String {
    let counted = |count: u64, es: [&str; 2], en: &str| {
        let number = show::number(lang, count);
        match lang {
            Lang::Es => format!("{} {number}", es[usize::from(count != 1)]),
            Lang::En => format!("{number} {en}"),
        }
    };
    let mut parts = Vec::new();
    if missing > 0 {
        parts.push(counted(missing, ["falta", "faltan"], "missing"));
    }
    if partial > 0 {
        parts.push(counted(partial, ["parcial", "parciales"], "partial"));
    }
    parts.join(", ")
}

fn unserialisable(error: serde_json::Error) -> Error {
    Error::bug("answer does not serialise").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_values_keep_exact_what_a_double_would_lose() {
        assert_eq!(json_value(Some("4596039.58"), "DECIMAL(38,2)"), json!("4596039.58"));
        assert_eq!(json_value(Some("152923108"), "HUGEINT"), json!(152_923_108));
        assert_eq!(json_value(Some("9007199254740993"), "BIGINT"), json!("9007199254740993"));
        assert_eq!(json_value(Some("2017-01-02 03:30:00+00"), "TIMESTAMP WITH TIME ZONE"), json!("2017-01-02T03:30:00Z"));
        assert_eq!(json_value(None, "DATE"), Value::Null);
    }

    #[test]
    fn csv_tells_an_empty_text_from_null() {
        assert_eq!(csv_field(""), "\"\"");
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv_field("a b"), "a b");
    }
}
