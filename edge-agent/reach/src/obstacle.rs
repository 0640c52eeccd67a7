//! What stands between an agent and a store's data, and the next step in words.

use serde::Serialize;

use crate::Cause;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    NameUnknown,
    NoAnswer,
    PortRefused,
    PortSilent,
    BrowserSilent,
    InstanceWithoutTcp,
    Encryption,
    Credentials,
    Database,
    Permissions,
}

impl Obstacle {
    /// As a source's error tells it; the sources say the same of the same.
    pub fn of(message: &str) -> Option<Self> {
        let known = [
            ("source.tls", Self::Encryption),
            ("GRANT the user", Self::Permissions),
            ("user or password", Self::Credentials),
            ("source.user", Self::Credentials),
            ("source.database", Self::Database),
        ];
        known.into_iter().find(|(words, _)| message.contains(words)).map(|(_, obstacle)| obstacle)
    }

    pub fn is_network(self) -> bool {
        matches!(
            self,
            Self::NameUnknown
                | Self::NoAnswer
                | Self::PortRefused
                | Self::PortSilent
                | Self::BrowserSilent
                | Self::InstanceWithoutTcp
        )
    }

    /// In Spanish and in English.
    pub fn next_step(self) -> (&'static str, &'static str) {
        match self {
            Self::NameUnknown => Cause::NameUnknown.next_step(),
            Self::NoAnswer => Cause::NoAnswer.next_step(),
            Self::PortRefused => Cause::PortRefused.next_step(),
            Self::PortSilent => Cause::PortSilent.next_step(),
            Self::BrowserSilent => Cause::BrowserSilent.next_step(),
            Self::InstanceWithoutTcp => Cause::InstanceWithoutTcp.next_step(),
            Self::Encryption => (
                "el cifrado no se pudo acordar: revise source.tls, source.tls_ca_file y el certificado del servidor",
                "encryption could not be agreed on: check source.tls, source.tls_ca_file and the server's certificate",
            ),
            Self::Credentials => (
                "usuario o clave no valen: revise source.user y la variable de source.password",
                "user or password is wrong: check source.user and the variable of source.password",
            ),
            Self::Database => (
                "la base de datos no existe o no se deja abrir: revise source.database",
                "the database does not exist or cannot be opened: check source.database",
            ),
            Self::Permissions => (
                "al usuario le falta un permiso: dele SELECT (o EXECUTE) sobre lo que nombra el detalle",
                "the user lacks a right: GRANT it SELECT (or EXECUTE) on what the detail names",
            ),
        }
    }
}

impl From<Cause> for Obstacle {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::NameUnknown => Self::NameUnknown,
            Cause::NoAnswer => Self::NoAnswer,
            Cause::PortRefused => Self::PortRefused,
            Cause::PortSilent => Self::PortSilent,
            Cause::BrowserSilent => Self::BrowserSilent,
            Cause::InstanceWithoutTcp => Self::InstanceWithoutTcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_source_tells_what_stands_in_the_way() {
        let cases = [
            ("source: mysql caja at h:1: cannot connect: source.tls: no", Some(Obstacle::Encryption)),
            ("source: x: SELECT denied (GRANT the user that right)", Some(Obstacle::Permissions)),
            ("source: x: cannot connect: user or password: 28P01", Some(Obstacle::Credentials)),
            ("source: x: cannot connect: no (error 18452: source.user: the domain)", Some(Obstacle::Credentials)),
            ("source: x: cannot connect: source.database: no such database", Some(Obstacle::Database)),
            ("source: x: cannot connect: source.database: GRANT the user CONNECT on it", Some(Obstacle::Permissions)),
            ("source: x: the source did not answer within 20 s", None),
        ];
        for (message, obstacle) in cases {
            assert_eq!(Obstacle::of(message), obstacle, "{message}");
        }
    }
}
