//! Which of several databases holds a day.

use jiff::ToSpan;
use jiff::civil::Date;
use ribera_storage::Result;
use serde::Deserialize;

use super::load::bad;
use super::{SourceConfig, StoreConfig};
use crate::calendar::Days;

/// In the name of a database: the year in which its fiscal year begins, and in which it ends.
const YEAR: &str = "{year}";
const END_YEAR: &str = "{end_year}";

/// `[[store.databases]]`: the days that one database holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseDays {
    pub from: Date,
    pub to: Date,
    /// In place of the source's `database`; of its `path` with SQLite.
    pub database: String,
}

/// The databases of a store that has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// In order of their days.
    Listed(Vec<DatabaseDays>),
    /// One for each year that begins with the first of `first_month`.
    Yearly { pattern: String, first_month: i8 },
}

impl Databases {
    /// The databases of a store; `None` if it has one database only.
    pub fn of_store(store: &StoreConfig) -> Result<Option<Self>> {
        let pattern = store.source.database();
        let field = |name: &str| format!("store {}: {name}", store.id);
        let first_month =
            store.fiscal_year_starts.as_deref().map(|text| first_month(text, &field("fiscal_year_starts")));
        let first_month = first_month.transpose()?;
        let is_pattern = pattern.contains(YEAR) || pattern.contains(END_YEAR);
        match (is_pattern, store.databases.is_empty(), first_month) {
            (true, false, _) => {
                bad(&field("databases"), &format!("must be absent beside {YEAR} in the source's database"), &pattern)
            }
            (true, true, first) => Ok(Some(Self::Yearly { pattern, first_month: first.unwrap_or(1) })),
            (false, _, Some(_)) => {
                let rule = format!("must be absent unless the source's database has {YEAR} in its name");
                bad(&field("fiscal_year_starts"), &rule, store.fiscal_year_starts.as_deref().unwrap_or_default())
            }
            (false, true, None) => Ok(None),
            (false, false, None) => listed(&store.databases, &field("databases")).map(Self::Listed).map(Some),
        }
    }

    /// The database that holds a day.
    pub fn of(&self, day: Date) -> Option<String> {
        match self {
            Self::Listed(listed) => {
                listed.iter().find(|one| one.from <= day && day <= one.to).map(|one| one.database.clone())
            }
            Self::Yearly { pattern, .. } => {
                let Days { from, to } = self.span(day);
                Some(pattern.replace(YEAR, &from.year().to_string()).replace(END_YEAR, &to.year().to_string()))
            }
        }
    }

    /// The days around `day` that lie in the same database, or in none.
    pub fn span(&self, day: Date) -> Days {
        match self {
            Self::Listed(listed) => match listed.iter().find(|one| one.from <= day && day <= one.to) {
                Some(one) => Days { from: one.from, to: one.to },
                None => gap(listed, day),
            },
            Self::Yearly { first_month, .. } => {
                let year = if day.month() < *first_month { day.year() - 1 } else { day.year() };
                let from = Date::new(year, *first_month, 1).unwrap_or(Date::MIN);
                let to = from.checked_add(1.year()).and_then(|next| next.yesterday()).unwrap_or(Date::MAX);
                Days { from, to }
            }
        }
    }
}

/// Stores with one tax number that read a dataset's days in common: the company's sales would be doubled, unless
/// their mappings part them.
pub fn twins(stores: &[StoreConfig]) -> Vec<(&StoreConfig, &StoreConfig)> {
    let listed = |store: &StoreConfig| -> Vec<_> { store.databases.iter().map(|one| (one.from, one.to)).collect() };
    let overlap = |one: &StoreConfig, other: &StoreConfig| have_days_in_common(&listed(one), &listed(other));
    let are_twins = |one: &StoreConfig, other: &StoreConfig| {
        one.tenant.is_some() && one.tenant == other.tenant && one.adapter == other.adapter && overlap(one, other)
    };
    let pairs =
        stores.iter().enumerate().flat_map(|(index, one)| stores[..index].iter().map(move |other| (other, one)));
    pairs.filter(|(one, other)| are_twins(one, other)).collect()
}

/// Whether the first and last days of databases meet. A store that lists none has one database of all days.
pub fn have_days_in_common(one: &[(Date, Date)], other: &[(Date, Date)]) -> bool {
    let meets = |one: &(Date, Date)| other.iter().any(|other| one.0 <= other.1 && other.0 <= one.1);
    one.is_empty() || other.is_empty() || one.iter().any(meets)
}

/// The days around `day` that no database holds.
fn gap(listed: &[DatabaseDays], day: Date) -> Days {
    let from = listed.iter().rfind(|one| one.to < day).and_then(|one| one.to.tomorrow().ok()).unwrap_or(Date::MIN);
    let to = listed.iter().find(|one| day < one.from).and_then(|one| one.from.yesterday().ok()).unwrap_or(Date::MAX);
    Days { from, to }
}

