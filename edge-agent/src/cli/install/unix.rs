//! What makes the agent start with the machine: a unit of systemd, or a line for cron.

use std::path::{Path, PathBuf};

use ribera_storage::{Error, Result};

use super::super::{Common, Lang};
use super::InstallArgs;
use crate::config::{Config, ENV_FILE};
use crate::report::Exit;
use crate::terminal::say;

const UNIT: &str = "ribera-agent.service";
const CRON: &str = "ribera-agent";

/// Writes the file, or prints it.
pub fn install(common: &Common, args: &InstallArgs, config: &Config, program: &Path, file: &Path) -> Result<Exit> {
    let text = if args.cron { cron_line(program, file, &args.user) } else { unit(program, file, &args.user, config) };
    if args.print {
        print!("{text}");
        return Ok(Exit::Done);
    }
    let (folder, name) = if args.cron { ("/etc/cron.d", CRON) } else { ("/etc/systemd/system", UNIT) };
    let path = args.to.clone().unwrap_or_else(|| PathBuf::from(folder)).join(name);
    write(&path, &text, args.force)?;
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
# Secrets that the configuration names as ${{NAME}}; the agent reads this file itself where it may.
EnvironmentFile=-{secrets}
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
        secrets = quoted(&file.with_file_name(ENV_FILE).display().to_string()),
        writable = writable.join(" "),
    )
}

fn cron_line(program: &Path, file: &Path, user: &str) -> String {
    let shell = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''").replace('%', "\\%"));
    format!(
        "# Written by `ribera-agent install --cron`. An agent that still runs is left alone.\n\
         */15 * * * * {user} {} --config {} once\n",
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
