//! `ribera export duckdb FILE`: the lake as a DuckDB database of its own.

use std::path::PathBuf;

use jiff::civil::Date;
use ribera_core::coverage::{Coverage, DayState};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::engine::{DoubtfulFile, ExportDataset, ExportTable, export, view_files};
use ribera_storage::ports::Clock;
use ribera_storage::{DatasetName, Result};
use serde_json::json;

use crate::cli::{Context, Exit};
use crate::evidence::{Evidence, Judgement};
use crate::lake::{DatasetTable, Lake, Versions};
use crate::ports::SystemClock;
use crate::show;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Format {
    /// Una base DuckDB que se abre sin extensiones ni lago. / A DuckDB database that opens without extensions or lake.
    #[command(after_help = "Una tabla por conjunto, otra con sus filas y sumas por día (`ventas_days`), `ventas_raw` como otro nombre de
`ventas`, `ribera_coverage_runs` con el estado de cada día-tienda, `ribera_stores` con las tiendas y
`ribera_doubtful_files` con los archivos cuyo registro no es de fiar. El archivo se cambia entero al terminar.
/ A table for each dataset, one more with its rows and sums by day (`ventas_days`), `ventas_raw` as another name
of `ventas`, `ribera_coverage_runs` with the state of every store-day, `ribera_stores` with the stores and
`ribera_doubtful_files` with the files whose log record cannot be trusted. The file is swapped in whole at the end.

Ejemplo / Example:
  ribera export duckdb ventas.duckdb --dataset ventas")]
    Duckdb {
        /// Archivo por escribir. / File to write.
        file: PathBuf,
        /// Solo estos conjuntos, repetible; por omisión, los que tienen datos. / Only these datasets, repeatable; those with data by default.
        #[arg(long)]
        dataset: Vec<DatasetName>,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let Format::Duckdb { file, dataset: wanted } = args.format;
    let lake = Lake::open(context).await?;
    for name in &wanted {
        lake.dataset(name)?;
    }
    let root = lake.root()?;
    let is_wanted = |dataset: &DatasetDefinition| wanted.is_empty() || wanted.contains(&dataset.name);
    // Evidence, snapshots, rows, judgement: see `evidence`.
    let evidence = Evidence::gather(&lake, is_wanted, |_| true).await?;
    let mut tables = lake.tables_of(is_wanted, |_| true, &Versions::default()).await?;
    if wanted.is_empty() {
        tables.retain(|_, one| one.snapshot.is_some());
    }
    let mut datasets = Vec::new();
    let (mut versions, mut days, mut doubts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut doubtful_files, mut unknown) = (Vec::new(), Vec::new());
    for (name, DatasetTable { snapshot, doubtful }) in tables {
        let dataset = lake.dataset(&name)?;
        let mut files = Vec::new();
        if let Some(snapshot) = &snapshot {
            files.extend(view_files(snapshot, dataset, &root)?);
            versions.push(vec![
                Some(snapshot.table().to_string()),
                Some(snapshot.version().to_string()),
                Some(SystemClock.now().to_string()),
            ]);
        }
        match evidence.judge(&lake, &name, snapshot.clone()).await? {
            Judgement::Known(coverage) => days.extend(coverage_rows(&coverage)),
            Judgement::Unknown(why) => unknown.push((name.clone(), why)),
        }
        doubts.extend(doubtful.iter().map(|file| doubt_row(&name, file)));
        doubtful_files.push((name, doubtful));
        datasets.push(ExportDataset { dataset, snapshot, files });
    }
    let tables = [
        stores_table(&lake),
        ExportTable {
            name: "ribera_coverage_runs".into(),
            columns: "dataset VARCHAR, store_id VARCHAR, from_date DATE, to_date DATE, state VARCHAR".into(),
            rows: days,
            comment: "Días-tienda seguidos de igual estado / Runs of store-days of one state".into(),
        },
        ExportTable {
            name: "ribera_doubtful_files".into(),
            columns: "dataset VARCHAR, store_id VARCHAR, file VARCHAR, doubt VARCHAR".into(),
            rows: doubts,
            comment: "Archivos cuyo registro no es de fiar / Files whose log record cannot be trusted".into(),
        },
        ExportTable {
            name: "ribera_export".into(),
            columns: "table_name VARCHAR, version BIGINT, exported_at TIMESTAMP".into(),
            rows: versions,
            comment: "Versiones exportadas / Versions exported".into(),
        },
    ];
    let mut rows = Vec::new();
    export(&lake.engine_options()?, &datasets, &tables, &lake.zones(), &root, &file, |name, count| {
        rows.push((name.to_owned(), count));
    })?;
    let bytes = std::fs::metadata(&file)?.len();
    let value = json!({
        "file": file.display().to_string(), "bytes": bytes,
        "tables": rows.iter().map(|(name, rows)| json!({"name": name, "rows": rows})).collect::<Vec<_>>(),
        "doubtful": doubtful_files.iter().flat_map(|(_, files)| files).collect::<Vec<_>>(),
        "coverage_unknown": unknown.iter().map(|(name, why)| json!({"dataset": name, "why": why})).collect::<Vec<_>>(),
    });
    context.answer(&value, |lang| {
        let mut lines: Vec<String> = rows
            .iter()
            .map(|(name, count)| {
                let count = show::number(lang, *count);
                lang.pick(format!("{name}: {count} filas"), format!("{name}: {count} rows"))
            })
            .collect();
        lines.push(format!("{} ({})", file.display(), show::bytes(lang, bytes)));
        lines.extend(unknown.iter().map(|(name, why)| {
            lang.pick(
                format!("Cobertura de {name}: no se conoce. {why}"),
                format!("Coverage of {name}: not known. {why}"),
            )
        }));
        lines.extend(doubtful_files.iter().flat_map(|(name, files)| show::doubtful_lines(lang, name, files)));
        lines.join("\n")
    })?;
    Ok(Exit::Ok)
}

fn doubt_row(dataset: &DatasetName, file: &DoubtfulFile) -> Vec<Option<String>> {
    let doubt = file.doubt.as_str().to_owned();
    vec![Some(dataset.to_string()), file.store.clone(), Some(file.path.clone()), Some(doubt)]
}

fn coverage_rows(coverage: &Coverage) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    for store in &coverage.stores {
        let mut run: Option<(Date, Date, DayState)> = None;
        let mut push = |run: Option<(Date, Date, DayState)>| {
            if let Some((from, to, state)) = run {
                let name = serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned));
                rows.push(vec![
                    Some(coverage.dataset.to_string()),
                    Some(store.store.to_string()),
                    Some(from.to_string()),
                    Some(to.to_string()),
                    name,
                ]);
            }
        };
        for (date, state) in store.calendar.days() {
            match &mut run {
                Some((_, to, same)) if *same == state => *to = date,
                _ => {
                    push(run.take());
                    run = Some((date, date, state));
                }
            }
        }
        push(run);
    }
    rows
}

fn stores_table(lake: &Lake) -> ExportTable {
    let rows = lake.stores.iter().map(|store| {
        vec![
            Some(store.id.to_string()),
            Some(store.name.clone()),
            store.tenant.clone(),
            Some(store.time_zone.clone()),
            store.opened.map(|date| date.to_string()),
            store.closed.map(|date| date.to_string()),
            Some(store.active.to_string()),
        ]
    });
    ExportTable {
        name: "ribera_stores".into(),
        columns: "store_id VARCHAR, name VARCHAR, tenant VARCHAR, time_zone VARCHAR, opened DATE, closed DATE, active BOOLEAN"
            .into(),
        rows: rows.collect(),
        comment: "Tiendas declaradas / Declared stores".into(),
    }
}
