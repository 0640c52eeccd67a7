//! Components are compiled once; what is kept is never trusted blindly.

use std::fs;

use ribera::host::cache::{self, ComponentFolders};
use ribera::host::engine;
use ribera::host::rights::Function;

use crate::folders;

/// The smallest component there is to compile, under the name of a real one.
fn small(folder: &std::path::Path, module: &str) -> ComponentFolders {
    let components = folder.join("components");
    fs::create_dir_all(&components).unwrap();
    let wasm = wat::parse_str(format!("(component (core module {module}))")).unwrap();
    fs::write(components.join(Function::Status.component_file()), wasm).unwrap();
    ComponentFolders { components, cache: folder.join("cache") }
}

fn kept(folders: &ComponentFolders) -> Vec<std::path::PathBuf> {
    fs::read_dir(&folders.cache).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_component_is_compiled_once_and_anew_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::new().unwrap();
    let folders = small(folder.path(), "");
    assert!(!cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
    assert!(cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
    let changed = small(folder.path(), "(memory 1)");
    assert!(!cache::load(&engine, &changed, Function::Status).unwrap().from_cache);
}

#[test]
fn two_versions_in_turn_are_compiled_once_each_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::new().unwrap();
    let load = |pages: usize| {
        let folders = small(folder.path(), &format!("(memory {pages})"));
        (cache::load(&engine, &folders, Function::Status).unwrap().from_cache, kept(&folders).len())
    };
    assert_eq!([load(1), load(2), load(1), load(2)], [(false, 1), (false, 2), (true, 2), (true, 2)]);
    for pages in 3..9 {
        load(pages);
    }
    assert_eq!(load(8), (true, cache::KEPT_MAX));
}

#[test]
fn damaged_machine_code_is_compiled_anew_and_never_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::new().unwrap();
    let folders = small(folder.path(), "");
    cache::load(&engine, &folders, Function::Status).unwrap();
    let file = kept(&folders).remove(0);
    let mut code = fs::read(&file).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 0xff;
    fs::write(&file, code).unwrap();
    assert!(!cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
    assert!(cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::new().unwrap();
    let mut folders = small(folder.path(), "");
    fs::write(folder.path().join("file"), "").unwrap();
    folders.cache = folder.path().join("file/cache");
    assert!(!cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
}

#[cfg(unix)]
#[test]
fn only_this_user_may_reach_what_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let folders = small(folder.path(), "");
    cache::load(&engine::new().unwrap(), &folders, Function::Status).unwrap();
    assert_eq!(fs::metadata(&folders.cache).unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn absent_components_are_an_error_that_names_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let error = ComponentFolders::find(Some(folder.path().to_owned()), None).unwrap_err();
    assert!(error.hint().unwrap().contains("cargo build --release --target wasm32-wasip2"), "{error}");
}

#[test]
fn the_real_components_are_there() {
    assert!(folders().components.is_dir());
}
