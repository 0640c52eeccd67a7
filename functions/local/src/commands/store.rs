//! `ribera store add|list`: the stores that are declared.

use std::path::PathBuf;

use jiff::civil::Date;
use ribera_storage::control;
use ribera_storage::store::{StoreDefinition, WeekdayName};
use ribera_storage::{Error, Result, StoreId, TaxNumber};
use serde::{Deserialize, Serialize};
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
    /// Declara tiendas, o cambia las declaradas. / Declares stores, or changes declared ones.
    Add(Box<AddArgs>),
    /// Muestra las tiendas declaradas. / Shows the declared stores.
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Ejemplos / Examples:
  ribera store add centro --name \"Tienda Centro\" --zone America/Santiago --opened 2024-03-01 --rest sunday
  ribera store add --file tiendas.toml

El archivo lleva una tienda, o muchas como [[store]]. / The file holds one store, or many as [[store]]:
  [[store]]
  id = \"centro\"
  name = \"Tienda Centro\"
  time_zone = \"America/Santiago\"")]
struct AddArgs {
    /// Identificador: a-z, 0-9, _ y -, hasta 32. / Identifier: a-z, 0-9, _ and -, up to 32.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    id: Option<StoreId>,
    /// Nombre para las personas; por omisión, el identificador. / Name for people; the identifier by default.
    #[arg(long)]
    name: Option<String>,
    /// Zona horaria IANA, como America/Santiago. / IANA time zone, such as America/Santiago.
    #[arg(long = "zone", value_name = "ZONE", required_unless_present = "file")]
    time_zone: Option<String>,
    /// Número tributario de la empresa; sin puntos, guiones ni blancos se guarda. / The company's tax number; kept without dots, dashes and blanks.
    #[arg(long)]
    tenant: Option<String>,
    /// Donde se alcanza la base de datos desde el centro, si se alcanza. / Where the database is reachable from the centre, if at all.
    #[arg(long)]
    host: Option<String>,
    #[arg(long)]
    port: Option<u16>,
    /// Primer día de negocio. / First business day.
    #[arg(long, value_name = "DATE")]
    opened: Option<Date>,
    /// Último día de negocio. / Last business day.
    #[arg(long, value_name = "DATE")]
    closed: Option<Date>,
    /// Día de descanso semanal (monday … sunday), repetible. / Weekly rest day, repeatable.
    #[arg(long = "rest", value_name = "WEEKDAY", value_parser = weekday)]
    rest_days: Vec<WeekdayName>,
    /// Feriado, repetible. / Holiday, repeatable.
    #[arg(long = "holiday", value_name = "DATE")]
    holidays: Vec<Date>,
    /// No se espera nada de ella. / Nothing is expected of it.
    #[arg(long)]
    inactive: bool,
    /// La recuperación automática no la toca. / Automatic repair leaves it alone.
    #[arg(long)]
    hold_repair: bool,
    /// Archivo TOML con una o muchas tiendas. / TOML file with one or many stores.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "time_zone", "tenant", "host", "port", "opened", "closed", "rest_days", "holidays", "inactive", "hold_repair"])]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// También las inactivas. / Inactive ones as well.
    #[arg(long)]
    all: bool,
}

/// A file with many stores.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoresFile {
    store: Vec<StoreDefinition>,
}

#[derive(Debug, Serialize)]
struct Added {
    store: StoreId,
    number: u64,
    changed: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    match args.action {
        Action::Add(args) => add(*args, context).await,
        Action::List(args) => list(&args, context).await,
    }
}

async fn add(args: AddArgs, context: &Context) -> Result<Exit> {
    let stores = match &args.file {
        Some(file) => read_stores(file)?,
        None => vec![from_flags(args)?],
    };
    let published = control::publish_stores(&context.store()?, &stores).await?;
    let added: Vec<Added> = stores
        .iter()
        .zip(&published)
        .map(|(store, published)| Added { store: store.id.clone(), number: published.number, changed: published.changed })
        .collect();
    context.answer(&json!({"stores": added}), |lang| added_text(lang, &added))?;
    Ok(Exit::Ok)
}

