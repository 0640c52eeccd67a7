//! `[discover]`: where the master tables of companies are, and what is written for each company.

use std::fmt;
use std::path::Path;

use ribera_storage::{Error, Result};
use serde::Deserialize;

use super::SourceConfig;
use super::load::{fill, parse_error};
use super::secrets::Secrets;

/// The section as it stands in a file. Only `ribera-agent discover` reads it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    /// The master table, as it stands behind FROM.
    pub from: String,
    /// Rows that count.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    pub columns: MasterColumns,
    /// In place of the three above: a query whose result columns are code, name, tax_number,
    /// fiscal_year and path.
    pub query: Option<String>,
    /// In place of a master table: every database of the server.
    pub databases: bool,
    /// Companies without a tax number are stores of their own, each database one.
    pub unnumbered: bool,
    /// Before each store's id, to tell one server's codes from another's.
    pub prefix: String,
    /// First day of the fiscal years, as MM-01.
    pub fiscal_year_starts: String,
    /// What each store written has beside id, tenant and source; and in `source` what differs from
    /// the master's.
    pub store: Template,
    #[serde(rename = "server")]
    pub servers: Vec<DiscoverServer>,
}

/// SQL expressions of the master table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MasterColumns {
    pub code: String,
    pub name: String,
    pub tax_number: String,
    pub fiscal_year: String,
    pub path: String,
}

/// A server with a master table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoverServer {
    pub name: String,
    /// The database that the master table is in.
    pub source: SourceConfig,
}

/// Keys of a `[[store]]`, as they were written. It may hold a secret.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Template(pub toml::Table);

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Default for Discover {
    fn default() -> Self {
        Self {
            from: "EMPRESAS".to_owned(),
            filter: None,
            columns: MasterColumns::default(),
            query: None,
            databases: false,
            unnumbered: false,
            prefix: String::new(),
            fiscal_year_starts: "01-01".to_owned(),
            store: Template::default(),
            servers: Vec::new(),
        }
    }
}

/// The invented product that the documentation uses.
impl Default for MasterColumns {
    fn default() -> Self {
        let [code, name, tax_number, fiscal_year, path] =
            ["CODIGO", "NOMBRE", "NIT", "EJERCICIO", "RUTA"].map(str::to_owned);
        Self { code, name, tax_number, fiscal_year, path }
    }
}

