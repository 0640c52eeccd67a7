//! Components are compiled once; what is kept is never trusted blindly.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use ribera::host::cache::{self, ComponentFolders};
use ribera::host::engine;
use ribera::host::rights::Function;
use tempfile::TempDir;

use crate::fixture::private_folder;
use crate::folders;

/// The smallest component there is to compile, under the name of a real one.
fn small(folder: &std::path::Path, module: &str) -> ComponentFolders {
    let components = folder.join("components");
    fs::create_dir_all(&components).unwrap();
    let wasm = wat::parse_str(format!("(component (core module {module}))")).unwrap();
    fs::write(components.join(Function::Status.component_file()), wasm).unwrap();
    ComponentFolders { components, cache: Some(folder.join("cache")) }
}

/// In a folder that only this user and root can write: `/tmp` is everybody's.
fn own_folder() -> TempDir {
    tempfile::tempdir_in(private_folder()).unwrap()
}

fn kept(folders: &ComponentFolders) -> Vec<PathBuf> {
    fs::read_dir(folders.cache.as_ref().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn from_cache(folders: &ComponentFolders) -> bool {
    cache::load(&engine::new().unwrap(), folders, Function::Status).unwrap().from_cache
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// False where this user may give nothing away: only root may.
fn give_away(path: &Path) -> bool {
    const SOMEBODY: u32 = 54_321;
    chown(path, Some(SOMEBODY), None).is_ok()
}

#[test]
fn a_component_is_compiled_once_and_anew_when_it_changes() {
    let folder = own_folder();
    let engine = engine::new().unwrap();
    let folders = small(folder.path(), "");
    assert!(!cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
    assert!(cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
    let changed = small(folder.path(), "(memory 1)");
    assert!(!cache::load(&engine, &changed, Function::Status).unwrap().from_cache);
}

#[test]
fn two_versions_in_turn_are_compiled_once_each_and_old_ones_go() {
    let folder = own_folder();
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
    let folder = own_folder();
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
    let folder = own_folder();
    let engine = engine::new().unwrap();
    let mut folders = small(folder.path(), "");
    fs::write(folder.path().join("file"), "").unwrap();
    folders.cache = Some(folder.path().join("file/cache"));
    assert!(!cache::load(&engine, &folders, Function::Status).unwrap().from_cache);
}

#[test]
fn only_this_user_may_reach_what_is_kept() {
    let folder = own_folder();
    let folders = small(folder.path(), "");
    from_cache(&folders);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folders.cache.as_ref().unwrap()), 0o700);
    assert_eq!(mode(&kept(&folders)[0]), 0o600);
}

#[test]
fn without_a_cache_folder_components_are_compiled_in_memory() {
    let folder = own_folder();
    let folders = ComponentFolders { cache: None, ..small(folder.path(), "") };
    assert!(!from_cache(&folders) && !from_cache(&folders));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the components and nothing else");
}

#[test]
fn machine_code_is_not_loaded_from_a_folder_that_others_can_write_or_read() {
    for mode in [0o777, 0o1777, 0o770, 0o720, 0o702, 0o750, 0o705, 0o701] {
        let folder = own_folder();
        let folders = small(folder.path(), "");
        from_cache(&folders);
        let cache = folders.cache.clone().unwrap();
        set_mode(&cache, mode);
        assert!(!from_cache(&folders) && !from_cache(&folders), "mode {mode:o}");
        assert_eq!(kept(&folders).len(), 1, "mode {mode:o}: nothing is written there either");
        set_mode(&cache, 0o700);
        assert!(from_cache(&folders), "mode {mode:o}");
    }
}

#[test]
fn machine_code_is_not_loaded_below_a_folder_that_others_can_write() {
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        let folder = own_folder();
        let mut folders = small(folder.path(), "");
        let above = folder.path().join("above");
        folders.cache = Some(above.join("between/cache"));
        from_cache(&folders);
        assert!(from_cache(&folders));
        set_mode(&above, mode);
        assert!(!from_cache(&folders) && !from_cache(&folders), "mode {mode:o}");
    }
    // A temporary folder of the system is everybody's, whatever lies in it.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let folders = small(folder.path(), "");
    assert!(!from_cache(&folders) && !from_cache(&folders));
}

#[test]
fn machine_code_of_another_owner_is_not_loaded() {
    let folder = own_folder();
    let folders = small(folder.path(), "");
    from_cache(&folders);
    if !give_away(&kept(&folders)[0]) {
        return;
    }
    assert!(!from_cache(&folders), "a file");
    assert!(from_cache(&folders), "it was replaced by our own");
    give_away(folders.cache.as_ref().unwrap());
    assert!(!from_cache(&folders) && !from_cache(&folders), "the folder");

    let mut folders = small(folder.path(), "");
    let above = folder.path().join("above");
    folders.cache = Some(above.join("cache"));
    from_cache(&folders);
    assert!(from_cache(&folders));
    give_away(&above);
    assert!(!from_cache(&folders) && !from_cache(&folders), "a folder above");
}

#[test]
fn machine_code_that_is_a_link_or_that_others_can_write_is_not_loaded() {
    let folder = own_folder();
    let folders = small(folder.path(), "");
    from_cache(&folders);
    let file = kept(&folders).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert!(!from_cache(&folders), "a link");
    assert!(from_cache(&folders), "it was replaced by a file");
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    for mode in [0o622, 0o620, 0o602] {
        set_mode(&file, mode);
        assert!(!from_cache(&folders), "mode {mode:o}");
    }
}

#[test]
fn a_link_to_a_cache_folder_counts_as_what_it_leads_to() {
    let folder = own_folder();
    let mut folders = small(folder.path(), "");
    let target = folders.cache.replace(folder.path().join("link")).unwrap();
    symlink(&target, folder.path().join("link")).unwrap();
    fs::create_dir(&target).unwrap();
    set_mode(&target, 0o777);
    assert!(!from_cache(&folders) && !from_cache(&folders));
    set_mode(&target, 0o700);
    assert!(!from_cache(&folders) && from_cache(&folders));
}

#[test]
fn absent_components_are_an_error_that_names_the_command() {
    let folder = own_folder();
    let error = ComponentFolders::find(Some(folder.path().to_owned()), None).unwrap_err();
    assert!(error.hint().unwrap().contains("cargo build --release --target wasm32-wasip2"), "{error}");
}

#[test]
fn the_real_components_are_there() {
    assert!(folders().components.is_dir());
}
