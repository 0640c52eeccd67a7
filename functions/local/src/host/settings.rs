//! The host's settings: one TOML file, every key optional, unknown keys refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ribera_core::coverage::CoverageSettings;
use ribera_core::ingest::IngestSettings;
use ribera_storage::{Error, Result, text};
use serde::{Deserialize, Serialize};

use super::engine::CallLimits;

/// What `--settings FILE` may say. `[ingest]` and `[coverage]` go to the functions as they are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostSettings {
    pub ingest: IngestSettings,
    pub coverage: CoverageSettings,
    pub call: CallSettings,
    pub schedule: ScheduleSettings,
    pub http: HttpSettings,
}

/// What one call may cost.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallSettings {
    /// Memory of one call. More: larger batches fit; the machine needs it for each call at once, of
    /// which callers over HTTP add three at most.
    pub memory_mib_max: u32,
    /// Wall time of one call. More: larger batches fit; a stuck call is noticed later. Calls are
    /// taken for dead after ten minutes, so never more than 540.
    pub seconds_max: u32,
    /// Ingest calls at once. More: bursts go quicker as long as there are processors.
    pub ingest_calls_max: usize,
}

impl Default for CallSettings {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self { memory_mib_max: 1024, seconds_max: 300, ingest_calls_max: processors.clamp(2, 16) }
    }
}

/// How often things run by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleSettings {
    /// Between sweeps. Less: what an event missed is found sooner; each sweep lists the inbox.
    pub sweep_seconds: u32,
    /// Between computations of coverage when nothing arrives: days become due by themselves.
    pub coverage_seconds: u32,
    /// Between rounds of maintenance (merging, checkpoints, vacuum). Less: fewer small files;
    /// each round reads every table's log.
    pub maintain_seconds: u32,
    /// How long manifests are gathered into one call. More: fewer commits; less: quicker answers.
    pub gather_ms: u32,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self { sweep_seconds: 120, coverage_seconds: 900, maintain_seconds: 3600, gather_ms: 15 }
    }
}

/// Who may ask over HTTP, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Names by which browsers may reach the host, without port. Addresses, `localhost` and, where the host
    /// listens for other machines, its own name are allowed anyway. Any other name is refused: a page
    /// elsewhere could make it point here.
    pub allowed_hosts: Vec<String>,
    /// Connections at once; further clients wait. More: more slow clients beside quick ones.
    pub connections_max: u32,
    /// Until a request's headers have arrived, and until its body has. More: poorer lines; less: a client
    /// that sends nothing holds a connection for less.
    pub request_seconds_max: u32,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { allowed_hosts: Vec::new(), connections_max: 256, request_seconds_max: 10 }
    }
}

impl HttpSettings {
    pub fn request_time_max(&self) -> Duration {
        Duration::from_secs(self.request_seconds_max.into())
    }

    fn validate(&self) -> Result<()> {
        let Self { allowed_hosts, connections_max, request_seconds_max } = self;
        let is_name = |name: &&String| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !name.is_empty() && name.bytes().all(plain)
        };
        if let Some(bad) = allowed_hosts.iter().find(|name| !is_name(name)) {
            return Err(Error::config(format!(
                "settings: http.allowed_hosts: must be names without scheme and port, got {}",
                text::quoted(bad)
            ))
            .with_hint("allowed_hosts = [\"lago.example.com\"]"));
        }
        within("http.connections_max", *connections_max, 1, 65_536)?;
        within("http.request_seconds_max", *request_seconds_max, 1, 300)
    }
}

