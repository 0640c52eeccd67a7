//! From companies to `[[store]]` tables, and how they differ from those already configured.

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan;
use jiff::civil::Date;
use ribera_storage::TaxNumber;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::company::{Company, Fate, Found};
use crate::config::{SourceConfig, have_days_in_common};
use crate::source::reach;

/// A `[[store]]` as it is written, and a line for people above it.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    pub table: Table,
    pub comment: Option<String>,
}

/// How a store compares with the configuration that was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub store: String,
    pub tenant: Option<String>,
    #[serde(flatten)]
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Kind {
    New,
    Same,
    /// Its keys that differ.
    Changed {
        keys: Vec<String>,
    },
    /// No server holds it any more. It stays in the file until a person takes it out.
    Gone,
    /// Its server did not answer, so nothing is known.
    Unknown,
    /// A person wrote it; it stays as it is.
    ByHand,
}

/// The stores that a configuration had.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub by_hand: Vec<Table>,
    /// Written by an earlier discovery.
    pub written: Vec<Table>,
}

/// What goes into the file, and what is new about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub stores: Vec<Store>,
    pub changes: Vec<Change>,
    /// The store id of each company that is read, by its index in [`Found::companies`].
    pub ids: BTreeMap<usize, String>,
    /// Likewise of each company that another store of the file reads already: that store's id.
    pub held: BTreeMap<usize, String>,
}

/// The section `[discover]` as written: secrets are names in it.
pub struct Written<'a> {
    pub section: &'a Table,
    pub prefix: &'a str,
    pub unnumbered: bool,
    /// The month that a fiscal year begins with.
    pub first_month: i8,
}

/// Plans the file's stores. `silent`: servers that did not answer.
///
/// No two stores of different places read the same days of one company: its sales would be doubled.
pub fn plan(found: &Found, written: &Written<'_>, known: &Known, silent: &BTreeSet<&str>) -> Plan {
    let mut plan = Plan::default();
    let silent = silent_places(written, silent);
    let is_silent = |table: &Table| place(table).is_some_and(|place| silent.contains(&place));
    let mut taken: BTreeSet<String> = known.by_hand.iter().chain(&known.written).filter_map(id).collect();
    let mut left: Vec<Option<&Table>> = known.written.iter().map(Some).collect();
    for (mut group, before) in matched(groups(found, written.unnumbered), written, known, &mut left, is_silent) {
        let theirs = known.by_hand.iter().find(|theirs| same(theirs, &group.table(written)));
        if let Some(theirs) = theirs {
            let named = id(theirs).unwrap_or_default();
            group.note(&mut plan, &named);
            plan.changes.push(change(&named, &group.table(written), Kind::ByHand));
            continue;
        }
        let others: Vec<&Table> =
            known.by_hand.iter().chain(&known.written).filter(|one| Some(*one) != before).collect();
        group.leave_to(&others, written, &mut plan.held);
        if group.companies.is_empty() {
            left.push(before);
            continue;
        }
        let named = before.and_then(id).unwrap_or_else(|| free(&group.wanted_id(written.prefix), &mut taken));
        group.note(&mut plan, &named);
        let (table, kind) = merged(before, group.table(written), &named);
        plan.changes.push(change(&named, &table, kind));
        plan.stores.push(Store { table, comment: Some(group.comment()) });
    }
    for table in left.into_iter().flatten() {
        let kind = if is_silent(table) { Kind::Unknown } else { Kind::Gone };
        plan.changes.push(change(&id(table).unwrap_or_default(), table, kind));
        plan.stores.push(Store { table: table.clone(), comment: None });
    }
    plan
}

