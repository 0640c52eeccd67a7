//! `--name=value` options with defaults.

use std::collections::BTreeMap;
use std::str::FromStr;

use ribera_storage::{Error, Result};

pub struct Options(BTreeMap<String, String>);

impl Options {
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let pair = |argument: String| match argument.strip_prefix("--").and_then(|text| text.split_once('=')) {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Error::config(format!("option: must be --name=value, got {argument:?}"))),
        };
        arguments.map(pair).collect::<Result<_>>().map(Self)
    }

    /// The value of `--name`, or `default` when it was not given.
    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => {
                text.parse().map_err(|_| Error::config(format!("--{name}: must be of another form, got {text:?}")))
            }
        }
    }

    pub fn required(&self, name: &str) -> Result<String> {
        self.0.get(name).cloned().ok_or_else(|| Error::config(format!("--{name}: must be given")))
    }
}
