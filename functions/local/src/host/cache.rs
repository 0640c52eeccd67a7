//! Finds components, compiles each once, keeps the machine code on disk.
//!
//! A cached file is named by what it was made from (the component's bytes, the engine's version
//! and settings) and by what it holds (its own SHA-256). A stale or damaged file never matches,
//! so it is never loaded.

use std::hash::{Hash, Hasher};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use ribera_storage::hex::{hex, sha256_hex};
use ribera_storage::ports::Random as _;
use ribera_storage::{Error, Result};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

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
    pub cache: PathBuf,
}

impl ComponentFolders {
    /// `components`: as given, else `components/` or the folder itself beside this program, else
    /// cargo's output folder. `cache`: as given, else the user's cache folder.
    pub fn find(components: Option<PathBuf>, cache: Option<PathBuf>) -> Result<Self> {
        Ok(Self { components: components_folder(components)?, cache: cache.unwrap_or_else(default_cache) })
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
    if let Some(component) = load_cached(engine, &folders.cache, &key) {
        return Ok(Loaded { component, from_cache: true, took: started.elapsed() });
    }
    tracing::info!(function = function.name(), "compiling the component, once; it may take a minute");
    let code = engine
        .precompile_component(&wasm)
        .map_err(|error| Error::config(format!("component {}: {error:#}", function.name())))?;
    // A cache that cannot be written costs time at the next start and nothing else.
    if let Err(error) = keep(&folders.cache, function, &key, &code) {
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

fn default_cache() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("ribera")
        .join("components")
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

fn load_cached(engine: &Engine, cache: &Path, key: &str) -> Option<Component> {
    for entry in fs::read_dir(cache).ok()?.flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".cwasm"));
        let kept_hash = name.and_then(|name| name.split_once(key)?.1.strip_prefix('-'));
        let Some(kept_hash) = kept_hash else { continue };
        if hash_of(&entry.path()).ok()? == kept_hash {
            return map(engine, &entry.path());
        }
        tracing::warn!(file = %entry.path().display(), "damaged machine code ignored");
    }
    None
}

fn hash_of(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Writes whole or not at all, and removes what was kept longest beyond [`KEPT_MAX`].
fn keep(cache: &Path, function: Function, key: &str, code: &[u8]) -> Result<()> {
    make_private_folder(cache)?;
    let prefix = format!("{}-", function.name());
    let mut kept: Vec<(SystemTime, PathBuf)> = fs::read_dir(cache)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    kept.sort();
    for (_, path) in kept.iter().take((kept.len() + 1).saturating_sub(KEPT_MAX)) {
        // Another host may have removed it first.
        let _ = fs::remove_file(path);
    }
    let temporary = cache.join(format!(".{}", SystemRandom.fresh_name()));
    let mut file = fs::File::create_new(&temporary)?;
    file.write_all(code)?;
    file.sync_all()?;
    fs::rename(&temporary, cache.join(format!("{prefix}{key}-{}.cwasm", sha256_hex(code))))?;
    Ok(())
}

/// Machine code is trusted when loaded: nobody else may write here.
fn make_private_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    Ok(builder.create(folder)?)
}

/// Maps machine code into memory: pages are read when they are first run.
#[allow(unsafe_code)]
fn map(engine: &Engine, path: &Path) -> Option<Component> {
    // SAFETY: the file lies in a folder that only this user can write, holds what its name says,
    // and is never written over (only replaced or removed). The engine checks its own version and
    // settings.
    unsafe { Component::deserialize_file(engine, path) }.ok()
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: the bytes were made by `precompile_component` just now.
    unsafe { Component::deserialize(engine, code) }.ok()
}
