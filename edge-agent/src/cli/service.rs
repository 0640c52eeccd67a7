//! The agent as a service of Windows: installed, started and stopped by the service manager, whose event log has its
//! warnings.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use log::Log;
use ribera_storage::{Error, Result};
use tokio::sync::watch;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt};
use windows_service::service::{
    ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept, ServiceErrorControl,
    ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState,
    ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::service_dispatcher;
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};

use super::install::InstallArgs;
use super::{Common, Lang, render, run};
use crate::config::{Config, ENV_FILE};
use crate::report::Exit;
use crate::system::SERVICE;
use crate::terminal::{complain, say};

/// A stop waits for the step at hand; what is cut off goes on from the journal.
const STOP_WITHIN: Duration = Duration::from_secs(90);
const RESTART_AFTER: Duration = Duration::from_secs(30);
const FAILURES_FORGOTTEN_AFTER: Duration = Duration::from_secs(86_400);

/// What the command line said; the service manager hands over nothing of it.
static COMMON: OnceLock<Common> = OnceLock::new();

/// Hands this process over to the service manager until the service ends.
pub fn main(common: Common) -> ExitCode {
    let _ = COMMON.set(common);
    match service_dispatcher::start(SERVICE, entry::MAIN) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("ribera-agent: service: {error}");
            complain!("  sc start {SERVICE}");
            ExitCode::from(Exit::Failed.code())
        }
    }
}

/// The function that the system calls, which the library makes.
#[allow(unsafe_code)]
mod entry {
    use super::serve;

    windows_service::define_windows_service!(service_main, serve);

    pub const MAIN: extern "system" fn(u32, *mut *mut u16) = service_main;
}

fn serve(_arguments: Vec<OsString>) {
    if let Err(error) = served() {
        tracing::error!("service: {error}");
    }
}

fn served() -> windows_service::Result<()> {
    let (stop, mut stops) = watch::channel(false);
    let status = service_control_handler::register(SERVICE, move |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            let _ = stop.send(true);
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    })?;
    tell_manager(status, ServiceState::Running, 0)?;
    let exit = runs(async move {
        let _ = stops.wait_for(|stop| *stop).await;
        let _ = tell_manager(status, ServiceState::StopPending, 0);
    });
    tell_manager(status, ServiceState::Stopped, u32::from(exit.code()))
}

fn runs(stop: impl Future<Output = ()>) -> Exit {
    let Some(common) = COMMON.get() else { return Exit::Failed };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("service: {error}");
            return Exit::Failed;
        }
    };
    match runtime.block_on(run::until(common, stop)) {
        Ok(exit) => exit,
        Err(stopped) => {
            render::stopped(common, &stopped);
            tracing::error!(hint = stopped.hint, "{}", stopped.message);
            stopped.exit
        }
    }
}

/// An end with a code counts as a failure, after which the manager starts the service again.
fn tell_manager(status: ServiceStatusHandle, state: ServiceState, code: u32) -> windows_service::Result<()> {
    let running = state == ServiceState::Running;
    let accepted = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN;
    status.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: if running { accepted } else { ServiceControlAccept::empty() },
        exit_code: if code == 0 { ServiceExitCode::NO_ERROR } else { ServiceExitCode::ServiceSpecific(code) },
        checkpoint: 0,
        wait_hint: if state == ServiceState::StopPending { STOP_WITHIN } else { Duration::ZERO },
        process_id: None,
    })
}

