//! The configuration file: what a person wrote stays as it is; below a line of ours stands what
//! discovery writes, and only that is ever replaced.

use std::io::Write;
use std::path::Path;

use ribera_storage::{Error, Result};
use toml::{Table, Value};

use super::stores::{Known, Store};
use crate::config::Config;
use crate::system;

const MARK: &str = "# ---- ribera-agent discover writes what follows, and replaces it with --force ----";

/// What a configuration lacks to be one, with the defaults of a service.
fn beginning() -> String {
    let folder = system::agent_folder();
    let objects = if cfg!(windows) { folder.with_file_name("objects") } else { "/srv/ribera/objects".into() };
    format!(
        "# Where journal, spool and reports live.\nfolder = {}\n# Where batches go.\nobject_store = {{ folder = {} }}\n",
        Value::String(folder.display().to_string()),
        Value::String(objects.display().to_string())
    )
}

/// The person's part of a file, and the stores in both parts.
pub fn read(text: &str) -> Result<(String, Known)> {
    let (head, tail) = text.split_once(MARK).unwrap_or((text, ""));
    let stores = |text: &str| -> Result<Vec<Table>> {
        let mut file: Table =
            toml::from_str(text).map_err(|error| Error::config(format!("configuration: {}", error.message())))?;
        let stores = file.remove("store").and_then(|stores| stores.try_into::<Vec<Table>>().ok());
        Ok(stores.unwrap_or_default())
    };
    Ok((head.to_owned(), Known { by_hand: stores(head)?, written: stores(tail)? }))
}

/// The person's part, completed where it is the servers' settings alone.
pub fn completed(head: &str) -> Result<String> {
    let file: Table =
        toml::from_str(head).map_err(|error| Error::config(format!("configuration: {}", error.message())))?;
    // Keys of the file itself must stand before its first section.
    Ok(match (file.contains_key("folder"), file.contains_key("object_store")) {
        (false, false) => format!("{}\n{head}", beginning()),
        (true, true) => head.to_owned(),
        _ => {
            return Err(Error::config(
                "configuration: folder and object_store must both be there or both be absent, got one of them",
            ));
        }
    })
}

/// The whole file, which is one that an agent can start with, and that may be shown around.
pub fn composed(head: &str, stores: &[Store]) -> Result<String> {
    let mut text = format!("{}\n\n{MARK}\n", head.trim_end());
    stores.iter().for_each(|store| write_store(&mut text, store));
    no_secret_in_clear(&text)?;
    let set = |_: &str| Some("a value of some length".to_owned());
    Config::parse(&text, &set).map_err(|error| {
        error.context("discover: what it would write").with_hint("correct the settings, or [discover.store]")
    })?;
    Ok(text)
}

/// Refuses secrets that stand in the text itself, for what is written is copied and shown around.
fn no_secret_in_clear(text: &str) -> Result<()> {
    let file: Table =
        toml::from_str(text).map_err(|error| Error::config(format!("configuration: {}", error.message())))?;
    clear_secret("", &Value::Table(file)).map_or(Ok(()), |key| {
        Err(Error::config(format!(
            "configuration: {key}: must be ${{NAME}} of an environment variable, got it in clear"
        )))
    })
}

/// The environment variables that the stores need.
pub fn variables(stores: &[Store]) -> Vec<String> {
    fn collect(value: &Value, names: &mut Vec<String>) {
        match value {
            Value::String(text) => {
                let parts = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()));
                names.extend(parts.filter(|name| !name.starts_with("file:")));
            }
            Value::Table(table) => table.values().for_each(|value| collect(value, names)),
            Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    stores.iter().for_each(|store| store.table.values().for_each(|value| collect(value, &mut names)));
    names.sort_unstable();
    names.dedup();
    names
}

/// Puts the file if absent, or in place of the one there. It is whole or not there at any moment.
pub fn put(path: &Path, text: &str, replace: bool) -> Result<()> {
    let error = |source| {
        Error::config(format!("discover: {} cannot be written", path.display()))
            .with_source(source)
            .with_hint("ribera-agent discover --output FILE")
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("agent.toml");
    let fresh = folder.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if replace { std::fs::rename(&fresh, path) } else { std::fs::hard_link(&fresh, path) }
    })();
    let _ = std::fs::remove_file(&fresh);
    written.map_err(error)
}

