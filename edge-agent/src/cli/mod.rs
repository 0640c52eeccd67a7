//! The command line: one verb, one file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::civil::Date;
use ribera_storage::{DatasetName, StoreId};

use crate::report::{Exit, Problem, Stage};
use crate::system;
use crate::terminal::complain;

mod audit;
mod audit_show;
mod backfill;
mod check;
mod check_s3;
mod check_show;
mod config;
mod discover;
mod discover_show;
mod extract;
mod hints;
mod install;
mod once;
mod quick;
mod render;
mod run;
#[cfg(windows)]
mod service;
mod setup;
mod spool;
mod views;

/// The command line of `ribera-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "ribera-agent",
    version,
    about = "Lee la base de datos de la tienda y envía lotes al lago / Reads the store's database and sends batches to the lake",
    after_help = "Ejemplos / Examples:
  ribera-agent check
  ribera-agent once --wait-acks 30
  ribera-agent backfill --from 2025-01-01 --to 2025-12-31
  ribera-agent --config /etc/ribera/agent.toml run"
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Archivo de configuración / Configuration file
    #[arg(
        long,
        global = true,
        env = hints::CONFIG_VARIABLE,
        default_value_os_t = system::config_file(),
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// Un documento JSON en la salida / One JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Idioma / Language of messages for people
    #[arg(long, global = true, env = "RIBERA_LANG", default_value = "es")]
    pub lang: Lang,
    /// Pregunta a la base; no envía ni escribe nada / RunMode the source; send nothing, write nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Llena la cola local; no sube nada / Fill the spool; upload nothing
    #[arg(long, global = true)]
    pub local_only: bool,
    /// Solo estas tiendas / Only these stores
    #[arg(long, global = true, value_delimiter = ',', value_name = "IDS")]
    pub stores: Vec<StoreId>,
    /// Solo estos conjuntos / Only these datasets
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAMES")]
    pub datasets: Vec<DatasetName>,
    /// Aparta un diario dañado y empieza otro / Set a damaged journal aside and begin a new one
    #[arg(long, global = true)]
    pub new_journal: bool,
    /// The verb that runs, as it is typed.
    #[arg(skip)]
    pub command: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    Es,
    En,
}

impl Lang {
    pub fn pick<'a>(self, es: &'a str, en: &'a str) -> &'a str {
        match self {
            Self::Es => es,
            Self::En => en,
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Fuente, almacén, carpeta y reloj, y el paso siguiente / Source, object store, folder and clock
    #[command(
        after_help = "Ejemplos / Examples:\n  ribera-agent check --stores centro\n  ribera-agent check --quick --workers 20"
    )]
    Check(CheckArgs),
    /// Un ciclo: lo que cambió en la ventana / One cycle: what changed in the lookback window
    #[command(after_help = "Ejemplo / Example:\n  ribera-agent once --wait-acks 30 --json")]
    Once(Wait),
    /// Ciclos por horario hasta que se detenga / Cycles by schedule until told to end
    #[command(after_help = "Ejemplo / Example:\n  ribera-agent run --lang en")]
    Run,
    /// Estos días, si difieren de lo enviado / These days, if they differ from what was sent
    #[command(
        after_help = "Ejemplo / Example:\n  ribera-agent extract --from 2026-03-01 --to 2026-03-03 --datasets ventas --force"
    )]
    Extract(Days),
    /// Historia, un lote por mes; repetir retoma / History, a month per batch; run again to resume
    #[command(
        after_help = "Ejemplos / Examples:\n  ribera-agent backfill --from 2025-01-01 --to 2025-12-31\n  ribera-agent backfill --resume --sequential --hours 22:00-06:00"
    )]
    Backfill(backfill::BackfillArgs),
    /// Empresas de los servidores y su configuración / The servers' companies and their configuration
    #[command(
        after_help = "Ejemplos / Examples:\n  ribera-agent discover --servers cadena.toml --output agent.toml\n  ribera-agent --config agent.toml discover\n  ribera-agent discover --kind firebird --host 10.0.0.5 --database MAESTRO --user lector --adapter caja --zone America/Bogota"
    )]
    Discover(discover::DiscoverArgs),
    /// El archivo de configuración / The configuration file
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Servicio de systemd o de Windows, o línea de cron / A service of systemd or Windows, or a cron line
    #[command(
        after_help = "Ejemplos / Examples:\n  sudo ribera-agent install\n  ribera-agent --config agent.toml install --print"
    )]
    Install(install::InstallArgs),
    /// Fuente, enviado y lago, lado a lado / Source, sent and lake, side by side
    #[command(
        after_help = "Ejemplo / Example:\n  ribera-agent audit --from 2026-03-01 --to 2026-03-31 --datasets ventas"
    )]
    Audit(AuditDays),
    /// Lo que espera subida o acuse / What waits for upload or acknowledgement
    #[command(after_help = "Ejemplo / Example:\n  ribera-agent spool --json")]
    Spool,
    /// El agente como servicio de Windows / The agent as a service of Windows
    #[cfg(windows)]
    #[command(hide = true)]
    Service,
}

