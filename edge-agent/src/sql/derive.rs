//! Extraction and audit queries of a mapping: written by hand, or derived from FROM, date and
//! columns so that both sides of the audit use the very same expressions.

use ribera_storage::dataset::{Column, ColumnType, DatasetDefinition, DatasetKind, Transform};
use ribera_storage::{Error, Result};

use super::{Dialect, QuestionSql, Template, plain_sql, refuse_call};
use crate::config::{ColumnMapping, DatasetMapping};

/// The two queries of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// Rows, with result columns named like the dataset's.
    pub extract: Template,
    /// One row per day (or one at all): `day`, `rows`, a column per audit sum, perhaps `hash`.
    pub audit: Template,
    /// The audit without its hash, which costs the source several times the rest; `None` where the mapping wrote its own.
    counted: Option<Template>,
    /// One of the rows of `extract`, whichever; `None` where the mapping's own SQL cannot be cut to a row.
    pub sample: Option<Template>,
    /// The rows before the source rounds, where a mapping asks it to: what it refuses to round is found in them.
    unrounded: Option<Template>,
    /// What stands before the moment in the query for the days of rows written since.
    written: Option<String>,
    /// What proves that the queries ask for whole days; `None` where the mapping's own SQL cannot be taken apart.
    pub question: Option<QuestionSql>,
}

impl Queries {
    pub fn new(definition: &DatasetDefinition, mapping: &DatasetMapping, dialect: Dialect) -> Result<Self> {
        let context = |error: Error| error.context(format_args!("dataset {}", definition.name));
        let mapping = &without_comments(mapping, dialect).map_err(context)?;
        if let (Some(extract), Some(audit)) = (&mapping.extract, &mapping.audit) {
            if let Some(name) = mapping.columns.keys().find(|name| definition.column(name).is_none()) {
                return Err(context(Error::config(format!(
                    "adapter: columns: must be columns of the dataset, got {name:?}"
                ))));
            }
            let parse = |text: &str, result_set| {
                refuse_call(text, dialect)?;
                Ok(Template::parse(text, dialect)?.in_result_set(result_set))
            };
            return Ok(Self {
                extract: parse(extract, mapping.result_set).map_err(context)?,
                audit: parse(audit, mapping.audit_result_set).map_err(context)?,
                counted: None,
                sample: None,
                unrounded: None,
                written: None,
                question: None,
            });
        }
        let derived = Derived::new(definition, mapping, dialect)?;
        Ok(Self {
            extract: Template::parse(&derived.extract(true), dialect).map_err(context)?,
            audit: Template::parse(&derived.audit(mapping.row_hash), dialect).map_err(context)?,
            counted: Some(Template::parse(&derived.audit(false), dialect).map_err(context)?),
            sample: Some(Template::parse(&derived.sample(), dialect).map_err(context)?),
            unrounded: Some(Template::parse(&derived.extract(false), dialect).map_err(context)?),
            written: derived.written()?,
            question: derived.question().map_err(context)?,
        })
    }

    /// The business day of each row written at the moment `since` or later: one column, `day`. `None`
    /// without a watermark.
    pub fn written_since(&self, since: &str, dialect: Dialect) -> Result<Option<Template>> {
        let Some(written) = &self.written else { return Ok(None) };
        Template::parse(&format!("{written}{since}"), dialect).map(Some)
    }
}

impl Queries {
    /// Count and sums alone, where that can be told apart.
    pub fn counted(&self) -> &Template {
        self.counted.as_ref().unwrap_or(&self.audit)
    }

    /// Every query but that for the days of a watermark, whose text is another one each time.
    pub fn all(&self) -> Vec<&Template> {
        let question = self.question.iter();
        let question =
            question.flat_map(|one| [Some(&one.total), Some(&one.within), one.unfiltered.as_ref()]).flatten();
        [&self.extract, &self.audit].into_iter().chain(self.counted.as_ref()).chain(question).collect()
    }

    /// The rows as they are before the source rounds.
    pub fn unrounded(&self) -> &Template {
        self.unrounded.as_ref().unwrap_or(&self.extract)
    }

