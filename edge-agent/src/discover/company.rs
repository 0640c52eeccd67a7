//! Which of the companies found are read, and which are only told of. Decided from the rows alone.

use std::collections::BTreeMap;

use ribera_storage::TaxNumber;
use serde::Serialize;

/// A row of a server's master table, as it stands there. Empty: NULL or blank.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    pub code: String,
    pub name: String,
    pub tax_number: String,
    pub fiscal_year: String,
    /// Path or name of the company's database.
    pub path: String,
}

/// A row and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Company {
    pub server: String,
    #[serde(flatten)]
    pub row: Row,
    /// Normalised.
    pub number: Option<TaxNumber>,
    pub year: Option<i16>,
    #[serde(flatten)]
    pub fate: Fate,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Fate {
    /// The first of its tax number and fiscal year. A database of all years counts for each.
    First,
    /// An earlier one has its tax number and fiscal year.
    Skipped { first_server: String, first_code: String },
    /// Has no tax number, or one that cannot be read; never taken for another's.
    NoNumber,
    /// Cannot be read at all.
    Unusable { field: &'static str, rule: &'static str },
}

/// Numbers that may be one company's, written with and without its check digit or with a wrong one.
/// They are told of and never joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Near {
    /// What they have in common: all but the last character, or the whole of the shortest.
    pub stem: String,
    pub numbers: Vec<TaxNumber>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub found: usize,
    pub first: usize,
    pub skipped: usize,
    pub without_number: usize,
    pub unusable: usize,
}

/// What the servers hold, in the order of servers and of their rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub companies: Vec<Company>,
    pub near: Vec<Near>,
    pub counts: Counts,
}

/// A stem is of so many characters at least: shorter numbers resemble each other by chance.
const STEM_MIN: usize = 6;
const YEARS: std::ops::RangeInclusive<i16> = 1900..=2200;

/// Judges the rows of each server. Whatever comes first wins: servers as given, rows as answered.
pub fn sort(servers: &[(String, Vec<Row>)]) -> Found {
    let mut found = Found::default();
    let mut firsts = Firsts::new();
    for (server, rows) in servers {
        for row in rows {
            let company = judge(server, row, &mut firsts);
            found.counts.add(&company.fate);
            found.companies.push(company);
        }
    }
    found.near = near(found.companies.iter().filter_map(|company| company.number.as_ref()));
    found
}

/// The fiscal years that are read for each tax number, with server and code. No year: all of them.
type Firsts = BTreeMap<TaxNumber, Vec<(Option<i16>, String, String)>>;

fn judge(server: &str, row: &Row, firsts: &mut Firsts) -> Company {
    let year = match row.fiscal_year.as_str() {
        "" => Some(None),
        text => text.parse().ok().filter(|year| YEARS.contains(year)).map(Some),
    };
    let number = number(&row.tax_number);
    let fate = match (&number, year) {
        _ if row.code.is_empty() => Fate::Unusable { field: "code", rule: "must not be empty" },
        _ if row.path.is_empty() => Fate::Unusable { field: "path", rule: "must not be empty" },
        (_, None) => Fate::Unusable { field: "fiscal_year", rule: "must be a year from 1900 to 2200, or empty" },
        (None, _) => Fate::NoNumber,
        (Some(number), Some(year)) => {
            let firsts = firsts.entry(number.clone()).or_default();
            let overlaps =
                |first: &&(Option<i16>, String, String)| first.0.is_none() || year.is_none() || first.0 == year;
            match firsts.iter().find(overlaps) {
                Some((_, server, code)) => Fate::Skipped { first_server: server.clone(), first_code: code.clone() },
                None => {
                    firsts.push((year, server.to_owned(), row.code.clone()));
                    Fate::First
                }
            }
        }
    };
    Company { server: server.to_owned(), row: row.clone(), number, year: year.flatten(), fate }
}

/// `None` also for what people write where there is none: zeros, `N/A`, `SIN NIT`.
fn number(text: &str) -> Option<TaxNumber> {
    let number: TaxNumber = text.parse().ok()?;
    number.as_str().bytes().any(|byte| (b'1'..=b'9').contains(&byte)).then_some(number)
}

