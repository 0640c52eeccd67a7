//! `ribera sweep`.

use ribera_storage::{Error, Result};

use crate::cli::{Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, _context: &Context) -> Result<Exit> {
    Err(Error::bug("sweep: under construction"))
}