impl Discover {
    /// Reads the section `[discover]` of TOML text, and of it alone the secrets; the second is the
    /// section as written, secrets by name. Relative paths count from `base`.
    pub fn parse(text: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(Self, toml::Table)> {
        let mut file: toml::Table = toml::from_str(text).map_err(|error| parse_error(text, &error))?;
        let Some(toml::Value::Table(mut written)) = file.remove("discover") else {
            return Err(Error::config("configuration: discover: must be a section with its servers, got none")
                .with_hint("ribera-agent discover --servers FILE, or --kind, --host, --database and --user"));
        };
        resolve(&mut written, base);
        let mut filled = toml::Value::Table(written.clone());
        let secrets = Secrets::in_folder(base, env)?;
        fill(&mut filled, "discover", &|name| secrets.get(name))?;
        let section = Self::deserialize(filled)
            .map_err(|error| Error::config(format!("configuration: discover: {}", error.message())))?;
        section.validate()?;
        Ok((section, written))
    }

    /// The month that a fiscal year begins with.
    pub fn first_month(&self) -> Option<i8> {
        let month = self.fiscal_year_starts.strip_suffix("-01").filter(|month| month.len() == 2)?;
        month.parse().ok().filter(|month| (1..=12).contains(month))
    }

    fn validate(&self) -> Result<()> {
        let bad = |field: &str, rule: &str, got: &str| {
            Err(Error::config(format!("configuration: discover.{field}: {rule}, got {got:?}")))
        };
        if self.servers.is_empty() {
            return bad("server", "must be at least one [[discover.server]]", "none");
        }
        for (index, server) in self.servers.iter().enumerate() {
            if server.name.trim().is_empty() {
                return bad("server.name", "must not be blank", &server.name);
            }
            if self.servers[..index].iter().any(|other| other.name == server.name) {
                return bad("server.name", "must be unique", &server.name);
            }
            server.source.validate(&format!("discover.server {}: source", server.name))?;
        }
        if self.first_month().is_none() {
            return bad(
                "fiscal_year_starts",
                "must be the first day of a month, such as 07-01",
                &self.fiscal_year_starts,
            );
        }
        if self.databases && self.query.is_some() {
            return bad("query", "must be absent beside `databases`", "a query");
        }
        Ok(())
    }
}

/// The files that a source names, as absolute paths: what is written may lie elsewhere.
fn resolve(section: &mut toml::Table, base: &Path) {
    let resolve = |source: Option<&mut toml::Value>| {
        let Some(toml::Value::Table(source)) = source else { return };
        let sqlite = source.get("kind").and_then(toml::Value::as_str) == Some("sqlite");
        for key in ["tls_ca_file", "path"] {
            if let Some(toml::Value::String(path)) = source.get_mut(key)
                && (key != "path" || sqlite)
                && !path.contains("${")
            {
                let whole = std::path::absolute(base.join(&*path)).unwrap_or_else(|_| base.join(&*path));
                *path = whole.display().to_string();
            }
        }
    };
    for server in section.get_mut("server").and_then(toml::Value::as_array_mut).into_iter().flatten() {
        resolve(server.get_mut("source"));
    }
    resolve(section.get_mut("store").and_then(|store| store.get_mut("source")));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "[[discover.server]]\nname = \"n\"\nsource = { kind = \"mysql\", host = \"h\", \
                          database = \"d\", user = \"u\", password = \"${CLAVE}\", tls_ca_file = \"ca.pem\" }\n";

    fn env(name: &str) -> Option<String> {
        (name == "CLAVE").then(|| "hunter2".to_owned())
    }

    #[test]
    fn the_sample_in_the_documentation_is_valid_and_its_switched_off_lines_are_the_defaults() {
        let page = include_str!("../../../docs/discover.md");
        let sample = page.split("```toml discover\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let env = |_: &str| Some("x".to_owned());
        let (plain, _) = Discover::parse(sample, Path::new("."), &env).unwrap();
        let on: String =
            sample.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
        let (full, _) = Discover::parse(&on, Path::new("."), &env).unwrap();
        assert!(full.query.is_some() && full.filter.is_some());
        let columns = |section: &Discover| format!("{:?} {:?}", section.columns, section.from);
        assert_eq!(columns(&plain), columns(&full));
        assert_eq!((plain.first_month(), plain.unnumbered), (full.first_month(), full.unnumbered));
    }

    #[test]
    fn secrets_are_filled_in_for_asking_and_stay_names_for_writing() {
        let text = format!("[discover.store.source]\npassword = \"${{CLAVE}}\"\n{SERVER}");
        let (section, written) = Discover::parse(&text, Path::new("/etc/ribera"), &env).unwrap();
        assert!(!format!("{section:?}").contains("hunter2"));
        assert!(!format!("{written:?}").contains("hunter2"));
        let SourceConfig::Mysql(server) = &section.servers[0].source else { panic!("{section:?}") };
        assert_eq!(server.password.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(server.tls_ca_file.as_deref(), Some(Path::new("/etc/ribera/ca.pem")));
    }

    #[test]
    fn what_is_wrong_with_the_section_is_named() {
        let twice = format!("{SERVER}{SERVER}");
        let cases = [
            ("folder = \"a\"", &["discover", "got none"][..]),
            ("[discover]\nfrom = \"T\"", &["discover.server", "at least one"]),
            ("[discover]\ntable = \"T\"", &["discover", "table"]),
            (
                "[discover]\nfiscal_year_starts = \"7-1\"\n[[discover.server]]\nname = \"n\"\nsource = { kind = \"sqlite\", path = \"p\" }",
                &["fiscal_year_starts", "7-1"],
            ),
            (&twice, &["server.name", "unique", "\"n\""]),
            (
                "[[discover.server]]\nname = \"n\"\nsource = { kind = \"mysql\", database = \"d\", user = \"u\" }",
                &["server n", "source.host"],
            ),
        ];
        for (text, words) in cases {
            let told = Discover::parse(text, Path::new("."), &env).unwrap_err().to_string();
            for word in words {
                assert!(told.contains(word), "{told} should name {word}");
            }
        }
        let unset = Discover::parse(SERVER, Path::new("."), &|_| None).unwrap_err().to_string();
        assert!(unset.contains("CLAVE") && unset.contains("discover.server.source.password"), "{unset}");
    }
}
