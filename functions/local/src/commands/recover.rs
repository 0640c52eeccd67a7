//! `ribera recover`: the commands that fetch exactly the missing and partial days again.

use jiff::civil::Date;
use ribera_core::coverage::{self, GapRun, Touched};
use ribera_storage::{DatasetName, Result, StoreId};
use serde::Serialize;
use serde_json::json;

use super::sql::gap_counts;
use crate::cli::{Context, Exit, Lang};
use crate::lake::Lake;
use crate::show;

#[derive(Debug, clap::Args)]
#[command(after_help = "Muestra el plan; cada orden se ejecuta donde corre el agente de la tienda.
/ Shows the plan; each command is run where the store's agent runs.

Ejemplos / Examples:
  ribera recover
  ribera recover --dataset ventas --store 367 --from 2017-03-01 --to 2017-03-31")]
pub struct Args {
    /// Solo este conjunto; por omisión, todos los publicados. / Only this dataset; all published ones by default.
    #[arg(long)]
    dataset: Option<DatasetName>,
    /// Solo estas tiendas, repetible. / Only these stores, repeatable.
    #[arg(long)]
    store: Vec<StoreId>,
    /// Desde este día. / From this day.
    #[arg(long, value_name = "DATE")]
    from: Option<Date>,
    /// Hasta este día, inclusive. / To this day, inclusive.
    #[arg(long, value_name = "DATE")]
    to: Option<Date>,
}

/// One command of the plan.
#[derive(Debug, Serialize)]
struct Step {
    #[serde(flatten)]
    gap: GapRun,
    command: String,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    let datasets = match &args.dataset {
        Some(name) => vec![lake.dataset(name)?.name.clone()],
        None => {
            let published = ribera_storage::control::load_published_datasets(&lake.objects).await?;
            published.into_iter().map(|dataset| dataset.name).collect()
        }
    };
    for store in &args.store {
        lake.store(store)?;
    }
    let touched = Touched {
        stores: (!args.store.is_empty()).then(|| args.store.clone()),
        from: args.from,
        to: args.to,
    };
    let mut steps = Vec::new();
    for dataset in datasets {
        let plan = coverage::compute(lake.ports(), &dataset).await?.gap_plan(&touched);
        steps.extend(plan.into_iter().map(|gap| Step { command: command(&gap), gap }));
    }
    context.answer(&json!({"steps": steps}), |lang| plan_text(lang, &steps))?;
    Ok(if steps.is_empty() { Exit::Ok } else { Exit::Findings })
}

/// `--force`: days are sent again even when the agent believes that they were sent before.
fn command(gap: &GapRun) -> String {
    let GapRun { dataset, store, from, to, .. } = gap;
    format!("ribera-agent extract --stores {store} --datasets {dataset} --from {from} --to {to} --force")
}

fn plan_text(lang: Lang, steps: &[Step]) -> String {
    if steps.is_empty() {
        return lang.pick("Nada que recuperar: no falta ningún día exigible.", "Nothing to recover: no due day is missing.").to_owned();
    }
    let (mut missing, mut partial) = (0_u64, 0_u64);
    let mut lines = Vec::new();
    for step in steps {
        missing += u64::from(step.gap.missing);
        partial += u64::from(step.gap.partial);
        let mut note = gap_counts(lang, step.gap.missing.into(), step.gap.partial.into());
        if step.gap.hold_repair {
            note.push_str(lang.pick("; sin reparación automática", "; no automatic repair"));
        }
        lines.push(format!("# {} {}: {note}", step.gap.dataset, step.gap.store));
        lines.push(step.command.clone());
    }
    let commands = show::counted(lang, steps.len() as u64, ["orden", "órdenes"], ["command", "commands"]);
    let what = gap_counts(lang, missing, partial);
    lines.push(lang.pick(format!("# {commands}; días-tienda: {what}"), format!("# {commands}; store-days: {what}")));
    lines.join("\n")
}