/// Creates the service, or brings it up to date with --force, and starts it.
pub fn install(common: &Common, args: &InstallArgs, config: &Config, program: &Path, file: &Path) -> Result<Exit> {
    if args.print {
        commands(args, config, program, file).iter().for_each(|line| say!("{line}"));
        return Ok(Exit::Done);
    }
    let refused = |doing: &'static str| {
        move |error: windows_service::Error| {
            Error::config(format!("install: {doing}: {}", reason(&error)))
                .with_hint("ribera-agent install, in a console that was opened as administrator")
        }
    };
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager = ServiceManager::local_computer(None::<&str>, access).map_err(refused("the service manager"))?;
    let wanted = info(args, program, file);
    let service = match manager.open_service(SERVICE, ServiceAccess::ALL_ACCESS) {
        Ok(service) => {
            let standing = service.query_config().map_err(refused("the service"))?;
            let same = standing.executable_path.display().to_string() == command_line(program, file);
            if !same && !args.force {
                return Err(Error::config(format!(
                    "install: service {SERVICE} must be absent or as this command makes it, got {}",
                    standing.executable_path.display()
                ))
                .with_hint("ribera-agent install --print, or --force to replace it"));
            }
            service.change_config(&wanted).map_err(refused("the service"))?;
            service
        }
        Err(_) => manager.create_service(&wanted, ServiceAccess::ALL_ACCESS).map_err(refused("the service"))?,
    };
    service.set_description("Sends this store's sales and stock to the lake").map_err(refused("its description"))?;
    let again = ServiceAction { action_type: ServiceActionType::Restart, delay: RESTART_AFTER };
    let on_failure = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FAILURES_FORGOTTEN_AFTER),
        reboot_msg: None,
        command: None,
        actions: Some(vec![again.clone(), again.clone(), again]),
    };
    let set = service.update_failure_actions(on_failure);
    // The service runs without it; a person should know.
    if let Err(error) = set.and_then(|()| service.set_failure_actions_on_non_crash_failures(true)) {
        complain!("install: what happens after a failure: {}", reason(&error));
    }
    if let Err(error) = eventlog::register(SERVICE) {
        complain!("install: event log: {error}");
    }
    give_rights(args, config, file)?;
    let lang = common.lang;
    say!("{}: {SERVICE}", lang.pick("servicio instalado", "service installed"));
    let running = service.query_status().is_ok_and(|status| status.current_state == ServiceState::Running);
    if !running {
        service.start::<&str>(&[]).map_err(|error| {
            Error::config(format!("install: the service does not start: {}", reason(&error)))
                .with_hint("ribera-agent check")
        })?;
    }
    tell(lang);
    Ok(Exit::Done)
}

fn info(args: &InstallArgs, program: &Path, file: &Path) -> ServiceInfo {
    ServiceInfo {
        name: SERVICE.into(),
        display_name: "Ribera agent".into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program.to_owned(),
        launch_arguments: vec!["--config".into(), file.into(), "service".into()],
        dependencies: Vec::new(),
        account_name: (args.user != "LocalSystem").then(|| OsString::from(&args.user)),
        account_password: None,
    }
}

/// As the manager keeps it.
fn command_line(program: &Path, file: &Path) -> String {
    let quoted = |path: &Path| {
        let text = path.display().to_string();
        if text.contains([' ', '\t']) { format!("\"{text}\"") } else { text }
    };
    format!("{} --config {} service", quoted(program), quoted(file))
}

/// The service may read its settings and write to its folders; its secrets are nobody else's.
fn give_rights(args: &InstallArgs, config: &Config, file: &Path) -> Result<()> {
    for folder in folders(config) {
        std::fs::create_dir_all(&folder).map_err(|error| crate::ports::disk_error("create", &folder, error))?;
    }
    for line in rights(args, config, file) {
        let done = Command::new("icacls").args(&line).output();
        if !done.is_ok_and(|done| done.status.success()) {
            complain!("install: icacls {}", line.join(" "));
        }
    }
    Ok(())
}

fn folders(config: &Config) -> Vec<std::path::PathBuf> {
    let log = config.log.as_ref().and_then(|log| log.file.parent()).map(Path::to_owned);
    [Some(config.folder.clone()), config.object_store.folder.clone(), log].into_iter().flatten().collect()
}

