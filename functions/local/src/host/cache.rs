//! Finds components, compiles each once, keeps the machine code on disk.
//!
//! A cached file is named by what it was made from (the component's bytes, the engine's version
//! and settings) and by what it holds (its own SHA-256). A stale or damaged file never matches,
//! so it is never loaded. The name proves nothing about who wrote the file: that nobody else can write
//! the folder does ([`PrivateFolder`]). Where there is no such folder, components are compiled in memory.

use std::hash::{Hash, Hasher};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use ribera_storage::hex::{hex, sha256_hex};
use ribera_storage::ports::Random as _;
use ribera_storage::{Error, Result};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::private::PrivateFolder;
use super::rights::Function;
use crate::ports::SystemRandom;

/// Builds every component.
pub const BUILD_COMMAND: &str =
    "cargo build --release --target wasm32-wasip2 -p ribera-spin-ingest -p ribera-spin-coverage -p ribera-spin-status";

/// Machine codes kept of a function: two versions may run on one machine in turn.
pub const KEPT_MAX: usize = 4;

/// Where components come from and where their machine code is kept.
#[derive(Debug, Clone)]
pub struct ComponentFolders {
    pub components: PathBuf,
    /// `None`: nothing is kept, and every start compiles.
    pub cache: Option<PathBuf>,
}

impl ComponentFolders {
    /// `components`: as given, else `components/` or the folder itself beside this program, else
    /// cargo's output folder. `cache`: as given, else the user's cache folder, if the environment names one.
    pub fn find(components: Option<PathBuf>, cache: Option<PathBuf>) -> Result<Self> {
        let cache = cache.or_else(|| default_cache(|name| env::var_os(name).map(PathBuf::from)));
        Ok(Self { components: components_folder(components)?, cache })
    }
}

/// How a component came to be loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub component: Component,
    pub from_cache: bool,
    pub took: Duration,
}

/// Loads the component of `function`, compiling it when there is no machine code of it yet.
pub fn load(engine: &Engine, folders: &ComponentFolders, function: Function) -> Result<Loaded> {
    let started = Instant::now();
    let wasm = read_component(&folders.components.join(function.component_file()))?;
    let key = key(engine, &wasm);
    let cache = folders.cache.as_deref().and_then(open_cache);
    if let Some(component) = cache.as_ref().and_then(|cache| load_cached(engine, cache, &key)) {
        return Ok(Loaded { component, from_cache: true, took: started.elapsed() });
    }
    tracing::info!(function = function.name(), "compiling the component, once; it may take a minute");
    let code = engine
        .precompile_component(&wasm)
        .map_err(|error| Error::config(format!("component {}: {error:#}", function.name())))?;
    // A cache that cannot be written costs time at the next start and nothing else.
    if let Some(Err(error)) = cache.map(|cache| keep(&cache, function, &key, &code)) {
        tracing::warn!(function = function.name(), %error, "compiled component not kept");
    }
    let component = deserialize(engine, &code)
        .ok_or_else(|| Error::bug(format!("component {}: cannot be loaded after compiling", function.name())))?;
    Ok(Loaded { component, from_cache: false, took: started.elapsed() })
}

fn components_folder(given: Option<PathBuf>) -> Result<PathBuf> {
    let holds_all =
        |folder: &PathBuf| Function::ALL.iter().all(|function| folder.join(function.component_file()).is_file());
    let (candidates, wanted) = match given {
        Some(folder) => (vec![folder.clone()], folder),
        None => {
            let beside =
                env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned())).unwrap_or_default();
            let built = PathBuf::from("wasm32-wasip2/release");
            // Beside the program when installed; from target/release/ribera when built here.
            (vec![beside.join("components"), beside.clone(), beside.join("..").join(built)], beside.join("components"))
        }
    };
    candidates.into_iter().find(holds_all).ok_or_else(|| {
        Error::config(format!(
            "--components: must be a folder that holds {}, got {}",
            Function::ALL.map(Function::component_file).join(", "),
            wanted.display()
        ))
        .with_hint(format!("{BUILD_COMMAND} && ribera up --components target/wasm32-wasip2/release"))
    })
}

