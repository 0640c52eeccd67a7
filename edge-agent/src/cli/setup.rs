//! From a configuration file to an agent on the real clock, disk and object store.

use std::fs::File;
use std::rc::Rc;

use ribera_storage::ports::{Clock, Random};
use ribera_storage::{Error, Result};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::{Cli, Common, Stopped, stopped};
use crate::agent::{Agent, Ports, ServedStore};
use crate::config::{Config, LogConfig, LogFormat, LogLevel, StoreConfig, file_text};
use crate::host::{FolderDisk, OsRandom, SystemClock, TokioTimer};
use crate::journal::Journal;
use crate::journal::recover;
use crate::objects::Objects;
use crate::ports::LoggedFailPoints;
use crate::report::logfile::{self, ToFile};
use crate::report::{Exit, Stage};
use crate::terminal::ErrorOutput;
use crate::{source, system};

/// An agent, and the lock on its folder for as long as it lives.
pub struct Ready {
    pub agent: Agent<Objects>,
    _lock: Option<File>,
}

/// Warnings go to standard error, of which `RIBERA_LOG` chooses more or less; and, as `[log]` says,
/// to a file, from when the agent holds its folder.
pub fn logging(cli: &Cli) {
    let common = &cli.common;
    let filter = EnvFilter::try_from_env("RIBERA_LOG")
        // A report is printed there as it is; what a driver says beside its errors is of no use to whoever runs the agent.
        .unwrap_or_else(|_| EnvFilter::new("warn,ribera_agent::report::logfile=off,tiberius=off"));
    let stderr = fmt::layer().with_writer(ErrorOutput).with_ansi(false).without_time().log_internal_errors(false);
    let file = log_config(common).map(|config| {
        let level = match config.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        let chosen = Targets::new()
            .with_target("ribera", level)
            .with_target("tiberius", LevelFilter::OFF)
            .with_default(LevelFilter::WARN.min(level));
        let json = matches!(config.format, LogFormat::Json);
        let layer = fmt::layer().with_writer(ToFile { json }).with_ansi(false);
        match config.format {
            LogFormat::Json => layer
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_filter(chosen)
                .boxed(),
            LogFormat::Text => layer.with_filter(chosen).boxed(),
        }
    });
    let subscriber = tracing_subscriber::registry().with(file).with(stderr.with_filter(filter));
    #[cfg(windows)]
    let subscriber =
        subscriber.with(matches!(cli.verb, super::Verb::Service).then(super::service::event_log).flatten());
    subscriber.init();
}

/// Looked at before the rest, which may be wrong; then its lines go to standard error.
fn log_config(common: &Common) -> Option<LogConfig> {
    let text = file_text(&std::fs::read(&common.config).ok()?).ok()?;
    let mut file: toml::Table = toml::from_str(&text).ok()?;
    file.remove("log")?.try_into().ok()
}

/// The configuration with what the command line adds to it.
pub fn config(common: &Common) -> Result<Config, Stopped> {
    config_with(common, &|name| std::env::var(name).ok())
}

/// As [`config`], without secrets: a secret that is not set stays empty.
pub fn config_without_secrets(common: &Common) -> Result<Config, Stopped> {
    config_with(common, &|name| Some(std::env::var(name).unwrap_or_default()))
}

fn config_with(common: &Common, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Stopped> {
    let config_error = stopped(Stage::Definition, Some(Exit::Config));
    let mut config = Config::load(&common.config, env).map_err(&config_error)?;
    config.dry_run |= common.dry_run;
    config.local_only |= common.local_only;
    if let Some(unknown) = common.stores.iter().find(|id| config.store(id).is_none()) {
        let known: Vec<&str> = config.stores.iter().map(|store| store.id.as_str()).collect();
        return Err(config_error(Error::config(format!(
            "--stores: must be configured stores ({}), got {:?}",
            known.join(", "),
            unknown.as_str()
        ))));
    }
    Ok(config)
}

/// Opens journal, spool and object store. A dry run opens them for reading only.
pub fn agent(common: &Common) -> Result<Ready, Stopped> {
    agent_with(common, &|_| {})
}

/// Opens the agent with changed settings.
pub fn agent_with(common: &Common, change: &dyn Fn(&mut Config)) -> Result<Ready, Stopped> {
    let mut config = config(common)?;
    change(&mut config);
    let random = Rc::new(OsRandom);
    let objects = Objects::open(&config.object_store, random.fresh_name());
    let (journal, lock, disk) = if config.dry_run {
        let journal = Journal::open_file_to_read(&config.journal_file(), random.as_ref());
        let journal = journal.map_err(stopped(Stage::Journal, None))?;
        (journal, None, FolderDisk::existing(config.spool_folder()))
    } else {
        let disk = FolderDisk::open(config.spool_folder()).map_err(stopped(Stage::Spool, None))?;
        let lock = lock(&config)?;
        if let Some(log) = &config.log {
            logfile::begin(log);
            tracing::info!(version = env!("CARGO_PKG_VERSION"), process = std::process::id(), "begins");
        }
        (open_journal(common, &config, &disk, random.as_ref())?, Some(lock), disk)
    };
    let clock: Rc<dyn Clock> = Rc::new(SystemClock);
    let served = |store: &StoreConfig| Ok(ServedStore { config: store.clone(), source: source::open(store, &clock)? });
    let stores = config.stores.iter().map(served).collect::<Result<_>>();
    let stores = stores.map_err(stopped(Stage::Definition, Some(Exit::Config)))?;
    let ports = Ports {
        objects,
        clock,
        random,
        timer: Rc::new(TokioTimer),
        disk: Rc::new(disk),
        fail_points: Rc::new(LoggedFailPoints),
    };
    let agent = Agent::start(config, ports, journal, stores).map_err(stopped(Stage::Spool, None))?;
    agent.ports.objects.set_throttle(agent.uplink.clone());
    Ok(Ready { agent, _lock: lock })
}

fn open_journal(common: &Common, config: &Config, disk: &FolderDisk, random: &OsRandom) -> Result<Journal, Stopped> {
    let file = config.journal_file();
    let journal_error = stopped(Stage::Journal, None);
    if !common.new_journal {
        return Journal::open_file(&file, random, Rc::new(LoggedFailPoints)).map_err(&journal_error);
    }
    let aside = recover::set_aside(&file, SystemClock.now()).map_err(&journal_error)?;
    let journal = Journal::open_file(&file, random, Rc::new(LoggedFailPoints)).map_err(&journal_error)?;
    let units = recover::note_spooled_units(&journal, disk).map_err(&journal_error)?;
    if let Some(aside) = aside {
        tracing::warn!("a new journal begins, the old one is {}", aside.display());
        tracing::warn!("{units} unit(s) that waited in the spool are extracted again");
    }
    Ok(journal)
}

/// One agent process at a time.
fn lock(config: &Config) -> Result<File, Stopped> {
    let path = config.folder.join("agent.lock");
    let file = File::create(&path)
        .map_err(|error| crate::ports::disk_error("create", &path, error))
        .map_err(stopped(Stage::Spool, None))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => {
            let error = Error::retry(format!("another ribera-agent uses {}", config.folder.display()))
                .with_hint(system::service_status());
            Err(stopped(Stage::Journal, Some(Exit::Locked))(error))
        }
    }
}