    /// Whether a procedure is called: it may commit, or begin a transaction of its own, so that
    /// what is read is not of one moment.
    pub fn call_procedures(&self) -> bool {
        self.extract.is_procedure() || self.audit.is_procedure()
    }
}

struct Derived<'a> {
    definition: &'a DatasetDefinition,
    mapping: &'a DatasetMapping,
    dialect: Dialect,
    from: &'a str,
    /// The business date's expression, for a daily dataset.
    date: Option<&'a str>,
    columns: Vec<Selected<'a>>,
}

struct Selected<'a> {
    column: &'a Column,
    sql: &'a str,
    /// Fraction digits that the source rounds to.
    round: Option<u8>,
}

impl Selected<'_> {
    fn rounded(&self, dialect: Dialect) -> String {
        self.round.map_or_else(|| self.sql.to_owned(), |digits| dialect.rounded(self.sql, digits))
    }
}

impl<'a> Derived<'a> {
    fn new(definition: &'a DatasetDefinition, mapping: &'a DatasetMapping, dialect: Dialect) -> Result<Self> {
        let bad = |field: &str, rule: &str, got: &str| {
            Err(Error::config(format!("adapter: {}.{field}: {rule}, got {got:?}", definition.name)))
        };
        let Some(from) = mapping.from.as_deref() else {
            return bad("from", "must be there", "nothing");
        };
        let daily = definition.kind == DatasetKind::Daily;
        let date = match (&mapping.date, daily) {
            (Some(date), true) => Some(date.as_str()),
            (None, true) => return bad("date", "must be the SQL expression of the business date", "nothing"),
            (Some(date), false) => return bad("date", "must be absent unless the dataset is daily", date),
            (None, false) => None,
        };
        if let Some(name) = mapping.columns.keys().find(|name| definition.column(name).is_none()) {
            return bad("columns", "must be columns of the dataset", name);
        }
        let mut columns = Vec::new();
        for column in &definition.columns {
            let is = |name: &Option<String>| name.as_ref() == Some(&column.name);
            let by_agent = !daily && (is(&definition.moment) || is(&definition.business_date));
            let given = mapping.columns.get(&column.name);
            match given.map(|one| (one, one.sql.as_deref())) {
                Some(_) if by_agent => {
                    return bad(&format!("columns.{}", column.name), "must be absent: the agent fills it", "SQL");
                }
                // What nobody shall see is not asked for either.
                Some((_, Some(_))) if column.transforms.contains(&Transform::Drop) => {}
                Some((options, Some(sql))) => columns.push(Selected { column, sql, round: options.round }),
                Some((_, None)) => {
                    return bad(&format!("columns.{}.sql", column.name), "must be there", "nothing");
                }
                None if is(&definition.business_date) && daily => {
                    columns.push(Selected { column, sql: date.unwrap_or_default(), round: None });
                }
                None if by_agent || column.nullable || is(&definition.store_column) => {}
                None => {
                    return bad("columns", "must map every column that cannot be NULL", &column.name);
                }
            }
        }
        Ok(Self { definition, mapping, dialect, from, date, columns })
    }

    fn extract(&self, rounded: bool) -> String {
        format!("SELECT {}", self.selected(rounded))
    }

    /// One row, whichever.
    fn sample(&self) -> String {
        let selected = self.selected(true);
        match self.dialect {
            Dialect::SqlServer => format!("SELECT TOP (1) {selected}"),
            Dialect::Firebird => format!("SELECT FIRST 1 {selected}"),
            Dialect::Sqlite | Dialect::Mysql | Dialect::Postgres => format!("SELECT {selected} LIMIT 1"),
        }
    }

