//! `ribera up`: runs the functions on one machine, over a folder as object store.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ribera_storage::Result;
use serde_json::json;

use super::sweep::{self, Swept};
use crate::cli::{Context, Exit};
use crate::host::functions::Functions;
use crate::host::serve::{Host, told_to_stop};
use crate::host::settings::{FunctionArgs, HostSettings};
use crate::{logs, terminal};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Dirección de la página y la API. / Address of the page and the API.
    #[arg(long, value_name = "ADDRESS", env = "RIBERA_LISTEN", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,
    /// Ingiere todo lo pendiente, calcula la cobertura y termina. / Ingests all that waits, computes coverage, ends.
    #[arg(long)]
    once: bool,
    /// Termina tras estos segundos sin nada que hacer. / Ends after so many seconds with nothing to do.
    #[arg(long, value_name = "SECONDS", conflicts_with = "once")]
    exit_when_idle: Option<u64>,
    #[command(flatten)]
    functions: FunctionArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    logs::start(context.json);
    let settings = HostSettings::load(args.functions.component.settings.as_deref())?;
    let functions = Functions::start(&context.lake, settings, &args.functions).await?;
    let mut host = Host::start(functions, &context.lake);
    if !args.once {
        let address = host.serve(&context.lake, args.listen).await?;
        announce(context, address)?;
        wait(&host, &context.lake, args.exit_when_idle.map(Duration::from_secs)).await?;
        if args.exit_when_idle.is_none() {
            host.stop().await;
            return Ok(Exit::Ok);
        }
    }
    host.ingester.sweep_all().await?;
    host.ingester.functions().coverage().await?;
    let swept = Swept::from(host.ingester.tally());
    host.stop().await;
    context.answer(&swept, |lang| sweep::table(&swept, lang))?;
    Ok(Exit::Ok)
}

fn announce(context: &Context, address: SocketAddr) -> Result<()> {
    let page = format!("http://{address}/");
    let lake = context.lake.display();
    if context.json {
        return terminal::print_json(&json!({"page": page, "lake": lake.to_string()}).to_string());
    }
    terminal::print(&match context.lang {
        crate::cli::Lang::Es => format!("Ribera atiende. Página: {page}  Lago: {lake}  (Ctrl-C termina)"),
        crate::cli::Lang::En => format!("Ribera is serving. Page: {page}  Lake: {lake}  (Ctrl-C ends it)"),
    })
}

/// Until told to stop, or until nothing was settled for `idle_max` and the inbox is empty.
async fn wait(host: &Host, _lake: &Path, idle_max: Option<Duration>) -> Result<()> {
    let Some(idle_max) = idle_max else { return told_to_stop().await };
    let idle = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if host.ingester.queue.is_idle() && host.ingester.quiet_for() >= idle_max {
                return;
            }
        }
    };
    tokio::select! {
        () = idle => Ok(()),
        stopped = told_to_stop() => stopped,
    }
}
