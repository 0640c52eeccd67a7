//! The least rights of each function, as stated in `infra/spin.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use ribera_storage::{Error, Result};
use serde::Deserialize;

/// The manifest is part of this program: rights cannot be widened by editing a file beside it.
const MANIFEST: &str = include_str!("../../../../infra/spin.toml");

/// The functions that run as WASM components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    Ingest,
    Coverage,
    Status,
}

impl Function {
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Coverage, Self::Status];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Coverage => "coverage",
            Self::Status => "status",
        }
    }

    /// The file that `cargo build` makes of the component.
    pub fn component_file(self) -> String {
        format!("ribera_spin_{}.wasm", self.name())
    }
}

/// Folders of the object store, by their names below its root.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    pub read: Vec<String>,
    pub write: Vec<String>,
}

/// The rights of `function`.
pub fn of(function: Function) -> Result<Rights> {
    let broken = |why: String| Error::bug(format!("infra/spin.toml: component {}: {why}", function.name()));
    let mut manifest: Manifest = toml::from_str(MANIFEST).map_err(|error| broken(error.to_string()))?;
    let component = manifest.component.remove(function.name()).ok_or_else(|| broken("is not stated".into()))?;
    Ok(component.tool.ribera)
}

/// Makes every folder that some function is given: what is given must exist.
pub fn make_folders(store_root: &Path) -> Result<()> {
    for function in Function::ALL {
        let Rights { read, write } = of(function)?;
        for folder in read.iter().chain(&write) {
            let folder = store_root.join(folder);
            std::fs::create_dir_all(&folder).map_err(|error| {
                Error::config(format!("--lake: {}: folder cannot be made", folder.display())).with_source(error)
            })?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Manifest {
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    tool: Tool,
}

#[derive(Deserialize)]
struct Tool {
    ribera: Rights,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_function_may_write_nothing() {
        assert!(of(Function::Status).unwrap().write.is_empty());
    }

    #[test]
    fn what_a_store_sent_and_what_people_declared_is_never_writable() {
        for function in Function::ALL {
            let write = of(function).unwrap().write;
            for folder in ["landing", "control", "agents"] {
                assert!(!write.iter().any(|name| name == folder), "{} may write {folder}", function.name());
            }
        }
    }

    #[test]
    fn no_function_is_given_the_root_or_a_folder_outside_it() {
        for function in Function::ALL {
            let Rights { read, write } = of(function).unwrap();
            for folder in read.iter().chain(&write) {
                let plain = folder.bytes().all(|byte| byte.is_ascii_lowercase()) || folder == ".tmp";
                assert!(plain && !folder.is_empty(), "{}: {folder:?}", function.name());
            }
        }
    }
}