/// Each group with the store that it was before, which is taken out of `left`.
fn matched<'a, 'k>(
    groups: Vec<Group<'a>>,
    written: &Written<'_>,
    known: &Known,
    left: &mut [Option<&'k Table>],
    is_silent: impl Fn(&Table) -> bool,
) -> Vec<(Group<'a>, Option<&'k Table>)> {
    let mut matched: Vec<(Group<'a>, Option<&Table>)> = groups.into_iter().map(|group| (group, None)).collect();
    // Whoever is surely the same comes first, lest a company that only resembles it takes its place.
    for resembles in [same, same_company, same_days] {
        for (group, before) in matched.iter_mut().filter(|(_, before)| before.is_none()) {
            let table = group.table(written);
            if known.by_hand.iter().any(|theirs| same(theirs, &table)) {
                continue;
            }
            // A company does not move away from a server that says nothing.
            let may_be = |one: &Table| resembles(one, &table) && (place(one) == place(&table) || !is_silent(one));
            *before = left.iter_mut().find(|one| one.is_some_and(&may_be)).and_then(Option::take);
        }
    }
    matched
}

/// Companies that are one store: one tax number on one server, a database for each fiscal year.
struct Group<'a> {
    companies: Vec<(usize, &'a Company)>,
}

fn groups(found: &Found, unnumbered: bool) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut by_number: BTreeMap<(&TaxNumber, &str), usize> = BTreeMap::new();
    for (index, company) in found.companies.iter().enumerate() {
        let known = match (&company.fate, &company.number) {
            (Fate::First, Some(number)) => *by_number.entry((number, company.server.as_str())).or_insert(groups.len()),
            (Fate::NoNumber, _) if unnumbered => groups.len(),
            _ => continue,
        };
        match groups.get_mut(known) {
            Some(group) => group.companies.push((index, company)),
            None => groups.push(Group { companies: vec![(index, company)] }),
        }
    }
    for group in &mut groups {
        group.companies.sort_by_key(|(_, company)| company.year);
    }
    groups
}

impl Group<'_> {
    fn first(&self) -> Option<&Company> {
        self.companies.first().map(|(_, company)| *company)
    }

    /// Drops the companies whose days another of the stores reads, at another place.
    fn leave_to(&mut self, others: &[&Table], written: &Written<'_>, held: &mut BTreeMap<usize, String>) {
        self.companies.retain(|(index, company)| {
            let one = Group { companies: vec![(*index, company)] }.table(written);
            let holder = others.iter().find(|other| place(other) != place(&one) && same_days(other, &one));
            held.extend(holder.and_then(|holder| Some((*index, id(holder)?))));
            holder.is_none()
        });
    }

    fn note(&self, plan: &mut Plan, id: &str) {
        plan.ids.extend(self.companies.iter().map(|(index, _)| (*index, id.to_owned())));
    }

    /// From the code in the oldest fiscal year, which does not change when another year is added.
    fn wanted_id(&self, prefix: &str) -> String {
        let code = self.first().map_or("", |company| company.row.code.as_str());
        // Room for a number that makes it unique.
        shortened(&folded(&format!("{prefix}{code}")), 28)
    }

    fn comment(&self) -> String {
        let Some((_, company)) = self.companies.last() else { return String::new() };
        let text = format!("{} {} ({})", company.row.code, company.row.name, company.server);
        text.chars().filter(|character| !character.is_control()).collect()
    }

    /// All keys but the id.
    fn table(&self, written: &Written<'_>) -> Table {
        let Some((_, last)) = self.companies.last() else { return Table::new() };
        let template = written.section.get("store").and_then(Value::as_table).cloned().unwrap_or_default();
        let mut table: Table = template.into_iter().filter(|(key, _)| key != "source").collect();
        if let Some(number) = &last.number {
            table.insert("tenant".to_owned(), Value::String(number.to_string()));
        }
        let years = self.companies.iter().filter_map(|(_, company)| year(company, written.first_month));
        let databases: Vec<Value> = years.collect();
        if !databases.is_empty() {
            table.insert("databases".to_owned(), Value::Array(databases));
        }
        table.insert("source".to_owned(), Value::Table(source(written, &last.server, Some(&last.row.path))));
        table
    }
}

/// The days of a company's fiscal year, and the database that holds them.
fn year(company: &Company, first_month: i8) -> Option<Value> {
    let from = Date::new(company.year?, first_month, 1).ok()?;
    let to = from.checked_add(1.year()).ok()?.yesterday().ok()?;
    let keys = [("from", from.to_string()), ("to", to.to_string()), ("database", company.row.path.clone())];
    Some(Value::Table(keys.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect()))
}

/// How a company's database is reached: as its server's master table, but for the database and
/// what the template says otherwise.
fn source(written: &Written<'_>, server: &str, path: Option<&str>) -> Table {
    let servers = written.section.get("server").and_then(Value::as_array).into_iter().flatten();
    let mut named = servers.filter(|one| one.get("name").and_then(Value::as_str) == Some(server));
    let mut source = named.next().and_then(|one| one.get("source")?.as_table()).cloned().unwrap_or_default();
    let template = written.section.get("store").and_then(|store| store.get("source")).and_then(Value::as_table);
    source.extend(template.cloned().unwrap_or_default());
    if let Some(path) = path {
        let key = if source.get("kind").and_then(Value::as_str) == Some("sqlite") { "path" } else { "database" };
        source.insert(key.to_owned(), Value::String(path.to_owned()));
    }
    source
}

