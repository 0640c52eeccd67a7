//! What the databases' SQL does not agree on.

use jiff::civil::DateTime;

/// The SQL that a source speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Mysql,
    Postgres,
    Firebird,
    SqlServer,
}

impl Dialect {
    /// The mark of a parameter; empty where statements take none and values stand in the text:
    /// PostgreSQL's COPY.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Mysql | Self::Firebird => "?",
            Self::SqlServer => "@P",
            Self::Postgres => "",
        }
    }

    /// What stands before a parameter's number, where they have one: then each stands for one value
    /// wherever it occurs, and an expression with it is the same in SELECT and GROUP BY.
    pub fn numbered(self) -> Option<&'static str> {
        (self == Self::SqlServer).then(|| self.placeholder())
    }

    /// Whether a session converts moments by one offset from UTC at a time: days before and after a change of the
    /// clock have to be asked apart. Names of zones are unknown to most servers of this kind.
    pub fn has_fixed_offsets(self) -> bool {
        self == Self::Mysql
    }

    pub fn quote(self, name: &str) -> String {
        match self {
            Self::Sqlite | Self::Postgres | Self::Firebird => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::Mysql => format!("`{}`", name.replace('`', "``")),
            Self::SqlServer => format!("[{}]", name.replace(']', "]]")),
        }
    }

    /// A moment without a zone as a literal, in whole seconds. SQL Server reads one with a blank by the
    /// login's date format, day and month perhaps exchanged; one with a T it does not.
    pub fn moment(self, moment: DateTime) -> String {
        match self {
            Self::SqlServer => format!("'{}'", moment.strftime("%Y-%m-%dT%H:%M:%S")),
            _ => format!("'{}'", moment.strftime("%Y-%m-%d %H:%M:%S")),
        }
    }

    /// A number rounded to `digits` fraction digits, as an exact number or as its text. Where the server would make a
    /// number of any text (`12,50` is 12 to it), what is none stays as it is, and is refused where the rows are read.
    pub fn rounded(self, expression: &str, digits: u8) -> String {
        match self {
            // Its printf reads numbers of text by their beginning: it gets floats alone.
            Self::Sqlite => format!(
                "CASE typeof({expression}) WHEN 'real' THEN printf('%.{digits}f', {expression}) \
                 ELSE ribera_round({expression}, {digits}) END"
            ),
            Self::Mysql => {
                let rounded = format!("CAST(CAST(({expression}) AS DECIMAL(38,{digits})) AS CHAR)");
                format!("IF({}, {rounded}, CONCAT({expression}))", mysql_number(expression, digits))
            }
            // Straight to NUMERIC a float would lose what its text has behind the 6th or 15th digit.
            Self::Postgres => format!(
                "CASE WHEN pg_typeof({expression}) IN ('real'::regtype, 'double precision'::regtype) \
                 THEN CAST(CAST(({expression}) AS TEXT) AS NUMERIC(38,{digits})) \
                 ELSE CAST(({expression}) AS NUMERIC(38,{digits})) END"
            ),
            Self::Firebird => format!("CAST(({expression}) AS NUMERIC(18,{digits}))"),
            Self::SqlServer => format!("CAST(({expression}) AS DECIMAL(38,{digits}))"),
        }
    }

    /// Seconds from UTC to the clock that the source shows the till's own programs: that of the server's zone, not of the
    /// session's. Firebird 3 knows no other clock than that, and its answer is the source's time already.
    pub fn server_offset(self) -> Option<&'static str> {
        Some(match self {
            Self::Sqlite => "SELECT CAST(round((julianday('now', 'localtime') - julianday('now')) * 86400) AS INTEGER)",
            Self::Mysql => {
                "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', @@global.time_zone))"
            }
            // The session's own zone hides the server's; that of its log is set with it.
            Self::Postgres => {
                "SELECT CAST(EXTRACT(EPOCH FROM (now() AT TIME ZONE current_setting('log_timezone')) \
                 - (now() AT TIME ZONE 'UTC')) AS bigint)"
            }
            Self::SqlServer => "SELECT DATEDIFF(SECOND, GETUTCDATE(), GETDATE())",
            Self::Firebird => return None,
        })
    }

    /// Text such as `1.234,50` as a number of `scale` fraction digits; blank text as NULL.
    pub fn decimal_comma(self, expression: &str, scale: u8) -> String {
        let trimmed = match self {
            // It has TRIM from 2017 on.
            Self::SqlServer => format!("LTRIM(RTRIM({expression}))"),
            // Its TRIM takes text alone, and what is none shall be refused by name where the rows are read.
            Self::Postgres => format!("TRIM(CAST(({expression}) AS TEXT))"),
            _ => format!("TRIM({expression})"),
        };
        let plain = format!("NULLIF(REPLACE(REPLACE({trimmed}, '.', ''), ',', '.'), '')");
        match self {
            Self::Sqlite => plain,
            Self::Mysql => format!("CAST({plain} AS DECIMAL(38,{scale}))"),
            Self::Postgres => format!("CAST({plain} AS NUMERIC(38,{scale}))"),
            Self::Firebird => format!("CAST({plain} AS NUMERIC(18,{scale}))"),
            Self::SqlServer => format!("CAST({plain} AS DECIMAL(38,{scale}))"),
        }
    }

    /// The exact sum. SQLite's own sum turns text into floats, so ours is registered there. That of
    /// Firebird 3 has 64 bits; one that needs more is an error of the server. SQL Server adds
    /// integers up in the type they have, and money in 64 bits: so they are made decimals of the
    /// column's `scale` first. A value with more digits would not fit the column either.
    pub fn sum(self, expression: &str, scale: u8) -> String {
        match self {
            Self::SqlServer => format!("SUM(CAST(({expression}) AS DECIMAL(38,{scale})))"),
            Self::Sqlite => format!("ribera_sum({expression})"),
            Self::Mysql | Self::Postgres | Self::Firebird => format!("SUM({expression})"),
        }
    }

    /// The sum of what [`Dialect::rounded`] gives; what is no number makes the answer one that is refused.
    pub fn rounded_sum(self, expression: &str, digits: u8, scale: u8) -> String {
        match self {
            Self::Mysql => {
                let number = mysql_number(expression, digits);
                let rounded = format!("CAST(({expression}) AS DECIMAL(38,{digits}))");
                format!(
                    "COALESCE(MIN(IF({number}, NULL, CONCAT('no number: ', {expression}))), \
                     CAST(SUM(IF({number}, {rounded}, NULL)) AS CHAR))"
                )
            }
            _ => self.sum(&self.rounded(expression, digits), scale),
        }
    }

    /// A hash of all rows that does not depend on their order, if the server can.
    pub fn row_hash(self, expressions: &[String]) -> Option<String> {
        match self {
            Self::Firebird => Some(firebird_hash(expressions)),
            Self::SqlServer => Some(sql_server_hash(expressions)),
            Self::Sqlite => Some(format!("ribera_hash({})", expressions.join(", "))),
            Self::Mysql => {
                // NULL and separators are characters that texts of tills do not hold.
                let values: Vec<String> =
                    expressions.iter().map(|expression| format!("IFNULL({expression}, CHAR(30))")).collect();
                let row = format!("MD5(CONCAT_WS(CHAR(31), {}))", values.join(", "));
                Some(format!("SUM(CAST(CONV(LEFT({row}, 15), 16, 10) AS UNSIGNED))"))
            }
            Self::Postgres => {
                let values: Vec<String> = expressions
                    .iter()
                    .map(|expression| format!("COALESCE(CAST(({expression}) AS TEXT), CHR(30))"))
                    .collect();
                // A function of PostgreSQL takes 100 arguments: joined in groups, the text is the same.
                let group = |values: &[String]| format!("CONCAT_WS(CHR(31), {})", values.join(", "));
                let joined = match values.len() {
                    0..=99 => group(&values),
                    _ => group(&values.chunks(50).map(group).collect::<Vec<_>>()),
                };
                let row = format!("MD5({joined})");
                // 60 bits: the sum of many stays exact, as NUMERIC.
                Some(format!("SUM(CAST(CAST('x' || LEFT({row}, 15) AS BIT(60)) AS BIGINT))"))
            }
        }
    }
}