async fn list(args: &ListArgs, context: &Context) -> Result<Exit> {
    let mut stores = control::load_stores(&context.existing_store()?).await?;
    stores.retain(|store| args.all || store.active);
    context.answer(&json!({"stores": stores}), |lang| list_text(lang, &stores))?;
    Ok(Exit::Ok)
}

fn read_stores(file: &std::path::Path) -> Result<Vec<StoreDefinition>> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::config(format!("--file: must be a readable TOML file, got {}", file.display())).with_source(error)
    })?;
    let value: toml::Table = toml::from_str(&text)
        .map_err(|error| Error::config(format!("{}: {}", file.display(), error.to_string().trim_end())))?;
    if !value.contains_key("store") {
        return StoreDefinition::from_toml(&text).map(|store| vec![store]).map_err(|error| error.context(file.display()));
    }
    let parsed: StoresFile = toml::from_str(&text)
        .map_err(|error| Error::config(format!("{}: {}", file.display(), error.to_string().trim_end())))?;
    for (index, store) in parsed.store.iter().enumerate() {
        store.validate().map_err(|error| error.context(file.display()))?;
        if parsed.store[..index].iter().any(|other| other.id == store.id) {
            return Err(Error::config(format!("{}: id: must be unique, got {} twice", file.display(), store.id)));
        }
    }
    Ok(parsed.store)
}

fn from_flags(args: AddArgs) -> Result<StoreDefinition> {
    let missing = |flag: &str| Error::config(format!("{flag}: must be given without --file, got nothing"));
    let id = args.id.ok_or_else(|| missing("ID"))?;
    let tenant = args.tenant.as_deref().map(str::parse::<TaxNumber>).transpose();
    let tenant = tenant.map_err(|error| Error::config(format!("--tenant: {error}")))?;
    let name = args.name.unwrap_or_else(|| id.to_string());
    let time_zone = args.time_zone.ok_or_else(|| missing("--zone"))?;
    let store = StoreDefinition {
        tenant: tenant.map(String::from),
        host: args.host,
        port: args.port,
        opened: args.opened,
        closed: args.closed,
        rest_days: args.rest_days,
        holidays: args.holidays,
        active: !args.inactive,
        hold_repair: args.hold_repair,
        ..StoreDefinition::new(id, name, time_zone)
    };
    store.validate()?;
    Ok(store)
}

fn weekday(text: &str) -> Result<WeekdayName, String> {
    let json = serde_json::Value::from(text.to_ascii_lowercase());
    serde_json::from_value(json).map_err(|_| "must be monday, tuesday, wednesday, thursday, friday, saturday or sunday".into())
}

fn added_text(lang: Lang, added: &[Added]) -> String {
    let changed = added.iter().filter(|one| one.changed).count() as u64;
    let same = added.len() as u64 - changed;
    let [changed, same] = [changed, same].map(|count| show::number(lang, count));
    lang.pick(
        format!("Tiendas declaradas o cambiadas: {changed}; sin cambio: {same}."),
        format!("Stores declared or changed: {changed}; unchanged: {same}."),
    )
}

fn list_text(lang: Lang, stores: &[StoreDefinition]) -> String {
    let header = lang.pick(
        ["Tienda", "Nombre", "Empresa", "Zona horaria", "Abierta", "Cerrada", "Estado"],
        ["Store", "Name", "Tenant", "Time zone", "Opened", "Closed", "State"],
    );
    let mut table = show::table(&header);
    let date = |date: Option<Date>| date.map(|date| date.to_string()).unwrap_or_default();
    for store in stores {
        let mut state = vec![lang.pick(if store.active { "activa" } else { "inactiva" }, if store.active { "active" } else { "inactive" })];
        if store.hold_repair {
            state.push(lang.pick("sin reparación automática", "no automatic repair"));
        }
        table.add_row([
            store.id.to_string(),
            store.name.clone(),
            store.tenant.clone().unwrap_or_default(),
            store.time_zone.clone(),
            date(store.opened),
            date(store.closed),
            state.join(", "),
        ].map(show::cell));
    }
    let count = show::counted(lang, stores.len() as u64, ["tienda", "tiendas"], ["store", "stores"]);
    format!("{}\n{count}", show::table_text(&table))
}
