//! One error type for the workspace's libraries: a coarse kind, a rich message, a source.

use std::error::Error as StdError;
use std::fmt;

/// What the caller should do. A new kind exists only where a caller acts differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing is wrong with the request: try the same again later.
    Retry,
    /// What was sent is bad and stays bad: quarantine it.
    Reject,
    /// A definition or setting is wrong: a person must change it.
    Config,
    /// Stored data contradicts itself: stop, nothing may be written over it.
    Data,
    /// Another writer holds what this one believed its own: take a new epoch or stop.
    Fenced,
    /// A broken assumption in this program.
    Bug,
}

impl ErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Config => "config",
            Self::Data => "data",
            Self::Fenced => "fenced",
            Self::Bug => "bug",
        }
    }
}

/// An error with the kind that decides, the message that explains and the source that proves.
///
/// For an operator the text ends with `hint`: the exact command that helps.
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Retry, message)
    }

    pub fn reject(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Reject, message)
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// The exact command that helps, shown at the end of the message.
    #[must_use]
    pub fn with_hint(mut self, command: impl Into<String>) -> Self {
        self.hint = Some(command.into());
        self
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts what was being done before the message: `while`: `message`.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The whole error on one line, for logs and records: message, source and hint.
    pub fn line(&self) -> String {
        let source = self.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!("; try: {hint}")).unwrap_or_default();
        crate::text::line(&format!("{}{source}{hint}", self.message)).into_owned()
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub fn is_retry(&self) -> bool {
        self.kind == ErrorKind::Retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  try: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.kind.as_str())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<std::io::Error> for Error {
    /// An I/O error is worth another try unless the caller knows better.
    fn from(error: std::io::Error) -> Self {
        Self::retry("input/output failed").with_source(error)
    }
}
