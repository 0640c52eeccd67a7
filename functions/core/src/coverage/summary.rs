//! Percentages, lights and totals.

use std::collections::BTreeMap;

use jiff::civil::Date;
use ribera_storage::Month;
use serde::{Deserialize, Serialize};

use super::{
    Coverage, CoverageSettings, DayState, Light, Period, StateCounts, StoreCoverage, StoreSummary, Summary, Totals,
};

/// What totals take of a store that counts, over a period. Thousands are read at once: written without names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "CountedForm", into = "CountedForm")]
pub(super) struct Counted {
    /// From the first expected day to the last, whatever the period.
    pub expected: Option<Period>,
    days: StateCounts,
    light: Light,
    rows: MonthRows,
}

type CountedForm = (Option<(Date, Date)>, [u64; 5], Light, Option<Month>, Vec<u64>);

impl From<CountedForm> for Counted {
    fn from((expected, days, light, first, rows): CountedForm) -> Self {
        let expected = expected.map(|(from, to)| Period { from, to });
        let [complete, partial, missing, pending, not_expected] = days;
        let days = StateCounts { complete, partial, missing, pending, not_expected };
        Self { expected, days, light, rows: MonthRows { first, rows } }
    }
}

impl From<Counted> for CountedForm {
    fn from(Counted { expected, days, light, rows: MonthRows { first, rows } }: Counted) -> Self {
        let StateCounts { complete, partial, missing, pending, not_expected } = days;
        let expected = expected.map(|Period { from, to }| (from, to));
        (expected, [complete, partial, missing, pending, not_expected], light, first, rows)
    }
}

/// Rows of consecutive months: of thousands of stores they are added up faster than single months.
#[derive(Debug, Clone, PartialEq, Default)]
struct MonthRows {
    first: Option<Month>,
    rows: Vec<u64>,
}

impl Counted {
    pub fn of(store: &StoreCoverage, summary: &StoreSummary) -> Self {
        Self {
            expected: store.calendar.expected(),
            days: summary.days,
            light: summary.light,
            rows: MonthRows::of(&store.rows_by_month),
        }
    }
}

impl MonthRows {
    fn of(by_month: &BTreeMap<Month, u64>) -> Self {
        let first = by_month.keys().next().copied();
        let mut rows = Vec::with_capacity(by_month.len());
        for (month, count) in by_month {
            let place = first.map_or(0, |first| number(*month) - number(first));
            rows.resize(usize::try_from(place).unwrap_or(0), 0);
            rows.push(*count);
        }
        Self { first, rows }
    }

    fn months(&self) -> impl Iterator<Item = (Month, u64)> + '_ {
        let months = (self.first.map_or(0, number)..).map_while(month_of);
        months.zip(self.rows.iter().copied()).filter(|(_, rows)| *rows > 0)
    }
}

/// Months since the year 0.
fn number(month: Month) -> i32 {
    let first = month.first_day();
    i32::from(first.year()) * 12 + i32::from(first.month()) - 1
}

fn month_of(number: i32) -> Option<Month> {
    let (year, month) = (number.div_euclid(12), number.rem_euclid(12) + 1);
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, 1).ok().map(Month::of)
}

pub fn summarise(
    coverage: &Coverage,
    settings: &CoverageSettings,
    period: Option<Period>,
    with_inactive: bool,
) -> Summary {
    let counted = || coverage.stores.iter().filter(|store| with_inactive || store.active);
    let period = period.or_else(|| whole_period(counted().map(|store| store.calendar.expected())));
    let stores: Vec<StoreSummary> = counted().map(|store| of_store(store, settings, period)).collect();
    let parts: Vec<Counted> = counted().zip(&stores).map(|(store, summary)| Counted::of(store, summary)).collect();
    let mut totals = totals(&parts, period);
    totals.stores_configured = coverage.stores.len() as u64;
    totals.stores_active = coverage.stores.iter().filter(|store| store.active).count() as u64;
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
pub(super) fn whole_period(expected: impl Iterator<Item = Option<Period>>) -> Option<Period> {
    expected.flatten().reduce(|all, one| Period { from: all.from.min(one.from), to: all.to.max(one.to) })
}

pub(super) fn of_store(store: &StoreCoverage, settings: &CoverageSettings, period: Option<Period>) -> StoreSummary {
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
        rows: store.rows_by_month.iter().filter(|(month, _)| touches(period, **month)).map(|(_, rows)| rows).sum(),
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

fn touches(period: Option<Period>, month: Month) -> bool {
    period.is_none_or(|period| (Month::of(period.from)..=Month::of(period.to)).contains(&month))
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

/// Of stores that count; how many there are beside them says whoever knows all.
pub(super) fn totals<'a>(stores: impl IntoIterator<Item = &'a Counted>, period: Option<Period>) -> Totals {
    let mut totals = Totals::default();
    let mut by_first: BTreeMap<Option<Month>, Vec<u64>> = BTreeMap::new();
    for store in stores {
        totals.days.merge(&store.days);
        *totals.lights.entry(store.light).or_default() += 1;
        let sums = by_first.entry(store.rows.first).or_default();
        sums.resize(sums.len().max(store.rows.rows.len()), 0);
        sums.iter_mut().zip(&store.rows.rows).for_each(|(sum, rows)| *sum += rows);
    }
    let mut by_month: BTreeMap<Month, u64> = BTreeMap::new();
    for rows in by_first.into_iter().map(|(first, rows)| MonthRows { first, rows }) {
        for (month, rows) in rows.months().filter(|(month, _)| touches(period, *month)) {
            *by_month.entry(month).or_default() += rows;
        }
    }
    totals.rows = by_month.values().sum();
    totals.rows_per_month_mean = (!by_month.is_empty()).then(|| totals.rows as f64 / by_month.len() as f64);
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_consecutive_months_give_the_months_back() {
        let month = |text: &str| text.parse::<Month>().unwrap();
        for months in
            [vec![], vec![("2025-12", 3)], vec![("2024-11", 1), ("2025-01", 2), ("2025-02", 9), ("2026-12", 4)]]
        {
            let by_month: BTreeMap<Month, u64> = months.iter().map(|(text, rows)| (month(text), *rows)).collect();
            assert_eq!(MonthRows::of(&by_month).months().collect::<BTreeMap<_, _>>(), by_month);
        }
        assert_eq!(MonthRows::of(&[(month("2024-11"), 1), (month("2025-01"), 2)].into()).rows, [1, 0, 2]);
    }
}
