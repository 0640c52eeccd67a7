//! `ribera-agent discover`: the companies that a chain's servers hold, and the configuration of an
//! agent that reads them. A server that does not answer does not stop the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use ribera_storage::ports::Clock;
use ribera_storage::{Error, Result};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Common, Lang, Stopped, discover_show as show, hints, stopped};
use crate::config::{Discover, DiscoverServer, StoreConfig, file_text};
use crate::discover::company::{Found, Row, sort};
use crate::discover::stores::{self, Known, Plan, Written};
use crate::discover::{ask, file};
use crate::host::SystemClock;
use crate::report::{Exit, Problem, Stage};
use crate::source::{self, reach};

const DEFAULT_PASSWORD_ENV: &str = "RIBERA_PASSWORD";

#[derive(Debug, Clone, Args)]
pub struct DiscoverArgs {
    /// Archivo con los servidores, en vez de --config / File of the servers, in place of --config
    #[arg(long, value_name = "FILE")]
    pub servers: Option<PathBuf>,
    #[command(flatten)]
    pub one: OneServer,
    /// Escribe la configuración si el archivo no existe / Writes the configuration if the file is absent
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Reemplaza lo que otra búsqueda escribió / Replaces what an earlier discovery wrote
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Servidores a la vez / Servers at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,
    /// Segundos para nombre, ping y puerto / Seconds for name, ping and port
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=120))]
    pub timeout: u64,
}

/// A server on the command line, in place of a file.
#[derive(Debug, Clone, Args)]
pub struct OneServer {
    /// sqlserver, mysql, postgres, firebird
    #[arg(long, value_name = "KIND", conflicts_with = "servers")]
    pub kind: Option<String>,
    #[arg(long, requires = "kind", value_name = "HOST")]
    pub host: Option<String>,
    #[arg(long, requires = "kind", value_name = "PORT")]
    pub port: Option<u16>,
    /// Base maestra / Master database
    #[arg(long, requires = "kind", value_name = "NAME")]
    pub database: Option<String>,
    #[arg(long, requires = "kind", value_name = "NAME")]
    pub user: Option<String>,
    /// Variable de entorno con la clave / Environment variable of the password
    #[arg(long, default_value = DEFAULT_PASSWORD_ENV, value_name = "NAME")]
    pub password_env: String,
    /// verify, require, off
    #[arg(long, requires = "kind", value_name = "MODE")]
    pub tls: Option<String>,
    /// Tabla de empresas / Table of companies
    #[arg(long, requires = "kind", value_name = "TABLE")]
    pub table: Option<String>,
    /// Todas las bases del servidor / Every database of the server
    #[arg(long, requires = "kind")]
    pub all_databases: bool,
    /// Adaptador de las tiendas / The stores' adapter
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Zona horaria de las tiendas / The stores' time zone
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
}

/// What came of a server.
#[derive(Debug, Serialize)]
pub struct Asked {
    pub server: String,
    /// Kind and place, without secrets.
    pub place: String,
    pub companies: usize,
    pub problem: Option<Problem>,
}

/// The answer of `discover --json`.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub servers: Vec<Asked>,
    #[serde(flatten)]
    pub found: Found,
    #[serde(flatten)]
    pub plan: PlanShown,
    /// Environment variables that the stores written need.
    pub variables: Vec<String>,
    pub output: Option<PathBuf>,
    pub written: bool,
    pub exit_code: u8,
}

#[derive(Debug, Serialize)]
pub struct PlanShown {
    pub changes: Vec<stores::Change>,
    #[serde(skip)]
    pub ids: BTreeMap<usize, String>,
    /// Companies, by their place in the list, that a store of the file reads already.
    pub held: BTreeMap<usize, String>,
}

/// The settings of a discovery, and where its file begins.
struct Setup {
    section: Discover,
    /// The section as written: secrets are names in it.
    written: Table,
    /// The person's part of the file to write.
    head: String,
    known: Known,
}