impl Verb {
    /// As it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Check(_) => "check",
            Self::Once(_) => "once",
            Self::Run => "run",
            Self::Extract(_) => "extract",
            Self::Backfill(_) => "backfill",
            Self::Discover(_) => "discover",
            Self::Config(config::ConfigVerb::Check) => "config check",
            Self::Config(config::ConfigVerb::Adapters(_)) => "config adapters",
            Self::Install(_) => "install",
            Self::Audit(_) => "audit",
            Self::Spool => "spool",
            #[cfg(windows)]
            Self::Service => "service",
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Solo nombre, ping y puerto, sin claves / Name, ping and port only; needs no credentials
    #[arg(long)]
    pub quick: bool,
    /// Segundos por paso de la red / Seconds for each step of the network
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=120))]
    pub timeout: u64,
    /// Tiendas a la vez / Stores at once
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    pub workers: u64,
    /// Una tienda tras otra / One store after the other
    #[arg(long, conflicts_with = "workers")]
    pub sequential: bool,
}

impl CheckArgs {
    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.timeout)
    }

    fn workers(&self) -> usize {
        if self.sequential { 1 } else { usize::try_from(self.workers).unwrap_or(1) }
    }
}

#[derive(Debug, Clone, Args)]
pub struct AuditDays {
    /// Primer día de negocio / First business day
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Date,
    /// Último día de negocio / Last business day
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Date,
    /// También los días que coinciden / Days that agree too
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Segundos que espera los acuses del lago / Seconds to wait for the lake's acknowledgements
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub wait_acks: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Days {
    /// Primer día de negocio / First business day
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Date,
    /// Último día de negocio / Last business day
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Date,
    /// También los días iguales / Days whose fingerprints agree too
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: Wait,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    cli.common.command = cli.verb.name();
    setup::logging(&cli);
    #[cfg(windows)]
    if let Verb::Service = cli.verb {
        return service::main(cli.common);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("ribera-agent: {error}");
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let done = runtime.block_on(async {
        match &cli.verb {
            Verb::Check(args) if args.quick => quick::main(&cli.common, args).await,
            Verb::Check(args) => check::main(&cli.common, args).await,
            Verb::Once(wait) => once::main(&cli.common, wait).await,
            Verb::Run => run::main(&cli.common).await,
            Verb::Extract(days) => extract::main(&cli.common, days).await,
            Verb::Backfill(args) => backfill::main(&cli.common, args).await,
            Verb::Discover(args) => discover::main(&cli.common, args).await,
            Verb::Config(verb) => config::main(&cli.common, verb),
            Verb::Install(args) => install::main(&cli.common, args),
            Verb::Audit(days) => audit::main(&cli.common, days).await,
            Verb::Spool => spool::main(&cli.common),
            // Begins before there is a runtime.
            #[cfg(windows)]
            Verb::Service => Ok(Exit::Done),
        }
    });
    let exit = match done {
        Ok(exit) => exit,
        Err(mut stopped) => {
            hints::complete(&cli.common, [&mut *stopped]);
            render::stopped(&cli.common, &stopped);
            stopped.exit
        }
    };
    ExitCode::from(exit.code())
}

/// Why a command could not even begin.
type Stopped = Box<Problem>;

/// `error`, met while preparing a command.
fn stopped(stage: Stage, exit: Option<Exit>) -> impl Fn(ribera_storage::Error) -> Stopped {
    move |error| {
        let problem = Problem::new(stage, &error);
        let exit = exit.unwrap_or(problem.exit);
        Box::new(problem.ending(exit))
    }
}

/// The days of a command, in order.
fn checked(days: &Days) -> Result<crate::calendar::Days, Stopped> {
    checked_days(days.from, days.to)
}

fn checked_days(from: Date, to: Date) -> Result<crate::calendar::Days, Stopped> {
    if to < from {
        let error = ribera_storage::Error::config(format!("--to: must not lie before --from, got {to}"));
        return Err(stopped(Stage::Definition, Some(Exit::Config))(error));
    }
    Ok(crate::calendar::Days { from, to })
}
