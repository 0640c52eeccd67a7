//! Where a connection goes, in the driver's terms.

use rsfbclient_core::{Charset, FirebirdClientDbOps, charset};
use rsfbclient_rust::RustFbClient;

use crate::config::{FirebirdCharset, FirebirdConfig};

pub const PORT: u16 = 3050;

pub type Attachment = <RustFbClient as FirebirdClientDbOps>::AttachmentConfig;

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
        format!("firebird {} at {}:{}", self.config.database, self.host(), self.port())
    }

    pub fn host(&self) -> &str {
        &self.config.host
    }

    pub fn port(&self) -> u16 {
        self.config.port.unwrap_or(PORT)
    }

    /// By way of a port of this machine.
    pub fn attachment(&self, port: u16) -> Attachment {
        let FirebirdConfig { database, user, password, role, .. } = &self.config;
        Attachment {
            host: "127.0.0.1".to_owned(),
            port,
            db_name: database.clone(),
            // As the server folds it; the driver does so in one of two places only.
            user: if user.starts_with('"') { user.clone() } else { user.to_uppercase() },
            pass: password.as_ref().map(|password| password.expose().to_owned()).unwrap_or_default(),
            role_name: role.clone(),
        }
    }
}
