//! Where a SQL Server is, and as whom the agent logs in.

use std::path::PathBuf;

use ribera_storage::Result;
use ribera_storage::secret::Secret;
use serde::Deserialize;

use super::TlsMode;
use super::load::bad;

/// A database of SQL Server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlServerConfig {
    pub host: String,
    #[serde(default)]
    pub port: Option<u16>,
    /// A named instance in place of a port.
    #[serde(default)]
    pub instance: Option<String>,
    pub database: String,
    /// A login of the server's own, or a Windows account as `DOMAIN\name`. Absent: the account that the agent runs as.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<Secret>,
    #[serde(default)]
    pub tls: TlsMode,
    /// PEM file of the authority that signed the server's certificate; with `tls = "verify"`.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
}

/// As whom the agent logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlServerLogin<'a> {
    /// A login that the server keeps itself, with its password.
    Server(&'a str),
    /// A Windows account, `DOMAIN\name`, with its password.
    Windows(&'a str),
    /// The Windows account that the agent runs as; no password.
    Integrated,
}

/// Whether this program can log in by Windows accounts. Elsewhere the driver would need a C library (Kerberos), or
/// pre-release libraries that cannot stand beside ours (NTLM).
const HAS_WINDOWS_LOGINS: bool = cfg!(windows);

impl SqlServerConfig {
    /// As whom the agent logs in.
    pub fn login(&self) -> SqlServerLogin<'_> {
        match self.user.as_deref() {
            None => SqlServerLogin::Integrated,
            Some(user) if user.contains('\\') => SqlServerLogin::Windows(user),
            Some(user) => SqlServerLogin::Server(user),
        }
    }

    pub(super) fn validate(&self, field: &str) -> Result<()> {
        let user = self.user.iter().map(|user| ("user", user));
        for (name, value) in [("host", &self.host), ("database", &self.database)].into_iter().chain(user) {
            // The login takes names of up to 128 characters.
            if value.is_empty() || value.chars().count() > 128 {
                return bad(&format!("{field}.{name}"), "must be 1 to 128 characters long", value);
            }
        }
        if self.host.contains(['\\', ',']) {
            return bad(&format!("{field}.host"), "must be the machine alone, beside `instance` or `port`", &self.host);
        }
        if let (Some(instance), Some(_)) = (&self.instance, self.port) {
            return bad(&format!("{field}.instance"), "must be absent beside `port`", instance);
        }
        self.validate_login(field, HAS_WINDOWS_LOGINS)
    }

    fn validate_login(&self, field: &str, has_windows_logins: bool) -> Result<()> {
        const OWN: &str = "must name a login of SQL Server's own (CREATE LOGIN ribera WITH PASSWORD = '...', on a server in \
             SQL Server and Windows Authentication mode), with its password in source.password";
        let (user, password) = (format!("{field}.user"), format!("{field}.password"));
        match (self.login(), &self.password) {
            (SqlServerLogin::Server(_), _) => Ok(()),
            (SqlServerLogin::Integrated, _) if !has_windows_logins => bad(
                &user,
                &format!("{OWN}: the account that the agent runs as can log in only where the agent runs on Windows"),
                "nothing",
            ),
            (SqlServerLogin::Windows(account), _) if !has_windows_logins => bad(
                &user,
                &format!("{OWN}: a Windows account can log in only where the agent runs on Windows"),
                account,
            ),
            (SqlServerLogin::Integrated, Some(_)) => bad(
                &password,
                "must be absent without `user`: the agent's own account logs in without one",
                "a password",
            ),
            (SqlServerLogin::Windows(_), None) => bad(
                &password,
                "must be there beside a Windows account; the agent's own account logs in without `user` and `password`",
                "nothing",
            ),
            (SqlServerLogin::Windows(account), Some(_)) => match account.split_once('\\') {
                Some((domain, name)) if !domain.is_empty() && !name.is_empty() && !name.contains('\\') => Ok(()),
                _ => bad(&user, r"must be DOMAIN\name, or MACHINE\name", account),
            },
            (SqlServerLogin::Integrated, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(login: &str, has_windows_logins: bool) -> String {
        let text = format!("host = 'caja1'\ndatabase = 'Caja'\n{login}");
        let config: SqlServerConfig = toml::from_str(&text).unwrap();
        let checked = config.validate_login("store s1: source", has_windows_logins);
        checked.err().map(|error| error.message().to_owned()).unwrap_or_default()
    }

    #[test]
    fn windows_accounts_log_in_on_windows_and_elsewhere_are_refused_with_what_to_write() {
        let (own, account) = ("", "user = 'TIENDA\\ribera'\npassword = 'hunter2'");
        for login in [own, account] {
            assert_eq!(refused(login, true), "", "{login}");
            let told = refused(login, false);
            for words in
                ["store s1: source.user", "CREATE LOGIN ribera WITH PASSWORD", "only where the agent runs on Windows"]
            {
                assert!(told.contains(words) && !told.contains("hunter2"), "{told}");
            }
        }
        assert!(refused(account, false).ends_with("got \"TIENDA\\\\ribera\""), "{}", refused(account, false));
        for has_windows_logins in [true, false] {
            assert_eq!(refused("user = 'ribera'\npassword = 'hunter2'", has_windows_logins), "");
        }
    }

    #[test]
    fn half_a_login_is_refused_by_the_field_that_is_wrong() {
        let told = refused("password = 'hunter2'", true);
        assert!(told.contains("source.password: must be absent without `user`") && !told.contains("hunter2"), "{told}");
        let told = refused("user = 'TIENDA\\ribera'", true);
        assert!(told.contains("source.password: must be there"), "{told}");
        for account in ["\\ribera", "TIENDA\\", "A\\B\\c"] {
            let told = refused(&format!("user = '{account}'\npassword = 'x'"), true);
            assert!(told.contains("source.user: must be DOMAIN\\name"), "{told}");
        }
    }
}