/// Relative paths count as absent, as the XDG specification says. Without both there is no folder that is
/// surely ours.
fn default_cache(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("ribera").join("components"))
}

fn open_cache(path: &Path) -> Option<PrivateFolder> {
    let opened = PrivateFolder::make(path);
    if let Err(error) = &opened {
        tracing::warn!(
            cache = %path.display(), %error,
            "the cache folder cannot be trusted or made: components are compiled at every start; try: \
             install -d -m 700 ~/.cache/ribera/components, or --cache with a folder of your own"
        );
    }
    opened.ok()
}

fn read_component(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        Error::config(format!("component {}: cannot be read", path.display()))
            .with_source(error)
            .with_hint(BUILD_COMMAND)
    })
}

/// Tells machine code by the component's bytes, the engine's version and its settings.
fn key(engine: &Engine, wasm: &[u8]) -> String {
    let mut compatibility = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let mut hasher = Sha256::new();
    hasher.update(wasm);
    hasher.update(compatibility.finish().to_le_bytes());
    hex(&hasher.finalize())[..32].to_owned()
}

fn load_cached(engine: &Engine, cache: &PrivateFolder, key: &str) -> Option<Component> {
    for name in cache.names().ok()? {
        let stem = name.strip_suffix(".cwasm");
        let Some(kept_hash) = stem.and_then(|stem| stem.split_once(key)?.1.strip_prefix('-')) else { continue };
        match read_code(cache, &name) {
            Ok(code) if sha256_hex(&code) == kept_hash => return deserialize(engine, &code),
            Ok(_) => tracing::warn!(file = name, "damaged machine code ignored"),
            Err(error) => tracing::warn!(file = name, %error, "machine code ignored"),
        }
    }
    None
}

/// The very bytes that are checked and then run.
fn read_code(cache: &PrivateFolder, name: &str) -> io::Result<Vec<u8>> {
    let mut code = Vec::new();
    cache.file(name)?.read_to_end(&mut code)?;
    Ok(code)
}

/// Writes the file complete or not at all, and removes the oldest ones beyond [`KEPT_MAX`].
fn keep(cache: &PrivateFolder, function: Function, key: &str, code: &[u8]) -> Result<()> {
    let prefix = format!("{}-", function.name());
    let mut kept: Vec<((i64, i64), String)> = cache
        .names()?
        .into_iter()
        .filter(|name| name.starts_with(&prefix))
        .filter_map(|name| Some((cache.modified(&name).ok()?, name)))
        .collect();
    kept.sort();
    let target = format!("{prefix}{key}-{}.cwasm", sha256_hex(code));
    for (_, name) in kept.iter().take((kept.len() + 1).saturating_sub(KEPT_MAX)) {
        // Another host may have removed it first.
        let _ = cache.remove(name);
    }
    let temporary = format!(".{}", SystemRandom.fresh_name());
    let mut file = cache.new_file(&temporary)?;
    file.write_all(code)?;
    file.sync_all()?;
    Ok(cache.rename(&temporary, &target)?)
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `precompile_component` made these bytes: just now, or earlier as this user, since nobody else
    // can write the folder they were read from. The engine checks its own version and settings.
    unsafe { Component::deserialize(engine, code) }.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cache_folder_or_a_home_nothing_is_kept() {
        let with = |pairs: &'static [(&str, &str)]| {
            default_cache(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "")]), None);
        assert_eq!(with(&[("XDG_CACHE_HOME", "cache"), ("HOME", "home")]), None);
        assert_eq!(with(&[("HOME", "/h")]), Some("/h/.cache/ribera/components".into()));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Some("/c/ribera/components".into()));
    }
}