fn write_store(text: &mut String, store: &Store) {
    text.push('\n');
    if let Some(comment) = &store.comment {
        text.push_str(&format!("# {comment}\n"));
    }
    text.push_str("[[store]]\n");
    write_keys(text, &store.table, &["id", "tenant"]);
    for (key, table) in store.table.iter().filter_map(|(key, value)| Some((key, value.as_table()?))) {
        text.push_str(&format!("[store.{}]\n", quoted(key)));
        write_keys(text, table, &["kind", "host", "port"]);
        for (inner, value) in table.iter().filter(|(_, value)| value.is_table()) {
            text.push_str(&format!("{} = {value}\n", quoted(inner)));
        }
    }
}

/// The values that are no tables; those of `first` before the others.
fn write_keys(text: &mut String, table: &Table, first: &[&str]) {
    let rest = table.iter().filter(|(key, value)| !first.contains(&key.as_str()) && !value.is_table());
    let first = first.iter().filter_map(|key| table.get_key_value(*key));
    for (key, value) in first.chain(rest) {
        text.push_str(&format!("{} = {value}\n", quoted(key)));
    }
}

/// A key that needs no quotes, or one in quotes.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

/// The key of the first secret that is no `${NAME}`.
fn clear_secret(path: &str, value: &Value) -> Option<String> {
    let named = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Table(table) => table.iter().find_map(|(key, value)| match value {
            Value::String(text) if is_secret(key) && !text.is_empty() && !text.starts_with("${") => Some(named(key)),
            value => clear_secret(&named(key), value),
        }),
        Value::Array(values) => values.iter().find_map(|value| clear_secret(path, value)),
        _ => None,
    }
}

fn is_secret(key: &str) -> bool {
    key == "hash_salt" || ["password", "secret", "token"].iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_survives_being_read_and_written_again_to_the_letter() {
        let head = "folder = \"a\"\nobject_store = { folder = \"o\" }\n# mine\n[adapter.caja.ventas]\nfrom = \"l\"\ndate = \"d\"\n";
        let table: Table = toml::from_str(
            "id = \"c-1\"\nadapter = \"caja\"\ntenant = \"9001\"\n[source]\nkind = \"firebird\"\nhost = \"h\"\n\
             database = 'C:\\datos\\É \"1\".FDB'\nuser = \"u\"\npassword = \"${CLAVE}\"\n",
        )
        .unwrap();
        let store = Store { table, comment: Some("001 Centro".to_owned()) };
        let text = composed(head, std::slice::from_ref(&store)).unwrap();
        let (again, known) = read(&text).unwrap();
        assert_eq!((again.trim_end(), &known.written[0]), (head.trim_end(), &store.table));
        assert_eq!(composed(&again, std::slice::from_ref(&store)).unwrap(), text);
        assert_eq!(variables(&[store]), ["CLAVE"]);
    }

    #[test]
    fn what_an_agent_could_not_start_with_is_not_composed() {
        let store = Store { table: toml::from_str("id = \"c\"\nadapter = \"none\"\n").unwrap(), comment: None };
        let told = composed(&completed("").unwrap(), &[store]).unwrap_err().to_string();
        assert!(told.contains("discover") && told.contains("source"), "{told}");
    }

    #[test]
    fn a_secret_in_clear_is_named_and_not_repeated() {
        let told =
            no_secret_in_clear("[[discover.server]]\nsource = { password = \"hunter2\" }").unwrap_err().to_string();
        assert!(told.contains("discover.server.source.password") && !told.contains("hunter2"), "{told}");
        no_secret_in_clear("[store.source]\npassword = \"${CLAVE}\"\nuser = \"u\"").unwrap();
    }

    #[test]
    fn a_file_is_put_once_and_replaced_only_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        put(&path, "one", false).unwrap();
        assert!(put(&path, "two", false).unwrap_err().to_string().contains("cannot be written"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        put(&path, "two", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }
}
