//! Where `${NAME}` of the configuration comes from: the environment, else `agent.env` beside the file.
//! `${file:PATH}` is what a file holds.
//!
//! The agent reads these files itself, so that a service, cron and a person at a prompt get the same, whatever a shell or
//! systemd would make of blanks, quotes and `$`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ribera_storage::{Error, Result};

use super::load::file_text;

/// Beside the configuration file; it may be absent.
pub const ENV_FILE: &str = "agent.env";
const FILE: &str = "file:";
/// More is no secret, and perhaps a device.
const FILE_BYTES_MAX: u64 = 65_536;

/// What the names of a configuration stand for.
pub struct Secrets<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    of_file: BTreeMap<String, String>,
    /// Relative paths count from here.
    folder: PathBuf,
}

impl<'a> Secrets<'a> {
    /// For a configuration in `folder`. An `agent.env` that may not be read is as if absent: the service's manager may
    /// have read it already.
    ///
    /// # Errors
    ///
    /// `Config`, naming the line of `agent.env`, when that is not `NAME=value`.
    pub fn in_folder(folder: &Path, env: &'a dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let path = folder.join(ENV_FILE);
        let of_file = match std::fs::read(&path) {
            Ok(bytes) => file_text(&bytes)
                .and_then(|text| named(&text))
                .map_err(|error| error.context(format_args!("{}", path.display())))?,
            Err(_) => BTreeMap::new(),
        };
        Ok(Self { env, of_file, folder: folder.to_owned() })
    }

    /// What stands for `name`, if anything does.
    ///
    /// # Errors
    ///
    /// `Config` when a file that is named cannot be read, naming it; never with what it holds.
    pub fn get(&self, name: &str) -> Result<Option<String>> {
        if let Some(value) = (self.env)(name) {
            return Ok(Some(value));
        }
        match name.strip_prefix(FILE) {
            Some(path) => content(&self.folder.join(path)).map(Some),
            None => Ok(self.of_file.get(name).cloned()),
        }
    }
}

/// Without the line's end that editors and `echo` put behind it.
fn content(path: &Path) -> Result<String> {
    let unreadable = |rule: &str| Error::config(format!("{} {rule}", path.display()));
    let meta = std::fs::metadata(path).map_err(|error| unreadable("cannot be read").with_source(error))?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(unreadable(&format!("must be a file of {FILE_BYTES_MAX} bytes at most")));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable("cannot be read").with_source(error))?;
    // What is not text is not quoted: it may be most of a secret.
    let text = file_text(&bytes).map_err(|_| unreadable("must be text in UTF-8 or UTF-16"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The lines `NAME=value`: no blanks around the name, quotes around the whole value fall, everything else stays.
fn named(text: &str) -> Result<BTreeMap<String, String>> {
    let mut named = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let assigned = line.strip_prefix("export ").unwrap_or(line).split_once('=');
        let Some((name, value)) = assigned.filter(|(name, _)| is_name(name)) else {
            return Err(Error::config(format!("line {}: must be NAME=value, got another text", index + 1)));
        };
        named.insert(name.to_owned(), unquoted(value).to_owned());
    }
    Ok(named)
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(fits) && !name.starts_with(|first: char| first.is_ascii_digit())
}

fn unquoted(value: &str) -> &str {
    let value = value.trim();
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn a_name_comes_from_the_environment_else_from_the_file_beside_the_configuration() {
        let lines = "# claves\r\nA=uno\n export B = no\n";
        let folder = folder(&[(ENV_FILE, lines.as_bytes())]);
        let told = Secrets::in_folder(folder.path(), &nothing).err().unwrap().to_string();
        assert!(told.contains("agent.env: line 3: must be NAME=value") && !told.contains("no\n"), "{told}");
        let lines = "# claves\r\nA=a b$c\\d\r\nexport B=\"x=y \"\nC='it''s'\n\nD=\n";
        std::fs::write(folder.path().join(ENV_FILE), lines).unwrap();
        let env = |name: &str| (name == "D").then(|| "of the environment".to_owned());
        let secrets = Secrets::in_folder(folder.path(), &env).unwrap();
        let get = |name: &str| secrets.get(name).unwrap();
        assert_eq!(get("A").as_deref(), Some("a b$c\\d"));
        assert_eq!(get("B").as_deref(), Some("x=y "));
        assert_eq!(get("C").as_deref(), Some("it''s"));
        assert_eq!(get("D").as_deref(), Some("of the environment"));
        assert_eq!(get("E"), None);
    }

    #[test]
    fn a_file_is_a_secret_without_its_last_line_end_as_windows_saves_it_too() {
        let wide: Vec<u8> =
            [0xFF, 0xFE].into_iter().chain("ñu\r\n".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let folder = folder(&[("plain", b" hunter2 \n"), ("wide", &wide), ("binary", &[0x80, 0x81])]);
        let secrets = Secrets::in_folder(folder.path(), &nothing).unwrap();
        assert_eq!(secrets.get("file:plain").unwrap().as_deref(), Some(" hunter2 "));
        assert_eq!(secrets.get("file:wide").unwrap().as_deref(), Some("ñu"));
        for (name, rule) in [("file:absent", "cannot be read"), ("file:binary", "UTF-8"), ("file:.", "must be a file")]
        {
            let told = secrets.get(name).unwrap_err().to_string();
            assert!(told.contains(rule), "{told}");
        }
    }
}