/// Numbers that share a stem: each is the stem, or the stem and one more character.
fn near<'a>(numbers: impl Iterator<Item = &'a TaxNumber>) -> Vec<Near> {
    let mut stems: BTreeMap<&str, Vec<&TaxNumber>> = BTreeMap::new();
    let mut numbers: Vec<&TaxNumber> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let text = number.as_str();
        for stem in [text, &text[..text.len() - 1]] {
            if stem.len() >= STEM_MIN {
                stems.entry(stem).or_default().push(number);
            }
        }
    }
    let shared = stems.into_iter().filter(|(_, numbers)| numbers.len() > 1);
    shared
        .map(|(stem, numbers)| Near { stem: stem.to_owned(), numbers: numbers.into_iter().cloned().collect() })
        .collect()
}

impl Counts {
    fn add(&mut self, fate: &Fate) {
        self.found += 1;
        let counted = match fate {
            Fate::First => &mut self.first,
            Fate::Skipped { .. } => &mut self.skipped,
            Fate::NoNumber => &mut self.without_number,
            Fate::Unusable { .. } => &mut self.unusable,
        };
        *counted += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(code: &str, tax_number: &str, fiscal_year: &str) -> Row {
        let text = str::to_owned;
        Row {
            code: text(code),
            name: text("n"),
            tax_number: text(tax_number),
            fiscal_year: text(fiscal_year),
            path: text("d"),
        }
    }

    fn numbers(found: &Found) -> Vec<Vec<&str>> {
        found.near.iter().map(|near| near.numbers.iter().map(TaxNumber::as_str).collect()).collect()
    }

    #[test]
    fn the_first_server_keeps_a_company_and_the_others_are_told_who_holds_it() {
        let servers = [
            ("norte".to_owned(), vec![row("001", "900.123.456", "2025"), row("001", "900.123.456", "2026")]),
            ("sur".to_owned(), vec![row("7", "900 123 456", "2026"), row("8", "N/A", ""), row("9", "", "2026")]),
        ];
        let found = sort(&servers);
        let skipped = Fate::Skipped { first_server: "norte".to_owned(), first_code: "001".to_owned() };
        let fates: Vec<&Fate> = found.companies.iter().map(|company| &company.fate).collect();
        assert_eq!(fates, [&Fate::First, &Fate::First, &skipped, &Fate::NoNumber, &Fate::NoNumber]);
        assert_eq!(found.counts, Counts { found: 5, first: 2, skipped: 1, without_number: 2, unusable: 0 });
        assert!(found.near.is_empty());
    }

    #[test]
    fn numbers_that_differ_in_a_check_digit_only_are_told_and_stay_apart() {
        let rows = ["900123456-7", "900123456", "900123456-8", "900123457", "76.123.456-K", "12", "123"];
        let found = sort(&[("s".to_owned(), rows.map(|number| row("1", number, "")).to_vec())]);
        assert_eq!(found.counts.first, rows.len(), "none was joined");
        // Without and with its last digit; then the same length and another last digit.
        assert_eq!(numbers(&found), [vec!["900123456", "900123457"], vec!["900123456", "9001234567", "9001234568"]]);
    }

    #[test]
    fn a_row_that_cannot_be_used_names_its_field() {
        let bad = [row("", "1", ""), Row { path: String::new(), ..row("1", "1", "") }, row("1", "1", "MMXXV")];
        let found = sort(&[("s".to_owned(), bad.to_vec())]);
        let fields: Vec<&str> = found
            .companies
            .iter()
            .map(|company| match &company.fate {
                Fate::Unusable { field, .. } => *field,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(fields, ["code", "path", "fiscal_year"]);
    }

    fn rows() -> impl Strategy<Value = Vec<(String, Vec<Row>)>> {
        let written = prop_oneof![
            Just(String::new()),
            Just("000".to_owned()),
            // Few numbers, so that many are the same or nearly so, in several ways of writing.
            (900_123_450_u32..900_123_453, 0..4_u8, 0..3_u8).prop_map(|(number, check, way)| {
                let check = if check == 0 { String::new() } else { check.to_string() };
                match way {
                    0 => format!("{number}{check}"),
                    1 => format!("{number}-{check}"),
                    _ => format!(" {}.{} {check}", number / 1000, number % 1000),
                }
            }),
        ];
        let year = prop_oneof![Just(""), Just("2025"), Just("2026"), Just("26")];
        let row = (0..3_u8, written, year).prop_map(|(code, number, year)| {
            let code = if code == 0 { String::new() } else { code.to_string() };
            row(&code, &number, year)
        });
        let server = proptest::collection::vec(row, 0..12);
        proptest::collection::vec(server, 0..4).prop_map(|servers| {
            servers.into_iter().enumerate().map(|(index, rows)| (format!("s{index}"), rows)).collect()
        })
    }

    proptest! {
        #[test]
        fn every_row_has_one_fate_and_the_first_of_a_number_and_year_is_kept(servers in rows()) {
            let found = sort(&servers);
            let Counts { found: all, first, skipped, without_number, unusable } = found.counts;
            prop_assert_eq!(all, servers.iter().map(|(_, rows)| rows.len()).sum::<usize>());
            prop_assert_eq!((all, all), (first + skipped + without_number + unusable, found.companies.len()));
            let mut seen: Vec<&Company> = Vec::new();
            // A database of all years overlaps with each.
            let overlap = |one: &Company, other: &Company| {
                one.number == other.number && (one.year == other.year || one.year.is_none() || other.year.is_none())
            };
            for company in &found.companies {
                match (&company.fate, &company.number) {
                    (Fate::First, Some(_)) => {
                        prop_assert!(!seen.iter().any(|first| overlap(first, company)), "two firsts");
                        seen.push(company);
                    }
                    (Fate::Skipped { first_server, first_code }, Some(_)) => {
                        // The same number to the last character, and before this one.
                        let first = seen.iter().find(|first| overlap(first, company));
                        let first = first.expect("a first stands before the skipped");
                        prop_assert_eq!((first_server, first_code), (&first.server, &first.row.code));
                    }
                    (Fate::First | Fate::Skipped { .. }, None) => prop_assert!(false, "joined without a number"),
                    (Fate::NoNumber, number) => prop_assert_eq!(number, &None),
                    (Fate::Unusable { .. }, _) => {}
                }
            }
        }

        #[test]
        fn the_order_of_servers_decides_who_is_first_and_nothing_else(servers in rows()) {
            let mut turned = servers.clone();
            turned.reverse();
            let (one, other) = (sort(&servers), sort(&turned));
            let Counts { found, without_number, unusable, .. } = one.counts;
            prop_assert_eq!((found, without_number, unusable), (other.counts.found, other.counts.without_number, other.counts.unusable));
            prop_assert_eq!(&one.near, &other.near);
            // Of a number with single years, those; of one with a database of all years, whichever comes first.
            let kept = |found: &Found| -> std::collections::BTreeSet<(Option<TaxNumber>, Option<i16>)> {
                let whole = |one: &Company| found.companies.iter().any(|other| other.number == one.number && other.year.is_none());
                let firsts = found.companies.iter().filter(|company| company.fate == Fate::First);
                firsts.map(|company| (company.number.clone(), company.year.filter(|_| !whole(company)))).collect()
            };
            prop_assert_eq!(kept(&one), kept(&other));
        }

        #[test]
        fn near_numbers_are_all_pairs_that_differ_in_their_last_character_or_its_absence(servers in rows()) {
            let found = sort(&servers);
            let all: std::collections::BTreeSet<&str> =
                found.companies.iter().filter_map(|company| Some(company.number.as_ref()?.as_str())).collect();
            let told = |a: &str, b: &str| found.near.iter().any(|near| {
                let has = |text: &str| near.numbers.iter().any(|number| number.as_str() == text);
                has(a) && has(b)
            });
            for a in &all {
                for b in all.iter().filter(|b| *b != a) {
                    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
                    let cut = &long[..long.len() - 1];
                    let alike = if short.len() == long.len() { short[..short.len() - 1] == *cut } else { **short == *cut };
                    prop_assert_eq!(told(a, b), alike && cut.len() >= STEM_MIN, "{} {}", a, b);
                }
            }
        }
    }
}
