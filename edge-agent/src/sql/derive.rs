//! Extraction and audit queries of a mapping: written by hand, or derived from FROM, date and
//! columns so that both sides of the audit use the very same expressions.

use ribera_storage::dataset::{Column, ColumnType, DatasetDefinition, DatasetKind, Transform};
use ribera_storage::{Error, Result};

use super::{Dialect, Template, refuse_call};
use crate::config::{ColumnMapping, DatasetMapping};

/// The two queries of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// Rows, with result columns named like the dataset's.
    pub extract: Template,
    /// One row per day (or one at all): `day`, `rows`, a column per audit sum, perhaps `hash`.
    pub audit: Template,
    /// What stands before the moment in the query for the days of rows written since.
    written: Option<String>,
}

impl Queries {
    pub fn new(definition: &DatasetDefinition, mapping: &DatasetMapping, dialect: Dialect) -> Result<Self> {
        let context = |error: Error| error.context(format_args!("dataset {}", definition.name));
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
                written: None,
            });
        }
        let derived = Derived::new(definition, mapping, dialect)?;
        Ok(Self {
            extract: Template::parse(&derived.extract(), dialect).map_err(context)?,
            audit: Template::parse(&derived.audit(), dialect).map_err(context)?,
            written: derived.written()?,
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
    /// Dataset column, its expression.
    columns: Vec<(&'a Column, String)>,
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
                Some((options, Some(sql))) => {
                    let sql = match options.round {
                        Some(digits) => dialect.rounded(sql, digits),
                        None => sql.to_owned(),
                    };
                    columns.push((column, sql));
                }
                Some((_, None)) => {
                    return bad(&format!("columns.{}.sql", column.name), "must be there", "nothing");
                }
                None if is(&definition.business_date) && daily => {
                    columns.push((column, date.unwrap_or_default().to_owned()));
                }
                None if by_agent || column.nullable || is(&definition.store_column) => {}
                None => {
                    return bad("columns", "must map every column that cannot be NULL", &column.name);
                }
            }
        }
        Ok(Self { definition, mapping, dialect, from, date, columns })
    }

    fn extract(&self) -> String {
        let select = |(column, sql): &(&Column, String)| format!("{sql} AS {}", self.dialect.quote(&column.name));
        let columns: Vec<String> = self.columns.iter().map(select).collect();
        let order: Vec<&str> = self.date.into_iter().chain(self.mapping.order.iter().map(String::as_str)).collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        format!("SELECT {} FROM {}{}{order}", columns.join(", "), self.from, self.filter())
    }

    fn audit(&self) -> String {
        let mut columns = Vec::new();
        columns.extend(self.date.map(|date| format!("{date} AS {}", self.dialect.quote("day"))));
        columns.push(format!("COUNT(*) AS {}", self.dialect.quote("rows")));
        for (column, sql) in &self.columns {
            if self.definition.audit_sums.contains(&column.name) {
                let sum = self.dialect.sum(&self.summed(column, sql), scale_of(column));
                columns.push(format!("{sum} AS {}", self.dialect.quote(&column.name)));
            }
        }
        let expressions: Vec<String> = self.columns.iter().map(|(_, sql)| sql.clone()).collect();
        if self.mapping.row_hash
            && let Some(hash) = self.dialect.row_hash(&expressions)
        {
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

    /// The expression whose sum equals the sum after the column's transforms.
    fn summed(&self, column: &Column, sql: &str) -> String {
        let mapping = self.mapping.columns.get(&column.name);
        let has_comma = mapping.is_some_and(ColumnMapping::is_read_with_comma);
        if has_comma && column.transforms.contains(&Transform::DecimalComma) {
            self.dialect.decimal_comma(sql, scale_of(column))
        } else {
            sql.to_owned()
        }
    }

    fn filter(&self) -> String {
        let days = self.date.map(|date| match &self.mapping.range {
            Some(range) => range.clone(),
            None => format!("{date} BETWEEN :from AND :to"),
        });
        let parts: Vec<String> =
            self.mapping.filter.iter().cloned().chain(days).map(|part| format!("({part})")).collect();
        if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
    }
}

fn scale_of(column: &Column) -> u8 {
    match column.column_type {
        ColumnType::Decimal { scale, .. } => scale,
        _ => 0,
    }
}