/// The new table, with what a person added to the one before.
fn merged(before: Option<&Table>, table: Table, id: &str) -> (Table, Kind) {
    let mut all = before.cloned().unwrap_or_default();
    all.remove("databases");
    all.extend(table);
    all.insert("id".to_owned(), Value::String(id.to_owned()));
    let Some(before) = before else { return (all, Kind::New) };
    let mut keys = Vec::new();
    for key in all.keys().chain(before.keys()).collect::<BTreeSet<_>>() {
        match (all.get(key), before.get(key)) {
            (Some(Value::Table(now)), Some(Value::Table(then))) => {
                let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
                keys.extend(
                    names
                        .into_iter()
                        .filter(|name| now.get(*name) != then.get(*name))
                        .map(|name| format!("{key}.{name}")),
                );
            }
            (now, then) if now != then => keys.push(key.clone()),
            _ => {}
        }
    }
    let kind = if keys.is_empty() { Kind::Same } else { Kind::Changed { keys } };
    (all, kind)
}

fn change(store: &str, table: &Table, kind: Kind) -> Change {
    let tenant = table.get("tenant").and_then(Value::as_str).map(str::to_owned);
    Change { store: store.to_owned(), tenant, kind }
}

fn id(table: &Table) -> Option<String> {
    Some(table.get("id")?.as_str()?.to_owned())
}

/// Whether two tables read the same database.
fn same(one: &Table, other: &Table) -> bool {
    let place = place(one);
    place.is_some() && place == self::place(other) && !databases(one).is_disjoint(&databases(other))
}

/// Whether two tables read one company on one server, which moved to another database.
fn same_company(one: &Table, other: &Table) -> bool {
    let (place, tenant) = (place(one), one.get("tenant"));
    place.is_some() && place == self::place(other) && tenant.is_some() && tenant == other.get("tenant")
}

/// Whether two tables read days in common of one company, wherever they lie.
fn same_days(one: &Table, other: &Table) -> bool {
    let number = |table: &Table| table.get("tenant")?.as_str()?.parse::<TaxNumber>().ok();
    let days = |table: &Table| -> Vec<(Date, Date)> {
        let years = table.get("databases").and_then(Value::as_array).into_iter().flatten();
        let day = |year: &Value, key: &str| year.get(key)?.as_str()?.parse::<Date>().ok();
        years.filter_map(|year| Some((day(year, "from")?, day(year, "to")?))).collect()
    };
    number(one).is_some() && number(one) == number(other) && have_days_in_common(&days(one), &days(other))
}

fn databases(table: &Table) -> BTreeSet<&str> {
    let years = table.get("databases").and_then(Value::as_array).into_iter().flatten();
    let source = table.get("source").and_then(Value::as_table);
    let single = source.and_then(|source| source.get("database").or_else(|| source.get("path")));
    years.filter_map(|year| year.get("database")).chain(single).filter_map(Value::as_str).collect()
}

type Place = (&'static str, Option<String>);

/// Kind, and host with port or instance, of a store's source.
fn place(table: &Table) -> Option<Place> {
    let mut source = table.get("source")?.as_table()?.clone();
    // Not used here, and absent from the settings of a server.
    source.entry("database").or_insert_with(|| Value::String(String::new()));
    let source = SourceConfig::deserialize(Value::Table(source)).ok()?;
    Some((source.kind(), reach::shown(&source).map(|place| place.to_lowercase())))
}

fn silent_places(written: &Written<'_>, silent: &BTreeSet<&str>) -> Vec<Place> {
    let place = |server: &&str| {
        let source = Value::Table(source(written, server, None));
        place(&Table::from_iter([("source".to_owned(), source)]))
    };
    silent.iter().filter_map(place).collect()
}

/// `wanted`, or the next of its kind that no store has.
fn free(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2_u32..).map(|number| format!("{wanted}-{number}"));
    let found = std::iter::once(wanted.to_owned()).chain(numbered).find(|id| !taken.contains(id));
    let found = found.unwrap_or_else(|| wanted.to_owned());
    taken.insert(found.clone());
    found
}

/// Characters that a store's id may have; accents go, all else becomes a dash.
fn folded(text: &str) -> String {
    let mut id = String::new();
    for character in text.trim().chars().flat_map(char::to_lowercase) {
        let plain = match character {
            'á' | 'à' | 'â' | 'ä' | 'ã' => 'a',
            'é' | 'è' | 'ê' | 'ë' => 'e',
            'í' | 'ì' | 'î' | 'ï' => 'i',
            'ó' | 'ò' | 'ô' | 'ö' | 'õ' => 'o',
            'ú' | 'ù' | 'û' | 'ü' => 'u',
            'ñ' => 'n',
            'ç' => 'c',
            'a'..='z' | '0'..='9' | '_' => character,
            _ => '-',
        };
        if plain != '-' || !(id.is_empty() || id.ends_with('-')) {
            id.push(plain);
        }
    }
    let id = id.trim_end_matches('-');
    if id.is_empty() { "s".to_owned() } else { id.to_owned() }
}

fn shortened(id: &str, length: usize) -> String {
    id.chars().take(length).collect::<String>().trim_end_matches('-').to_owned()
}

#[cfg(test)]
#[path = "stores_tests.rs"]
mod tests;