impl HostSettings {
    /// The file's settings, or the defaults without a file.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::config(format!("--settings: {}: cannot be read", file.display())).with_source(error)
        })?;
        Self::from_toml(&text).map_err(|error| error.context(file.display()))
    }

    pub fn from_toml(text: &str) -> Result<Self> {
        let settings: Self = toml::from_str(text)
            .map_err(|error| Error::config(format!("settings: {}", error.to_string().trim_end())))?;
        settings.validate()?;
        Ok(settings)
    }

    /// What the functions are given, as JSON.
    pub fn for_functions(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Given<'a> {
            ingest: &'a IngestSettings,
            coverage: &'a CoverageSettings,
        }
        serde_json::to_string(&Given { ingest: &self.ingest, coverage: &self.coverage })
            .map_err(|error| Error::bug("settings do not serialise").with_source(error))
    }

    pub fn call_limits(&self) -> CallLimits {
        CallLimits {
            memory_bytes_max: usize::try_from(u64::from(self.call.memory_mib_max) << 20).unwrap_or(usize::MAX),
            time_max: Duration::from_secs(self.call.seconds_max.into()),
            ..CallLimits::default()
        }
    }

    fn validate(&self) -> Result<()> {
        let CallSettings { memory_mib_max, seconds_max, ingest_calls_max } = self.call;
        let ScheduleSettings { sweep_seconds, coverage_seconds, maintain_seconds, gather_ms } = self.schedule;
        within("call.memory_mib_max", memory_mib_max, 64, 4096)?;
        within("call.seconds_max", seconds_max, 1, 540)?;
        within("call.ingest_calls_max", u32::try_from(ingest_calls_max).unwrap_or(u32::MAX), 1, 256)?;
        within("schedule.sweep_seconds", sweep_seconds, 1, 86_400)?;
        within("schedule.coverage_seconds", coverage_seconds, 1, 86_400)?;
        within("schedule.maintain_seconds", maintain_seconds, 1, 86_400)?;
        within("schedule.gather_ms", gather_ms, 0, 10_000)?;
        self.http.validate()
    }
}

/// What every verb that runs the functions takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ComponentArgs {
    /// Carpeta de los componentes WASM. / Folder of the WASM components.
    #[arg(long, value_name = "DIR", env = "RIBERA_COMPONENTS")]
    pub components: Option<PathBuf>,
    /// Carpeta del código ya compilado. / Folder of compiled code.
    #[arg(long, value_name = "DIR", env = "RIBERA_CACHE")]
    pub cache: Option<PathBuf>,
    /// Ajustes (TOML). / Settings (TOML).
    #[arg(long, value_name = "FILE", env = "RIBERA_SETTINGS_FILE")]
    pub settings: Option<PathBuf>,
}

/// What a verb takes that may also run them without WASM.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FunctionArgs {
    #[command(flatten)]
    pub component: ComponentArgs,
    /// Sin WASM, solo para medir y depurar: sin aislamiento. / Without WASM, to measure and debug only: no isolation.
    #[arg(long)]
    pub native: bool,
}

fn within(field: &str, got: u32, least: u32, most: u32) -> Result<()> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(Error::config(format!("settings: {field}: must be {least} to {most}, got {got}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_the_field_and_the_value_they_refuse() {
        let error = HostSettings::from_toml("[call]\nseconds_max = 3600").unwrap_err();
        assert!(error.message().contains("call.seconds_max: must be 1 to 540, got 3600"), "{error}");
        let error = HostSettings::from_toml("[schedule]\nsweep_minutes = 1").unwrap_err();
        assert!(error.message().contains("sweep_minutes"), "{error}");
        let error = HostSettings::from_toml("[http]\nallowed_hosts = [\"https://lago.example.com\"]").unwrap_err();
        assert!(error.message().contains("http.allowed_hosts: must be names"), "{error}");
    }

    #[test]
    fn the_sample_of_the_settings_holds_the_defaults() {
        let sample = HostSettings::from_toml(include_str!("../../../../infra/host.toml")).unwrap();
        assert_eq!(sample, HostSettings::default());
    }

    #[test]
    fn limits_on_what_a_store_sends_reach_the_functions() {
        let settings = HostSettings::from_toml("[ingest.limits]\ndecoded_bytes_max = 12345").unwrap();
        assert!(settings.for_functions().unwrap().contains("\"decoded_bytes_max\":12345"));
    }
}