pub async fn main(common: &Common, args: &DiscoverArgs) -> Result<Exit, Stopped> {
    let config_error = stopped(Stage::Definition, Some(Exit::Config));
    let setup = prepare(common, args).map_err(&config_error)?;
    let bar = show::progress(common, setup.section.servers.len());
    let mut answers: Vec<(Asked, Vec<Row>)> = futures::stream::iter(&setup.section.servers)
        .map(|server| {
            let (section, bar) = (&setup.section, &bar);
            async move {
                let answer = asked(section, server, common.lang, Duration::from_secs(args.timeout)).await;
                bar.inc(1);
                answer
            }
        })
        .buffered(usize::try_from(args.workers).unwrap_or(1))
        .collect()
        .await;
    bar.finish_and_clear();
    hints::complete(common, answers.iter_mut().filter_map(|(asked, _)| asked.problem.as_mut()));
    let silent: BTreeSet<&str> =
        answers.iter().filter(|(asked, _)| asked.problem.is_some()).map(|(asked, _)| asked.server.as_str()).collect();
    let rows: Vec<(String, Vec<Row>)> =
        answers.iter().map(|(asked, rows)| (asked.server.clone(), rows.clone())).collect();
    let found = sort(&rows);
    let written = Written {
        section: &setup.written,
        prefix: &setup.section.prefix,
        unnumbered: setup.section.unnumbered,
        first_month: setup.section.first_month().unwrap_or(1),
    };
    let plan = stores::plan(&found, &written, &setup.known, &silent);
    let variables = file::variables(&plan.stores);
    let put = put(common, args, &setup, &plan).map_err(&config_error)?;
    let worst = answers.iter().filter_map(|(asked, _)| asked.problem.as_ref()).map(|problem| problem.exit).max();
    let exit = worst.unwrap_or(Exit::Done).max(if put == Put::Refused { Exit::Config } else { Exit::Done });
    let answer = Answer {
        servers: answers.into_iter().map(|(asked, _)| asked).collect(),
        found,
        plan: PlanShown { changes: plan.changes, ids: plan.ids, held: plan.held },
        variables,
        output: args.output.clone(),
        written: put == Put::Written,
        exit_code: exit.code(),
    };
    show::answer(common, &answer, put, &args.again());
    Ok(exit)
}

impl DiscoverArgs {
    /// The command with the words that say where the companies are, to be run again with a file to write.
    fn again(&self) -> String {
        let one = &self.one;
        let servers = self.servers.as_ref().map(|path| path.display().to_string());
        let port = one.port.map(|port| port.to_string());
        let password_env = Some(one.password_env.clone()).filter(|name| name != DEFAULT_PASSWORD_ENV);
        let given = [
            ("--servers", &servers),
            ("--kind", &one.kind),
            ("--host", &one.host),
            ("--port", &port),
            ("--database", &one.database),
            ("--user", &one.user),
            ("--password-env", &password_env),
            ("--tls", &one.tls),
            ("--table", &one.table),
            ("--adapter", &one.adapter),
            ("--zone", &one.zone),
        ];
        let mut command = "ribera-agent discover".to_owned();
        for (word, value) in given.into_iter().filter_map(|(word, value)| Some((word, value.as_ref()?))) {
            let plain = value.chars().all(|one| one.is_alphanumeric() || "-_./:".contains(one)) && !value.is_empty();
            command.push_str(&if plain { format!(" {word} {value}") } else { format!(" {word} '{value}'") });
        }
        if one.all_databases {
            command.push_str(" --all-databases");
        }
        command
    }
}

/// What became of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    NotAsked,
    Written,
    /// The file is as it would be written.
    Same,
    /// The file is there and differs.
    Refused,
    /// There is no company to write.
    Nothing,
}

fn put(common: &Common, args: &DiscoverArgs, setup: &Setup, plan: &Plan) -> Result<Put> {
    let Some(output) = &args.output else { return Ok(Put::NotAsked) };
    if plan.stores.is_empty() && setup.known.by_hand.is_empty() {
        return Ok(Put::Nothing);
    }
    let text = file::composed(&file::completed(&setup.head)?, &plan.stores)?;
    let standing = standing(output)?;
    if standing.as_deref() == Some(text.as_str()) {
        return Ok(Put::Same);
    }
    if standing.is_some() && !args.force {
        return Ok(Put::Refused);
    }
    if common.dry_run {
        return Ok(Put::NotAsked);
    }
    file::put(output, &text, args.force)?;
    Ok(Put::Written)
}

