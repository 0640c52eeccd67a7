//! Where a connection goes, in the driver's terms.

use rsfbclient_core::{Charset, FirebirdClientDbOps, charset};
use rsfbclient_rust::RustFbClient;

use crate::config::{FirebirdCharset, FirebirdConfig};

const PORT: u16 = 3050;

#[derive(Clone)]
pub struct Target {
    config: FirebirdConfig,
    pub charset: Charset,
}

impl Target {
    pub fn new(config: FirebirdConfig) -> Self {
        let charset = match config.charset {
            FirebirdCharset::Utf8 => charset::UTF_8,
            FirebirdCharset::Iso8859_1 => charset::ISO_8859_1,
            FirebirdCharset::Iso8859_2 => charset::ISO_8859_2,
            FirebirdCharset::Win1250 => charset::WIN_1250,
            FirebirdCharset::Win1251 => charset::WIN_1251,
            FirebirdCharset::Win1252 => charset::WIN_1252,
        };
        Self { config, charset }
    }

    /// Kind and place, without secrets.
    pub fn describe(&self) -> String {
        let FirebirdConfig { host, port, database, .. } = &self.config;
        format!("firebird {database} at {host}:{}", port.unwrap_or(PORT))
    }

    pub fn attachment(&self) -> <RustFbClient as FirebirdClientDbOps>::AttachmentConfig {
        let FirebirdConfig { host, port, database, user, password, role, charset: _ } = &self.config;
        <RustFbClient as FirebirdClientDbOps>::AttachmentConfig {
            host: host.clone(),
            port: port.unwrap_or(PORT),
            db_name: database.clone(),
            user: user.clone(),
            pass: password.as_ref().map(|password| password.expose().to_owned()).unwrap_or_default(),
            role_name: role.clone(),
        }
    }
}
