//! What differs between the systems that stores run: folders, and the commands that a person types.

use std::path::{Path, PathBuf};

/// The name that the system's service manager knows the agent by.
pub const SERVICE: &str = "ribera-agent";

/// The configuration file unless told otherwise.
pub fn config_file() -> PathBuf {
    if cfg!(windows) { program_data().join("agent.toml") } else { PathBuf::from("/etc/ribera/agent.toml") }
}

/// The agent's folder in a configuration that the agent writes itself.
pub fn agent_folder() -> PathBuf {
    if cfg!(windows) { program_data().join("agent") } else { PathBuf::from("/var/lib/ribera-agent") }
}

/// Shows whether the service runs.
pub const fn service_status() -> &'static str {
    if cfg!(windows) { "sc query ribera-agent" } else { "systemctl status ribera-agent" }
}

/// Shows how much of a disk is free.
pub fn free_space(folder: &Path) -> String {
    if cfg!(windows) { format!("dir \"{}\"", folder.display()) } else { format!("df -h {}", folder.display()) }
}

/// Shows who may write to a folder.
pub fn folder_rights(folder: &Path) -> String {
    if cfg!(windows) { format!("icacls \"{}\"", folder.display()) } else { format!("ls -ld {}", folder.display()) }
}

/// Sets a variable of the environment for the commands that follow.
pub fn set_variable(name: &str) -> String {
    if cfg!(windows) { format!("set {name}=...") } else { format!("export {name}=...") }
}

/// The folder of all users' data; the system tells where it is.
fn program_data() -> PathBuf {
    let folder = std::env::var_os("ProgramData").map_or_else(|| PathBuf::from(r"C:\ProgramData"), PathBuf::from);
    folder.join("Ribera")
}