/// The text of a file, if there is one.
fn standing(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            file_text(&bytes).map(Some).map_err(|error| error.context(format_args!("discover: {}", path.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::config(format!("discover: {} cannot be read", path.display())).with_source(error)),
    }
}

fn prepare(common: &Common, args: &DiscoverArgs) -> Result<Setup> {
    let (path, settings) = settings(common, args)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let env = |name: &str| std::env::var(name).ok();
    let (section, written) =
        Discover::parse(&settings, base, &env).map_err(|error| error.context(format_args!("{}", path.display())))?;
    let standing = args.output.as_deref().map(standing).transpose()?.flatten();
    // The file to write keeps what a person wrote into it; a new one begins with the settings.
    let (head, known) = file::read(standing.as_deref().unwrap_or(&settings))?;
    Ok(Setup { section, written, head, known })
}

/// The text with the section `[discover]`, and the file it is from.
fn settings(common: &Common, args: &DiscoverArgs) -> Result<(PathBuf, String)> {
    let path = args.servers.clone().unwrap_or_else(|| common.config.clone());
    let text = standing(&path)?;
    let Some(kind) = &args.one.kind else {
        let text = text.ok_or_else(|| {
            Error::config(format!("discover: {} must be there, got no such file", path.display()))
                .with_hint("ribera-agent discover --servers FILE, or --kind, --host, --database and --user")
        })?;
        return Ok((path, text));
    };
    let text = text.unwrap_or_default();
    let file: Table = toml::from_str(&text)
        .map_err(|error| Error::config(format!("configuration {}: {}", path.display(), error.message())))?;
    if file.contains_key("discover") {
        return Err(Error::config(format!(
            "--kind: must be absent where {} has a section discover, got {kind:?}",
            path.display()
        )));
    }
    // The person's part only: what an earlier discovery wrote is compared, not kept.
    let (head, _) = file::read(&text)?;
    Ok((path, format!("{}\n\n{}", file::completed(&head)?.trim_end(), args.one.text(kind))))
}

impl OneServer {
    /// As a file would say it.
    fn text(&self, kind: &str) -> String {
        let name = self.host.clone().unwrap_or_else(|| kind.to_owned());
        let mut source = vec![("kind", kind.to_owned())];
        let given = [("host", &self.host), ("database", &self.database), ("user", &self.user), ("tls", &self.tls)];
        source.extend(given.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
        if kind == "sqlite" {
            source.retain(|(key, _)| *key != "database");
            source.extend(self.database.clone().map(|path| ("path", path)));
        } else if self.user.is_some() {
            source.push(("password", format!("${{{}}}", self.password_env)));
        }
        let line = |(key, value): (&str, String)| format!("{key} = {}\n", Value::String(value));
        let mut text = "[discover]\n".to_owned();
        text.extend(self.table.clone().map(|table| line(("from", table))));
        if self.all_databases {
            text.push_str("databases = true\nunnumbered = true\n");
        }
        text.push_str("[discover.store]\n");
        let store = [("adapter", &self.adapter), ("time_zone", &self.zone)];
        text.extend(store.into_iter().filter_map(|(key, value)| Some(line((key, value.clone()?)))));
        text.push_str("[[discover.server]]\n");
        text.push_str(&line(("name", name)));
        text.push_str("[discover.server.source]\n");
        text.extend(source.into_iter().map(line));
        text.extend(self.port.map(|port| format!("port = {port}\n")));
        text
    }
}

/// Reaches a server, logs in, reads its companies.
async fn asked(section: &Discover, server: &DiscoverServer, lang: Lang, timeout: Duration) -> (Asked, Vec<Row>) {
    let kind = server.source.kind();
    let reached = reach::reach_source(&server.source, timeout).await;
    let reached = reached.map(|reached| (format!("{kind} {}", reach::tried(&reached)), reached));
    let mut asked = Asked { server: server.name.clone(), place: kind.to_owned(), companies: 0, problem: None };
    if let Some((place, reached)) = reached {
        asked.place = place;
        if let Some(cause) = reached.cause {
            let (es, en) = cause.next_step();
            let error = Error::retry(format!("discover: {}: {}: {}", server.name, asked.place, lang.pick(es, en)))
                .with_hint("ribera-agent discover");
            let mut problem = Problem::new(Stage::Source, &error);
            problem.exit = Exit::Unreachable;
            asked.problem = Some(problem);
            return (asked, Vec::new());
        }
    }
    let rows = async {
        let source = source::open(&store(server)?, &(Rc::new(SystemClock) as Rc<dyn Clock>))?;
        asked.place = source.describe();
        ask::ask(section, kind, source.as_ref()).await
    };
    match rows.await {
        Ok(rows) => {
            asked.companies = rows.len();
            (asked, rows)
        }
        Err(error) => {
            let error = error.context(format_args!("discover: {}", server.name));
            let mut problem = Problem::new(Stage::Source, &error);
            // Whatever is wrong, it is this server's.
            problem.exit = Exit::Source;
            asked.problem = Some(problem);
            (asked, Vec::new())
        }
    }
}

/// A server's master database as a store's, which is what a source is made from.
fn store(server: &DiscoverServer) -> Result<StoreConfig> {
    let table = Table::from_iter([
        ("id".to_owned(), Value::String("discover".to_owned())),
        ("adapter".to_owned(), Value::String(String::new())),
        (
            "source".to_owned(),
            Value::Table(Table::from_iter([
                ("kind".to_owned(), Value::String("sqlite".to_owned())),
                ("path".to_owned(), Value::String(String::new())),
            ])),
        ),
    ]);
    let store = StoreConfig::deserialize(Value::Table(table));
    let mut store = store.map_err(|error| Error::bug("a store does not deserialise").with_source(error))?;
    store.source = server.source.clone();
    Ok(store)
}