/// The words of each call of icacls.
fn rights(args: &InstallArgs, config: &Config, file: &Path) -> Vec<Vec<String>> {
    let user = &args.user;
    let words = |path: &Path, rights: &[String]| {
        std::iter::once(path.display().to_string()).chain(rights.iter().cloned()).collect::<Vec<_>>()
    };
    let mut all: Vec<Vec<String>> = folders(config)
        .iter()
        .map(|folder| words(folder, &["/grant".to_owned(), format!("{user}:(OI)(CI)M")]))
        .collect();
    all.push(words(file, &["/grant".to_owned(), format!("{user}:R")]));
    let secrets = file.with_file_name(ENV_FILE);
    if secrets.exists() {
        // Administrators and the system by number, for their names are of the system's language.
        let only = ["/inheritance:r", "/grant:r", "*S-1-5-32-544:F", "*S-1-5-18:F"].map(str::to_owned);
        all.push(words(&secrets, &[&only[..], &[format!("{user}:R")]].concat()));
    }
    all
}

/// The commands that a person could type for it.
fn commands(args: &InstallArgs, config: &Config, program: &Path, file: &Path) -> Vec<String> {
    let line = command_line(program, file).replace('"', "\\\"");
    let mut lines = vec![
        format!(
            "sc create {SERVICE} binPath= \"{line}\" start= auto obj= \"{}\" DisplayName= \"Ribera agent\"",
            args.user
        ),
        format!(
            "sc failure {SERVICE} reset= {} actions= restart/30000/restart/30000/restart/30000",
            FAILURES_FORGOTTEN_AFTER.as_secs()
        ),
        format!("sc failureflag {SERVICE} 1"),
    ];
    lines.extend(rights(args, config, file).into_iter().map(|words| {
        let words: Vec<String> =
            words.into_iter().map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word }).collect();
        format!("icacls {}", words.join(" "))
    }));
    lines.push(format!("sc start {SERVICE}"));
    lines
}

fn reason(error: &windows_service::Error) -> String {
    match error {
        windows_service::Error::Winapi(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn tell(lang: Lang) {
    say!("{}:", lang.pick("los pasos siguientes", "the next steps"));
    say!("  sc query {SERVICE}");
    say!("  wevtutil qe Application /c:20 /rd:true /f:text /q:\"*[System[Provider[@Name='{SERVICE}']]]\"");
}

/// A layer for the event log: warnings, and when the agent begins and ends. None where the log cannot be opened.
pub fn event_log<S>() -> Option<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let log = eventlog::EventLog::new(SERVICE, log::Level::Info).ok()?;
    let chosen = Targets::new()
        .with_target("ribera_agent::cli", LevelFilter::INFO)
        .with_target("ribera", LevelFilter::WARN)
        .with_target("tiberius", LevelFilter::OFF)
        .with_default(LevelFilter::ERROR);
    let layer = fmt::layer().with_writer(ToEvents(Arc::new(Mutex::new(log)))).with_ansi(false).without_time();
    Some(layer.with_level(false).with_filter(chosen).boxed())
}

struct ToEvents(Arc<Mutex<eventlog::EventLog>>);

impl<'a> MakeWriter<'a> for ToEvents {
    type Writer = OneEvent;

    fn make_writer(&'a self) -> OneEvent {
        OneEvent { log: self.0.clone(), level: log::Level::Info, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> OneEvent {
        let level = match *meta.level() {
            Level::ERROR => log::Level::Error,
            Level::WARN => log::Level::Warn,
            _ => log::Level::Info,
        };
        OneEvent { log: self.0.clone(), level, text: Vec::new() }
    }
}

/// Written when it is whole.
struct OneEvent {
    log: Arc<Mutex<eventlog::EventLog>>,
    level: log::Level,
    text: Vec<u8>,
}

impl Write for OneEvent {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for OneEvent {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text).replace('\0', " ");
        if let Ok(log) = self.log.lock() {
            log.log(&log::Record::builder().level(self.level).args(format_args!("{}", text.trim_end())).build());
        }
    }
}