/// Whether an expression of any type is a number that DECIMAL(38,digits) holds. Beyond that MySQL takes the nearest
/// that it has.
fn mysql_number(expression: &str, digits: u8) -> String {
    let whole = 38 - digits.min(38);
    format!(
        "(({expression}) REGEXP '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$' AND ABS({expression}) < 1e{whole})"
    )
}

/// Firebird 3 has one hash, of 60 bits and linear in the letters: alone, changes that cancel out in
/// the sums would cancel out in the sum of hashes too. The product of the columns' hashes is not
/// linear in any of them. A modulus below 2^31 keeps each product within 64 bits.
fn firebird_hash(expressions: &[String]) -> String {
    const MODULUS: u32 = 2_147_483_647;
    let row = expressions.iter().enumerate().fold("1".to_owned(), |row, (index, expression)| {
        // What is added tells columns, and NULL from any text, apart.
        let column = (index + 1) * 1_000_003;
        format!("MOD({row} * (MOD(COALESCE(HASH({expression}), 7919), {MODULUS}) + {column}), {MODULUS})")
    });
    format!("SUM({row})")
}

/// The bytes of each value behind their number, and for NULL a number that no value has: so no two
/// rows have the same bytes. As text numbers and times would lose digits. 64 bits: the sum of many
/// stays exact.
fn sql_server_hash(expressions: &[String]) -> String {
    let value = |expression: &String| {
        format!(
            "COALESCE(CONVERT(varbinary(8), DATALENGTH({expression})) + CONVERT(varbinary(max), {expression}), 0xFFFFFFFF)"
        )
    };
    let row: Vec<String> = expressions.iter().map(value).collect();
    let hash = format!("HASHBYTES('MD5', {})", row.join(" + "));
    format!("SUM(CAST(CONVERT(bigint, SUBSTRING({hash}, 1, 8)) AS DECIMAL(38,0)))")
}
