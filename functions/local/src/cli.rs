//! The command line: global flags, what every verb gets, how an answer or error is shown.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ribera_storage::object::FolderStore;
use ribera_storage::ports::Random;
use ribera_storage::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::commands::Verb;
use crate::ports::SystemRandom;
use crate::terminal;

/// Ribera: ventas y existencias de muchas tiendas en un solo lago.
/// / The sales and stock of many stores in one lake.
#[derive(Debug, Parser)]
#[command(name = "ribera", version)]
pub struct Cli {
    #[command(flatten)]
    pub context: Context,
    #[command(subcommand)]
    pub verb: Verb,
}

/// The global flags, handed to every verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Context {
    /// Carpeta del almacén de objetos. / Folder of the object store.
    #[arg(long, value_name = "DIR", env = "RIBERA_LAKE", default_value = "./.ribera/store", global = true)]
    pub lake: PathBuf,
    /// Respuesta en JSON, igual en todo idioma. / Answer as JSON, the same in every language.
    #[arg(long, global = true)]
    pub json: bool,
    /// Idioma de los textos. / Language of texts.
    #[arg(long, env = "RIBERA_LANG", default_value = "es", global = true)]
    pub lang: Lang,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    Es,
    En,
}

impl Lang {
    /// The text in this language.
    pub fn pick<T>(self, es: T, en: T) -> T {
        match self {
            Self::Es => es,
            Self::En => en,
        }
    }
}

/// How a verb ended when it did not fail: the process exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and all is well.
    Ok,
    /// 1: done, and what was looked at is not well (such as `verify` with findings).
    Findings,
}

impl Context {
    pub fn text<'a>(&self, es: &'a str, en: &'a str) -> &'a str {
        self.lang.pick(es, en)
    }

    /// The object store to read and write, made when absent.
    pub fn store(&self) -> Result<FolderStore> {
        FolderStore::open(&self.lake, SystemRandom.fresh_name())
    }

    /// The object store, which must be there already: for verbs that only look.
    pub fn existing_store(&self) -> Result<FolderStore> {
        if !self.lake.is_dir() {
            return Err(Error::config(format!("--lake: must be an existing folder, got {}", self.lake.display()))
                .with_hint(format!("ribera up --lake {}", self.lake.display())));
        }
        self.store()
    }

    /// Shows an answer: one JSON document with `--json`, else the text for people.
    pub fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(Lang) -> String) -> Result<()> {
        if !self.json {
            return terminal::print(&text(self.lang));
        }
        let document =
            serde_json::to_string(value).map_err(|error| Error::bug("answer does not serialise").with_source(error))?;
        terminal::print_json(&document)
    }
}

/// Parses the command line and runs the verb.
///
/// Exit codes: 0 done; 1 findings or a failure; 2 a wrong command line or setting.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = cli.context;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return show_error(&context, &Error::from(error).context("start")),
    };
    let outcome = runtime.block_on(cli.verb.run(&context));
    // Blocking work that is still under way holds nothing that matters: all state is in the store.
    runtime.shutdown_background();
    match outcome {
        Ok(Exit::Ok) => ExitCode::SUCCESS,
        Ok(Exit::Findings) => ExitCode::from(1),
        Err(error) => show_error(&context, &error),
    }
}

fn show_error(context: &Context, error: &Error) -> ExitCode {
    if context.json {
        let value = serde_json::json!({"error": {
            "kind": error.kind().as_str(), "message": error.message(), "hint": error.hint(),
        }});
        terminal::complain_json(&value.to_string());
    } else {
        terminal::complain(&format!("ribera: {error}"));
    }
    ExitCode::from(if error.kind() == ErrorKind::Config { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_says_what_it_does_in_spanish_and_english() {
        for verb in Cli::command().get_subcommands() {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.contains(" / "), "{}: expected `es / en`, got {about:?}", verb.get_name());
        }
    }
}