    /// What stands behind SELECT in the query for the rows.
    fn selected(&self, rounded: bool) -> String {
        let select = |one: &Selected<'_>| {
            let sql = if rounded { one.rounded(self.dialect) } else { one.sql.to_owned() };
            format!("{sql} AS {}", self.dialect.quote(&one.column.name))
        };
        let columns: Vec<String> = self.columns.iter().map(select).collect();
        let order: Vec<&str> = self.date.into_iter().chain(self.mapping.order.iter().map(String::as_str)).collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        format!("{} FROM {}{}{order}", columns.join(", "), self.from, self.filter())
    }

    fn audit(&self, with_hash: bool) -> String {
        let mut columns = Vec::new();
        columns.extend(self.date.map(|date| format!("{date} AS {}", self.dialect.quote("day"))));
        columns.push(format!("COUNT(*) AS {}", self.dialect.quote("rows")));
        for one in self.columns.iter().filter(|one| self.definition.audit_sums.contains(&one.column.name)) {
            columns.push(format!("{} AS {}", self.summed(one), self.dialect.quote(&one.column.name)));
        }
        let expressions: Vec<String> = self.columns.iter().map(|one| one.rounded(self.dialect)).collect();
        if with_hash && let Some(hash) = self.dialect.row_hash(&expressions) {
            columns.push(format!("{hash} AS {}", self.dialect.quote("hash")));
        }
        let group = self.date.map(|date| format!(" GROUP BY {date}")).unwrap_or_default();
        format!("SELECT {} FROM {}{}{group}", columns.join(", "), self.from, self.filter())
    }

    fn written(&self) -> Result<Option<String>> {
        let Some(watermark) = &self.mapping.watermark else { return Ok(None) };
        let Some(date) = self.date else {
            return Err(Error::config(format!(
                "adapter: {}.watermark: must be absent unless the dataset is daily, got {:?}",
                self.definition.name, watermark.column
            )));
        };
        let Self { from, dialect, .. } = self;
        let day = dialect.quote("day");
        // Not grouped: a server that groups by the date's index would read the whole table in its order.
        Ok(Some(format!("SELECT {date} AS {day} FROM {from} WHERE {} >= ", watermark.column)))
    }

    /// The sum that equals the sum after the column's transforms.
    fn summed(&self, Selected { column, sql, round }: &Selected<'_>) -> String {
        let scale = scale_of(column);
        if let Some(digits) = round {
            return self.dialect.rounded_sum(sql, *digits, scale);
        }
        let mapping = self.mapping.columns.get(&column.name);
        let has_comma = mapping.is_some_and(ColumnMapping::is_read_with_comma);
        if has_comma && column.transforms.contains(&Transform::DecimalComma) {
            self.dialect.sum(&self.dialect.decimal_comma(sql, scale), scale)
        } else {
            self.dialect.sum(sql, scale)
        }
    }

    fn question(&self) -> Result<Option<QuestionSql>> {
        let (Some(date), Some(range)) = (self.date, self.range()) else { return Ok(None) };
        QuestionSql::new(self.from, self.mapping.filter.as_deref(), date, &range, self.dialect)
    }

    /// The predicate of the days, for a daily dataset.
    fn range(&self) -> Option<String> {
        let given = self.mapping.range.clone();
        self.date.map(|date| given.unwrap_or_else(|| format!("{date} BETWEEN :from AND :to")))
    }

    fn filter(&self) -> String {
        let parts: Vec<String> =
            self.mapping.filter.iter().cloned().chain(self.range()).map(|part| format!("({part})")).collect();
        if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
    }
}

/// The mapping with line comments and last semicolons taken out of its SQL: at the end of a text they would
/// swallow what the derived queries put behind it.
fn without_comments(mapping: &DatasetMapping, dialect: Dialect) -> Result<DatasetMapping> {
    let mut plain = mapping.clone();
    let DatasetMapping { from, filter, date, range, order, extract, audit, columns, .. } = &mut plain;
    let columns = columns.values_mut().filter_map(|column| column.sql.as_mut());
    let texts = [from, filter, date, range, extract, audit].into_iter().flatten().chain(order).chain(columns);
    for text in texts {
        *text = plain_sql(text, dialect)?;
    }
    Ok(plain)
}

fn scale_of(column: &Column) -> u8 {
    match column.column_type {
        ColumnType::Decimal { scale, .. } => scale,
        _ => 0,
    }
}
