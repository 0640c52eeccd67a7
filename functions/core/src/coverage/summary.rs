//! Percentages, lights and totals.

use std::collections::BTreeMap;

use ribera_storage::Month;

use super::{
    Coverage, CoverageSettings, DayState, Light, Period, StateCounts, StoreCoverage, StoreSummary, Summary, Totals,
};

pub fn summarise(
    coverage: &Coverage,
    settings: &CoverageSettings,
    period: Option<Period>,
    with_inactive: bool,
) -> Summary {
    let counted = || coverage.stores.iter().filter(|store| with_inactive || store.active);
    let period = period.or_else(|| whole_period(counted()));
    let stores: Vec<StoreSummary> = counted().map(|store| of_store(store, settings, period)).collect();
    let totals = totals(coverage, counted(), &stores, period);
    Summary {
        dataset: coverage.dataset.clone(),
        period,
        computed_at: coverage.computed_at,
        table_version: coverage.table_version,
        stores,
        totals,
    }
}

/// From the first expected day of any store to the last.
fn whole_period<'a>(stores: impl Iterator<Item = &'a StoreCoverage>) -> Option<Period> {
    stores
        .filter_map(|store| store.calendar.expected())
        .reduce(|all, one| Period { from: all.from.min(one.from), to: all.to.max(one.to) })
}

fn of_store(store: &StoreCoverage, settings: &CoverageSettings, period: Option<Period>) -> StoreSummary {
    let mut days = StateCounts::default();
    // In order: the last one is the month of the last due day.
    let mut months: Vec<(Month, StateCounts)> = Vec::new();
    let mut first_expected = None;
    for (run, state) in store.calendar.month_runs() {
        let Some(run) = period.map_or(Some(run), |period| run.within(period)) else { continue };
        days.add(state, run.days());
        if state != DayState::NotExpected {
            first_expected.get_or_insert(run.from);
        }
        if state.is_due() {
            let month = Month::of(run.from);
            if months.last().is_none_or(|(last, _)| *last != month) {
                months.push((month, StateCounts::default()));
            }
            if let Some((_, days)) = months.last_mut() {
                days.add(state, run.days());
            }
        }
    }
    let missing_months: Vec<Month> =
        months.iter().filter(|(_, days)| days.complete < days.due()).map(|(month, _)| *month).collect();
    let due_months = months.len() as u64;
    let day_percent = percent(days.complete, days.due());
    StoreSummary {
        store: store.store.clone(),
        name: store.name.clone(),
        active: store.active,
        rows: rows_within(store, period).map(|(_, rows)| rows).sum(),
        day_percent,
        month_percent: percent(due_months - missing_months.len() as u64, due_months),
        missing_months,
        // Only a store whose own calendar begins later than the period "opened within" it.
        since: first_expected
            .filter(|first| period.is_some_and(|period| *first > period.from && store.calendar.from() > period.from)),
        light: light(&days, settings),
        days,
        proven_at: store.proven_at,
    }
}

/// Rows of the months that the period touches.
fn rows_within(store: &StoreCoverage, period: Option<Period>) -> impl Iterator<Item = (Month, u64)> + '_ {
    let months = period.map(|period| (Month::of(period.from), Month::of(period.to)));
    let within = move |month: Month| months.is_none_or(|(from, to)| from <= month && month <= to);
    store.rows_by_month.iter().map(|(month, rows)| (*month, *rows)).filter(move |(month, _)| within(*month))
}

fn light(days: &StateCounts, settings: &CoverageSettings) -> Light {
    match days.due() {
        0 => Light::Grey,
        due if days.complete == due => Light::Green,
        due if days.complete * 100 >= due * u64::from(settings.yellow_percent) => Light::Yellow,
        _ => Light::Red,
    }
}

/// With two decimals, rounded down: 100 means all. Of nothing it is 0.
fn percent(part: u64, of: u64) -> f64 {
    if of == 0 {
        return 0.0;
    }
    let hundredths = part * 10_000 / of;
    hundredths as f64 / 100.0
}

fn totals<'a>(
    coverage: &Coverage,
    counted: impl Iterator<Item = &'a StoreCoverage>,
    stores: &[StoreSummary],
    period: Option<Period>,
) -> Totals {
    let mut by_month: BTreeMap<Month, u64> = BTreeMap::new();
    for (month, rows) in counted.flat_map(|store| rows_within(store, period)) {
        *by_month.entry(month).or_default() += rows;
    }
    let rows: u64 = by_month.values().sum();
    let mut totals = Totals {
        rows,
        stores_configured: coverage.stores.len() as u64,
        stores_active: coverage.stores.iter().filter(|store| store.active).count() as u64,
        rows_per_month_mean: (!by_month.is_empty()).then(|| rows as f64 / by_month.len() as f64),
        ..Totals::default()
    };
    for store in stores {
        totals.days.merge(&store.days);
        *totals.lights.entry(store.light).or_default() += 1;
    }
    totals
}
