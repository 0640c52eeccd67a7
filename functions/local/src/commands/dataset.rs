//! `ribera dataset check|list|publish`: the dataset definitions.

use std::path::PathBuf;

use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::dataset::evolution;
use ribera_storage::{DatasetName, Error, Result};
use serde::Serialize;
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::show;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Revisa una definición, y si las tablas admiten el cambio. / Checks a definition, and whether the tables can take the change.
    #[command(after_help = "Ejemplo / Example:\n  ribera dataset check mi_conjunto.toml")]
    Check {
        /// Definición TOML. / TOML definition.
        file: PathBuf,
    },
    /// Muestra las definiciones publicadas y las incluidas. / Shows the published and the shipped definitions.
    List,
    /// Publica una definición para agentes y funciones. / Publishes a definition for agents and functions.
    #[command(after_help = "Ejemplos / Examples:
  ribera dataset publish mi_conjunto.toml
  ribera dataset publish --shipped ventas")]
    Publish {
        /// Definición TOML. / TOML definition.
        #[arg(required_unless_present = "shipped")]
        file: Option<PathBuf>,
        /// Una de las incluidas. / One of those shipped.
        #[arg(long, value_name = "NAME", conflicts_with = "file")]
        shipped: Option<DatasetName>,
    },
}

#[derive(Debug, Serialize)]
struct Line {
    name: DatasetName,
    title_es: String,
    title_en: String,
    kind: String,
    version: u32,
    columns: usize,
    schedule: String,
    lookback_days: u32,
    published: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    match args.action {
        Action::Check { file } => check(&file, context).await,
        Action::List => list(context).await,
        Action::Publish { file, shipped } => publish(file, shipped, context).await,
    }
}

async fn check(file: &std::path::Path, context: &Context) -> Result<Exit> {
    let dataset = read(file)?;
    // Without a lake the definition alone is checked.
    let in_force = match context.lake.is_dir() {
        true => control::load_dataset(&context.existing_store()?, &dataset.name).await?,
        false => None,
    };
    if in_force.is_none() {
        dataset.check_new_name().map_err(|error| error.context(file.display()))?;
    }
    let change = match &in_force {
        None => "new",
        Some(in_force) if *in_force == dataset => "none",
        Some(in_force) => match evolution::between(in_force, &dataset)? {
            evolution::Evolution::None => "settings",
            evolution::Evolution::Metadata => "columns",
            evolution::Evolution::Rewrite => "rewrite",
        },
    };
    let value = json!({"name": dataset.name, "version": dataset.version, "columns": dataset.columns.len(), "change": change, "valid": true});
    context.answer(&value, |lang| {
        let change = match change {
            "new" => lang.pick("es un conjunto nuevo", "it is a new dataset"),
            "none" => lang.pick("igual a la vigente", "the same as the one in force"),
            "settings" => lang.pick("cambia ajustes, no columnas", "it changes settings, no columns"),
            "columns" => lang.pick("agrega o ensancha columnas; los archivos quedan como están", "it adds or widens columns; files stay as they are"),
            _ => lang.pick("ensancha columnas; `ribera maintain` reescribe los archivos", "it widens columns; `ribera maintain` rewrites the files"),
        };
        let (name, count) = (&dataset.name, dataset.columns.len());
        lang.pick(
            format!("Definición válida: {name}, versión {}, {count} columnas; {change}.", dataset.version),
            format!("Valid definition: {name}, version {}, {count} columns; {change}.", dataset.version),
        )
    })?;
    Ok(Exit::Ok)
}

async fn list(context: &Context) -> Result<Exit> {
    let (published, all) = match context.lake.is_dir() {
        true => {
            let objects = context.existing_store()?;
            (control::load_published_datasets(&objects).await?, control::load_datasets(&objects).await?)
        }
        false => {
            let shipped = ribera_storage::dataset::SHIPPED.iter().map(|(_, text)| DatasetDefinition::from_toml(text));
            (Vec::new(), shipped.collect::<Result<Vec<_>>>()?)
        }
    };
    let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let lines: Vec<Line> = all
        .iter()
        .map(|dataset| Line {
            name: dataset.name.clone(),
            title_es: dataset.titles.es.clone(),
            title_en: dataset.titles.en.clone(),
            kind: lower(&dataset.kind),
            version: dataset.version,
            columns: dataset.columns.len(),
            schedule: dataset.schedule.clone(),
            lookback_days: dataset.lookback_days,
            published: published.iter().any(|one| one.name == dataset.name),
        })
        .collect();
    context.answer(&json!({"datasets": lines}), |lang| list_text(lang, &lines))?;
    Ok(Exit::Ok)
}

async fn publish(file: Option<PathBuf>, shipped: Option<DatasetName>, context: &Context) -> Result<Exit> {
    let dataset = match (file, shipped) {
        (Some(file), _) => read(&file)?,
        (None, Some(name)) => ribera_storage::dataset::shipped(name.as_str()).transpose()?.ok_or_else(|| {
            Error::config(format!("--shipped: must be a dataset that comes with Ribera, got {name}"))
                .with_hint("ribera dataset list")
        })?,
        (None, None) => return Err(Error::config("FILE: must be given without --shipped, got nothing")),
    };
    let published = control::publish_dataset(&context.store()?, &dataset).await?;
    let value = json!({"name": dataset.name, "number": published.number, "changed": published.changed});
    context.answer(&value, |lang| {
        let name = &dataset.name;
        match published.changed {
            true => lang.pick(format!("Publicado: {name} ({}).", published.number), format!("Published: {name} ({}).", published.number)),
            false => lang.pick(format!("{name}: ya estaba publicado así."), format!("{name}: was published like this already.")),
        }
    })?;
    Ok(Exit::Ok)
}

fn read(file: &std::path::Path) -> Result<DatasetDefinition> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::config(format!("FILE: must be a readable TOML file, got {}", file.display())).with_source(error)
    })?;
    DatasetDefinition::from_toml(&text).map_err(|error| error.context(file.display()))
}

fn list_text(lang: Lang, lines: &[Line]) -> String {
    let header = lang.pick(
        ["Conjunto", "Contenido", "Clase", "Versión", "Columnas", "Cada", "Días que revisa", "Publicado"],
        ["Dataset", "Content", "Kind", "Version", "Columns", "Every", "Lookback days", "Published"],
    );
    let mut table = show::table(&header);
    for line in lines {
        let published = if line.published { lang.pick("sí", "yes") } else { lang.pick("incluido", "shipped") };
        table.add_row([
            line.name.to_string(),
            lang.pick(&line.title_es, &line.title_en).clone(),
            line.kind.clone(),
            line.version.to_string(),
            line.columns.to_string(),
            line.schedule.clone(),
            line.lookback_days.to_string(),
            published.to_owned(),
        ].map(show::cell));
    }
    show::table_text(&table)
}
