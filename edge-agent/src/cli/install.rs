//! `ribera-agent install`: what makes the agent start with the machine: systemd, cron, or the service manager of Windows.

use std::path::Path;
#[cfg(not(windows))]
use std::path::PathBuf;

use clap::Args;
use ribera_storage::{Error, Result};

use super::{Common, Stopped, setup, stopped};
use crate::config::Config;
use crate::report::{Exit, Stage};

#[cfg(not(windows))]
mod unix;

/// On Windows the account that the system makes for this service alone.
const DEFAULT_USER: &str = if cfg!(windows) { r"NT SERVICE\ribera-agent" } else { "ribera" };

#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// Una línea de cron en vez de un servicio / A cron line instead of a service
    #[cfg(not(windows))]
    #[arg(long)]
    pub cron: bool,
    /// Usuario con el que corre / User that it runs as
    #[arg(long, default_value = DEFAULT_USER, value_name = "NAME", value_parser = user)]
    pub user: String,
    /// Carpeta donde escribir / Folder to write to
    #[cfg(not(windows))]
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// Solo muestra lo que escribiría / Only shows what it would write
    #[arg(long)]
    pub print: bool,
    /// Reemplaza un archivo distinto / Replaces a file that differs
    #[arg(long)]
    pub force: bool,
}

pub fn main(common: &Common, args: &InstallArgs) -> Result<Exit, Stopped> {
    let error = stopped(Stage::Definition, Some(Exit::Config));
    // Before it is to start by itself, its configuration must be one it can start with.
    let config = setup::config_without_secrets(common)?;
    let program = std::env::current_exe()
        .map_err(|source| error(Error::config("install: the program's own path cannot be told").with_source(source)))?;
    let file = std::path::absolute(&common.config).unwrap_or_else(|_| common.config.clone());
    place(common, args, &config, &program, &file).map_err(&error)
}

#[cfg(windows)]
fn place(common: &Common, args: &InstallArgs, config: &Config, program: &Path, file: &Path) -> Result<Exit> {
    super::service::install(common, args, config, program, file)
}

#[cfg(not(windows))]
fn place(common: &Common, args: &InstallArgs, config: &Config, program: &Path, file: &Path) -> Result<Exit> {
    unix::install(common, args, config, program, file)
}

#[cfg(not(windows))]
fn user(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    let good = !text.is_empty() && text.len() <= 32 && text.bytes().all(fits) && !text.starts_with('-');
    if good { Ok(text.to_owned()) } else { Err(format!("must be 1 to 32 of a-z, 0-9, _ and -, got {text:?}")) }
}

/// An account that needs no password: the service's own, or one of the system's.
#[cfg(windows)]
fn user(text: &str) -> Result<String, String> {
    let known = [DEFAULT_USER, "LocalSystem", r"NT AUTHORITY\LocalService", r"NT AUTHORITY\NetworkService"];
    match known.iter().find(|name| name.eq_ignore_ascii_case(text)) {
        Some(name) => Ok((*name).to_owned()),
        None => Err(format!("must be one of {}; choose another in services.msc, got {text:?}", known.join(", "))),
    }
}
