//! `ribera coverage`: which store-days are complete, as a calendar or a summary.

use comfy_table::Cell;
use jiff::civil::Date;
use ribera_core::coverage::{self, Coverage, CoverageSettings, DayState, Light, Period, StoreCoverage, Summary, Totals};
use ribera_storage::{DatasetName, Error, Result, StoreId, text};
use serde_json::json;

use crate::cli::{Context, Exit, Lang};
use crate::lake::Lake;
use crate::show::{self, calendar};
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "Ejemplos / Examples:
  ribera coverage --summary
  ribera coverage --store 367
  ribera coverage --dataset inventario --from 2017-03-01 --to 2017-03-31")]
pub struct Args {
    /// Conjunto de datos. / Dataset.
    #[arg(long, default_value = "ventas")]
    dataset: DatasetName,
    /// Solo estas tiendas, repetible. / Only these stores, repeatable.
    #[arg(long)]
    store: Vec<StoreId>,
    /// Desde este día. / From this day.
    #[arg(long, value_name = "DATE")]
    from: Option<Date>,
    /// Hasta este día, inclusive. / To this day, inclusive.
    #[arg(long, value_name = "DATE")]
    to: Option<Date>,
    /// Una línea por tienda y los totales. / One line for each store, and the totals.
    #[arg(long)]
    summary: bool,
    /// También las tiendas inactivas. / Inactive stores as well.
    #[arg(long)]
    all: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit> {
    let lake = Lake::open(context).await?;
    lake.dataset(&args.dataset)?;
    for store in &args.store {
        lake.store(store)?;
    }
    let mut coverage = coverage::compute(lake.ports(), &args.dataset).await?;
    if !args.store.is_empty() {
        coverage.stores.retain(|one| args.store.contains(&one.store));
    }
    // A store that is named is looked at whether it is active or not.
    let with_inactive = args.all || !args.store.is_empty();
    let period = period(&args, &coverage)?;
    let settings = CoverageSettings { yellow_percent: lake.settings.yellow_percent, ..CoverageSettings::default() };
    let summary = coverage.summary(&settings, period, with_inactive);
    if args.summary {
        context.answer(&summary, |lang| summary_text(lang, &summary))?;
    } else {
        coverage.stores.retain(|one| with_inactive || one.active);
        let value = calendar_json(&coverage, period.or(summary.period));
        context.answer(&value, |lang| calendar_text(lang, &coverage, &summary))?;
    }
    Ok(Exit::Ok)
}

/// The period asked for; an open side ends where the calendars do.
fn period(args: &Args, coverage: &Coverage) -> Result<Option<Period>> {
    if args.from.is_none() && args.to.is_none() {
        return Ok(None);
    }
    let first = coverage.stores.iter().filter_map(|one| one.calendar.days().next()).map(|(date, _)| date).min();
    let last = coverage.stores.iter().filter_map(|one| one.calendar.days().last()).map(|(date, _)| date).max();
    let (Some(from), Some(to)) = (args.from.or(first), args.to.or(last)) else { return Ok(None) };
    if to < from {
        return Err(Error::config(format!("--to: must not lie before --from, got {from} to {to}")));
    }
    Ok(Some(Period { from, to }))
}

fn days_of(store: &StoreCoverage, period: Option<Period>) -> Vec<(Date, DayState)> {
    let within = |date: Date| period.is_none_or(|period| period.from <= date && date <= period.to);
    store.calendar.days().filter(|(date, _)| within(*date)).collect()
}

fn calendar_json(coverage: &Coverage, period: Option<Period>) -> serde_json::Value {
    let stores: Vec<_> = coverage
        .stores
        .iter()
        .map(|store| {
            let days = days_of(store, period);
            json!({
                "store": store.store,
                "name": store.name,
                "active": store.active,
                "from": days.first().map(|(date, _)| date),
                // A character for each day: C complete, P partial, M missing, - not due yet, . not expected.
                "days": days.iter().map(|(_, state)| state.code()).collect::<String>(),
            })
        })
        .collect();
    json!({
        "dataset": coverage.dataset, "table_version": coverage.table_version,
        "computed_at": coverage.computed_at, "period": period, "stores": stores,
    })
}

fn calendar_text(lang: Lang, coverage: &Coverage, summary: &Summary) -> String {
    let mut blocks = Vec::new();
    if let [store] = coverage.stores.as_slice() {
        let line = summary.stores.iter().find(|line| line.store == store.store);
        let share = line.map_or(String::new(), |line| {
            let (light, _) = show::light(lang, line.light);
            format!("   {light}  {}", show::percent(lang, line.day_percent))
        });
        blocks.push(format!("{} · {} · {}{share}", store.store, text::line(&store.name), coverage.dataset));
        blocks.push(calendar::months(lang, &days_of(store, summary.period)));
    } else {
        blocks.push(strips_text(lang, coverage, summary));
    }
    blocks.push(calendar::legend(lang));
    blocks.join("\n\n")
}

fn strips_text(lang: Lang, coverage: &Coverage, summary: &Summary) -> String {
    /// Marks of a line: a week each for a year.
    const WIDTH: usize = 62;
    let days = summary.period.map_or(0, |period| usize::try_from((period.to - period.from).get_days()).unwrap_or(0) + 1);
    let per_mark = calendar::days_per_mark(days, WIDTH);
    let mut table = show::table(&[lang.pick("Tienda", "Store"), lang.pick("Días", "Days"), "%"]);
    for store in &coverage.stores {
        let line = summary.stores.iter().find(|line| line.store == store.store);
        let share = line.map_or(String::new(), |line| show::percent(lang, line.day_percent));
        let strip = calendar::strip(&days_of(store, summary.period), WIDTH);
        table.add_row([show::cell(&store.store), Cell::new(strip), show::right(share)]);
    }
    let period = summary.period.map_or(String::new(), |period| show::days(period.from, period.to));
    let scale = lang.pick(
        format!("{}: {period}; cada marca, {per_mark} día(s), el peor de ellos. Una tienda por días: --store TIENDA", coverage.dataset),
        format!("{}: {period}; each mark, {per_mark} day(s), the worst of them. One store by days: --store STORE", coverage.dataset),
    );
    format!("{}\n{scale}", show::table_text(&table))
}

fn summary_text(lang: Lang, summary: &Summary) -> String {
    let header = lang.pick(
        ["Luz", "Tienda", "Nombre", "Filas", "% días", "% meses", "Meses incompletos", "Desde"],
        ["Light", "Store", "Name", "Rows", "% days", "% months", "Incomplete months", "Since"],
    );
    let years = summary.period.is_some_and(|period| period.from.year() != period.to.year());
    let mut table = show::table(&header);
    for line in &summary.stores {
        let (light, colour) = show::light(lang, line.light);
        let light = Cell::new(terminal::paint(&light, colour));
        let grey = line.light == Light::Grey;
        let share = |value: f64| show::right(if grey { "-".to_owned() } else { show::percent(lang, value) });
        table.add_row([
            light,
            show::cell(&line.store),
            show::cell(if line.active { line.name.clone() } else { lang.pick(format!("{} (inactiva)", line.name), format!("{} (inactive)", line.name)) }),
            show::right(show::number(lang, line.rows)),
            share(line.day_percent),
            share(line.month_percent),
            show::cell(show::month_names(lang, &line.missing_months, years)),
            show::cell(line.since.map(|since| since.to_string()).unwrap_or_default()),
        ]);
    }
    format!("{}\n{}", show::table_text(&table), totals_text(lang, summary))
}

fn totals_text(lang: Lang, summary: &Summary) -> String {
    let Totals { rows, days, stores_configured, stores_active, rows_per_month_mean, lights } = &summary.totals;
    let count = |value: u64| show::number(lang, value);
    let light = |light| count(lights.get(&light).copied().unwrap_or(0));
    let period = summary.period.map_or("-".to_owned(), |period| show::days(period.from, period.to));
    let mean = rows_per_month_mean.map_or("-".to_owned(), |mean| count(mean.round() as u64));
    let due = days.complete + days.partial + days.missing;
    let lines = [
        (lang.pick("Conjunto", "Dataset"), summary.dataset.to_string()),
        (lang.pick("Filas", "Rows"), count(*rows)),
        (lang.pick("Período", "Period"), period),
        (
            lang.pick("Tiendas", "Stores"),
            lang.pick(
                format!("{} activas de {} configuradas", count(*stores_active), count(*stores_configured)),
                format!("{} active of {} configured", count(*stores_active), count(*stores_configured)),
            ),
        ),
        (lang.pick("Filas por mes (media)", "Rows per month (mean)"), mean),
        (
            lang.pick("Días-tienda", "Store-days"),
            lang.pick(
                format!(
                    "{} exigibles: {} completos, {} parciales, {} faltan; {} aún no exigibles",
                    count(due), count(days.complete), count(days.partial), count(days.missing), count(days.pending)
                ),
                format!(
                    "{} due: {} complete, {} partial, {} missing; {} not due yet",
                    count(due), count(days.complete), count(days.partial), count(days.missing), count(days.pending)
                ),
            ),
        ),
        (
            lang.pick("Luces", "Lights"),
            lang.pick(
                format!("{} verdes, {} amarillas, {} rojas", light(Light::Green), light(Light::Yellow), light(Light::Red)),
                format!("{} green, {} yellow, {} red", light(Light::Green), light(Light::Yellow), light(Light::Red)),
            ),
        ),
    ];
    let width = lines.iter().map(|(title, _)| title.chars().count()).max().unwrap_or(0);
    lines.map(|(title, text)| format!("{title:<width$}  {text}")).join("\n")
}