/// In order, checked: batches hold days of one month, so a database holds whole months.
fn listed(databases: &[DatabaseDays], field: &str) -> Result<Vec<DatabaseDays>> {
    let mut databases = databases.to_vec();
    databases.sort_by_key(|one| one.from);
    for (index, one) in databases.iter().enumerate() {
        let days = format!("{} to {}", one.from, one.to);
        if one.from.day() != 1 || one.to.day() != one.to.days_in_month() || one.to < one.from {
            return bad(field, "must begin with the first day of a month and end with the last of one", &days);
        }
        if index > 0 && one.from <= databases[index - 1].to {
            return bad(field, "must not overlap", &format!("{days} beside {}", databases[index - 1].database));
        }
        if one.database.is_empty() {
            return bad(field, "must name a database", &days);
        }
    }
    Ok(databases)
}

/// `MM-01`.
fn first_month(text: &str, field: &str) -> Result<i8> {
    let month = text.strip_suffix("-01").and_then(|month| month.parse::<i8>().ok());
    match month.filter(|month| (1..=12).contains(month) && text.len() == 5) {
        Some(month) => Ok(month),
        None => bad(field, "must be the first day of a month, such as 07-01", text),
    }
}

impl SourceConfig {
    /// This source with another database.
    pub fn with_database(&self, database: &str) -> Self {
        let mut source = self.clone();
        match &mut source {
            Self::Sqlite { path, .. } => *path = database.into(),
            Self::Mysql(server) | Self::Postgres(server) => server.database = database.to_owned(),
            Self::Firebird(server) => server.database = database.to_owned(),
            Self::SqlServer(server) => server.database = database.to_owned(),
        }
        source
    }

    /// The name of its database, or the path of its file.
    pub fn database(&self) -> String {
        match self {
            Self::Sqlite { path, .. } => path.display().to_string(),
            Self::Mysql(server) | Self::Postgres(server) => server.database.clone(),
            Self::Firebird(server) => server.database.clone(),
            Self::SqlServer(server) => server.database.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn one(from: Date, to: Date, database: &str) -> DatabaseDays {
        DatabaseDays { from, to, database: database.to_owned() }
    }

    #[test]
    fn a_fiscal_year_is_named_by_the_year_it_begins_or_ends_in() {
        let of =
            |pattern: &str, first_month, day| Databases::Yearly { pattern: pattern.to_owned(), first_month }.of(day);
        assert_eq!(of("EMP01_{year}", 1, date(2025, 12, 31)).unwrap(), "EMP01_2025");
        assert_eq!(of("EMP01_{year}", 1, date(2026, 1, 1)).unwrap(), "EMP01_2026");
        assert_eq!(of("E{year}_{end_year}", 7, date(2026, 6, 30)).unwrap(), "E2025_2026");
        assert_eq!(of("E{end_year}", 7, date(2026, 7, 1)).unwrap(), "E2027");
    }

    #[test]
    fn listed_databases_hold_whole_months_and_do_not_overlap() {
        let (first, second) = (date(2025, 1, 1), date(2025, 2, 28));
        let refused = [
            (vec![one(date(2025, 1, 2), second, "A")], "first day of a month"),
            (vec![one(first, date(2025, 2, 27), "A")], "the last of one"),
            (vec![one(first, second, "A"), one(date(2025, 2, 1), date(2025, 3, 31), "B")], "must not overlap"),
            (vec![one(first, second, "")], "must name"),
        ];
        for (databases, words) in refused {
            let error = listed(&databases, "store s1: databases").unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("store s1: databases"), "{error}");
        }
        let known = listed(&[one(date(2025, 7, 1), date(2025, 12, 31), "B"), one(first, second, "A")], "").unwrap();
        let known = Databases::Listed(known);
        assert_eq!(known.of(date(2025, 2, 28)).as_deref(), Some("A"));
        assert_eq!(known.of(date(2025, 3, 1)), None);
        assert_eq!(known.span(date(2025, 4, 1)), Days { from: date(2025, 3, 1), to: date(2025, 6, 30) });
        assert_eq!(known.span(date(2026, 4, 1)), Days { from: date(2026, 1, 1), to: Date::MAX });
        assert_eq!(known.span(date(2024, 4, 1)), Days { from: Date::MIN, to: date(2024, 12, 31) });
    }

    #[test]
    fn a_fiscal_year_starts_with_a_month() {
        assert_eq!(first_month("07-01", "").unwrap(), 7);
        for wrong in ["07-02", "13-01", "7-01", "july", "00-01", ""] {
            assert!(first_month(wrong, "fiscal_year_starts").is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_day_lies_in_its_own_span_and_all_of_a_span_in_one_database(offset in 0_i64..20_000, first_month in 1_i8..=12) {
            let databases = Databases::Yearly { pattern: "E{year}".to_owned(), first_month };
            let day = date(1990, 1, 1).checked_add(offset.days()).unwrap();
            let span = databases.span(day);
            prop_assert!(span.from <= day && day <= span.to);
            prop_assert_eq!((span.from.day(), span.from.month()), (1, first_month));
            prop_assert_eq!(databases.of(span.from), databases.of(span.to));
            prop_assert_ne!(databases.of(span.from), databases.of(span.to.tomorrow().unwrap()));
        }
    }
}
