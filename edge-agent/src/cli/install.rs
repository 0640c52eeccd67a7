//! `ribera-agent install`: what makes the agent start with the machine, by systemd or from cron.

use std::path::{Path, PathBuf};

use clap::Args;
use ribera_storage::{Error, Result};

use super::{Common, Lang, Stopped, setup, stopped};
use crate::config::Config;
use crate::report::{Exit, Stage};
use crate::terminal::say;

const UNIT: &str = "ribera-agent.service";
const CRON: &str = "ribera-agent";

#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// Una línea de cron en vez de un servicio / A cron line instead of a service
    #[arg(long)]
    pub cron: bool,
    /// Usuario con el que corre / User that it runs as
    #[arg(long, default_value = "ribera", value_name = "NAME", value_parser = user)]
    pub user: String,
    /// Carpeta donde escribir / Folder to write to
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
    let text =
        if args.cron { cron_line(&program, &file, &args.user) } else { unit(&program, &file, &args.user, &config) };
    if args.print {
        print!("{text}");
        return Ok(Exit::Done);
    }
    let (folder, name) = if args.cron { ("/etc/cron.d", CRON) } else { ("/etc/systemd/system", UNIT) };
    let path = args.to.clone().unwrap_or_else(|| PathBuf::from(folder)).join(name);
    write(&path, &text, args.force).map_err(&error)?;
    tell(common.lang, &path, args);
    Ok(Exit::Done)
}

/// A service that comes back after any end, may write only where it must, and gives way to the till.
fn unit(program: &Path, file: &Path, user: &str, config: &Config) -> String {
    let log =
        config.log.as_ref().and_then(|log| log.file.parent()).filter(|folder| !folder.starts_with(&config.folder));
    let objects = config.object_store.folder.as_deref();
    let folders = std::iter::once(config.folder.as_path()).chain(objects).chain(log);
    let writable: Vec<String> = folders.map(|folder| quoted(&folder.display().to_string())).collect();
    format!(
        "# Written by `ribera-agent install`.
[Unit]
Description=Ribera: sends this store's sales and stock to the lake
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={program} --config {file} run
User={user}
# Secrets that the configuration names as ${{NAME}}.
EnvironmentFile=-/etc/ribera/agent.env
Restart=always
RestartSec=30
# A stop waits for the step at hand; what is cut off goes on from the journal.
TimeoutStopSec=90
Nice=10
IOSchedulingClass=idle
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ReadWritePaths={writable}

[Install]
WantedBy=multi-user.target
",
        program = quoted(&program.display().to_string()),
        file = quoted(&file.display().to_string()),
        writable = writable.join(" "),
    )
}

fn cron_line(program: &Path, file: &Path, user: &str) -> String {
    let shell = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''").replace('%', "\\%"));
    format!(
        "# Written by `ribera-agent install --cron`. An agent that still runs is left alone.\n\
         */15 * * * * {user} [ ! -r /etc/ribera/agent.env ] || . /etc/ribera/agent.env; {} --config {} once\n",
        shell(program),
        shell(file)
    )
}

/// As systemd reads a word: quoted where it must be, `%` doubled.
fn quoted(text: &str) -> String {
    let text = text.replace('%', "%%");
    if text.contains([' ', '"', '\\', '\'']) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text
    }
}

/// Writes what is not there yet; a file that someone changed stays unless told otherwise.
fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    // What is there and cannot be read is no less somebody's.
    let standing = match std::fs::read(path) {
        Ok(standing) => Some(standing),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(Error::config(format!("install: {} cannot be read", path.display())).with_source(error));
        }
    };
    if standing.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    if standing.is_some() && !force {
        return Err(Error::config(format!(
            "install: {} must be absent or as this command writes it, got another content",
            path.display()
        ))
        .with_hint("ribera-agent install --print, or --force to replace it"));
    }
    std::fs::write(path, text).map_err(|error| {
        Error::config(format!("install: {} cannot be written", path.display()))
            .with_source(error)
            .with_hint("sudo ribera-agent install, or --to FOLDER")
    })
}

fn tell(lang: Lang, path: &Path, args: &InstallArgs) {
    say!("{}: {}", lang.pick("escrito", "written"), path.display());
    let user = &args.user;
    say!("{}:", lang.pick("los pasos siguientes", "the next steps"));
    say!("  id {user} || sudo useradd --system --home-dir /var/lib/ribera --create-home {user}");
    if !args.cron {
        say!("  sudo systemctl daemon-reload");
        say!("  sudo systemctl enable --now {UNIT}");
        say!("  journalctl -u {UNIT} -f");
    }
}

fn user(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    let good = !text.is_empty() && text.len() <= 32 && text.bytes().all(fits) && !text.starts_with('-');
    if good { Ok(text.to_owned()) } else { Err(format!("must be 1 to 32 of a-z, 0-9, _ and -, got {text:?}")) }
}
