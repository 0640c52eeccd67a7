//! Filters as DuckDB prints them in EXPLAIN, read back as far as they are understood.
//!
//! They narrow the note about coverage and nothing else. What is not understood counts as true for
//! every day: a note that is too wide shows one gap too many, a note that is too narrow hides one.

use jiff::civil::{Date, DateTime, Time};

/// A condition on columns that may hold or cannot hold, given what is known of the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// Not understood, or no condition.
    Any,
    Compare {
        column: String,
        part: Part,
        operator: Operator,
        literal: Literal,
    },
    In {
        column: String,
        literals: Vec<Literal>,
    },
    NotIn {
        column: String,
        literals: Vec<Literal>,
    },
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
}

/// What of the column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    Year,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A constant of a filter, or a bound of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    Text(String),
    Date(Date),
    /// Without a zone.
    Moment(DateTime),
    Number(i64),
    /// Of a type that is not compared here.
    Other,
}

/// The least and the greatest value of a column, both inclusive.
pub type Bounds = (Literal, Literal);

/// The text ended inside a quoted string: what it and its neighbours say cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unterminated;

impl Predicate {
    /// Reads one filter text of a scan. `Ok(Any)` when it is not understood.
    pub fn parse(text: &str) -> Result<Self, Unterminated> {
        let tokens = tokenize(text)?;
        let Some(tokens) = tokens else {
            return Ok(Self::Any);
        };
        let mut parser = Parser { tokens: &tokens, next: 0 };
        Ok(match parser.any_of() {
            Some(predicate) if parser.next == tokens.len() => predicate,
            _ => Self::Any,
        })
    }

    /// Whether it may hold for some value within `bounds` of each column; a column without bounds
    /// may have any value.
    pub fn may_hold(&self, bounds: &impl Fn(&str) -> Option<Bounds>) -> bool {
        match self {
            Self::Any => true,
            Self::And(all) => all.iter().all(|one| one.may_hold(bounds)),
            Self::Or(any) => any.iter().any(|one| one.may_hold(bounds)),
            Self::Compare { column, part, operator, literal } => match bounds(column) {
                Some(bounds) => compare(part.of(bounds), *operator, literal),
                None => true,
            },
            Self::In { column, literals } => match bounds(column) {
                Some(bounds) => literals.iter().any(|literal| compare(bounds.clone(), Operator::Equal, literal)),
                None => true,
            },
            Self::NotIn { column, literals } => match bounds(column) {
                Some(bounds) => literals.iter().all(|literal| compare(bounds.clone(), Operator::NotEqual, literal)),
                None => true,
            },
        }
    }

    /// Whether it names such a column.
    pub fn asks(&self, is_asked: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Any => false,
            Self::And(all) | Self::Or(all) => all.iter().any(|one| one.asks(is_asked)),
            Self::Compare { column, .. } | Self::In { column, .. } | Self::NotIn { column, .. } => is_asked(column),
        }
    }
}

impl Part {
    fn of(self, (min, max): Bounds) -> Bounds {
        let year = |bound| match bound {
            Literal::Date(date) => Literal::Number(i64::from(date.year())),
            Literal::Moment(moment) => Literal::Number(i64::from(moment.year())),
            _ => Literal::Other,
        };
        match self {
            Self::Whole => (min, max),
            Self::Year => (year(min), year(max)),
        }
    }
}

impl Literal {
    fn order(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let moment = |date: &Date| date.to_datetime(Time::midnight());
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
            (Self::Date(left), Self::Date(right)) => Some(left.cmp(right)),
            (Self::Moment(left), Self::Moment(right)) => Some(left.cmp(right)),
            (Self::Date(left), Self::Moment(right)) => Some(moment(left).cmp(right)),
            (Self::Moment(left), Self::Date(right)) => Some(left.cmp(&moment(right))),
            (Self::Number(left), Self::Number(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}

fn compare((min, max): Bounds, operator: Operator, literal: &Literal) -> bool {
    let (Some(least), Some(greatest)) = (min.order(literal), max.order(literal)) else {
        return true;
    };
    match operator {
        Operator::Equal => least.is_le() && greatest.is_ge(),
        Operator::NotEqual => !(least.is_eq() && greatest.is_eq()),
        Operator::Less => least.is_lt(),
        Operator::LessOrEqual => least.is_le(),
        Operator::Greater => greatest.is_gt(),
        Operator::GreaterOrEqual => greatest.is_ge(),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Bare or quoted.
    Name(String),
    Text(String),
    Number(String),
    Symbol(&'static str),
}

const SYMBOLS: [&str; 12] = ["::", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ",", ":"];

/// `None` when a character is met that no understood filter has.
fn tokenize(text: &str) -> Result<Option<Vec<Token>>, Unterminated> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    // The whole text is read even when it is not understood: an open quote must be found.
    let mut understood = true;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\'' | '"' => {
                let (content, taken) = quoted(rest, first)?;
                tokens.push(if first == '"' { Token::Name(content) } else { Token::Text(content) });
                taken
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let taken = run(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                tokens.push(Token::Name(rest[..taken].to_owned()));
                taken
            }
            _ if first.is_ascii_digit() || first == '-' => {
                let taken = first.len_utf8() + run(&rest[1..], |c| c.is_ascii_digit() || c == '.');
                tokens.push(Token::Number(rest[..taken].to_owned()));
                taken
            }
            _ => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => {
                    tokens.push(Token::Symbol(symbol));
                    symbol.len()
                }
                None => {
                    understood = false;
                    first.len_utf8()
                }
            },
        };
        rest = rest[taken..].trim_start();
    }
    Ok(understood.then_some(tokens))
}

fn run(text: &str, fits: impl Fn(char) -> bool) -> usize {
    text.find(|c| !fits(c)).unwrap_or(text.len())
}

/// The content of the quoted text that `text` begins with, and the bytes it takes. A doubled
/// quote stands for one.
fn quoted(text: &str, quote: char) -> Result<(String, usize), Unterminated> {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((index, character)) = characters.next() {
        if character != quote {
            content.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == quote) {
            content.push(quote);
            characters.next();
        } else {
            return Ok((content, index + quote.len_utf8()));
        }
    }
    Err(Unterminated)
}

/// AND binds tighter than OR. DuckDB leaves parentheses out in places; of all readings of a text
/// without them this one holds most often, so it never narrows too far.
struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
}

impl Parser<'_> {
    fn any_of(&mut self) -> Option<Predicate> {
        let mut any = vec![self.all_of()?];
        while self.take_word("OR") {
            any.push(self.all_of()?);
        }
        Some(if any.len() == 1 { any.remove(0) } else { Predicate::Or(any) })
    }

    fn all_of(&mut self) -> Option<Predicate> {
        let mut all = vec![self.term()?];
        while self.take_word("AND") {
            all.push(self.term()?);
        }
        Some(if all.len() == 1 { all.remove(0) } else { Predicate::And(all) })
    }

    fn term(&mut self) -> Option<Predicate> {
        if self.take_word("optional") {
            self.take_symbol(":")?;
            return if self.take_word("Dynamic") { self.dynamic_filter() } else { self.term() };
        }
        if self.take_symbol("(").is_some() {
            let inside = self.any_of()?;
            self.take_symbol(")")?;
            return Some(inside);
        }
        let (column, part) = self.operand()?;
        if self.take_word("IS") {
            self.take_word("NOT");
            return self.take_word("NULL").then_some(Predicate::Any);
        }
        let negated = self.take_word("NOT");
        if self.take_word("IN") {
            let literals = self.list()?;
            let whole = part == Part::Whole;
            return Some(match (whole, negated) {
                (false, _) => Predicate::Any,
                (true, false) => Predicate::In { column, literals },
                (true, true) => Predicate::NotIn { column, literals },
            });
        }
        let operator = self.operator().filter(|_| !negated)?;
        Some(Predicate::Compare { column, part, operator, literal: self.literal()? })
    }

    fn dynamic_filter(&mut self) -> Option<Predicate> {
        let fits = self.take_word("Filter") && self.take_symbol("(").is_some() && self.name().is_some();
        (fits && self.take_symbol(")").is_some()).then_some(Predicate::Any)
    }

    /// A column, `CAST(column AS TIMESTAMP)` or `"year"(column)`.
    fn operand(&mut self) -> Option<(String, Part)> {
        let name = self.name()?;
        if self.take_symbol("(").is_none() {
            return Some((name, Part::Whole));
        }
        let column = self.name()?;
        let part = match name.as_str() {
            "CAST" => {
                let fits = self.take_word("AS") && self.take_word("TIMESTAMP");
                fits.then_some(Part::Whole)?
            }
            "year" => Part::Year,
            _ => return None,
        };
        self.take_symbol(")")?;
        Some((column, part))
    }

    fn operator(&mut self) -> Option<Operator> {
        let operator = match self.tokens.get(self.next)? {
            Token::Symbol("=") => Operator::Equal,
            Token::Symbol("!=" | "<>") => Operator::NotEqual,
            Token::Symbol("<") => Operator::Less,
            Token::Symbol("<=") => Operator::LessOrEqual,
            Token::Symbol(">") => Operator::Greater,
            Token::Symbol(">=") => Operator::GreaterOrEqual,
            _ => return None,
        };
        self.next += 1;
        Some(operator)
    }

    fn list(&mut self) -> Option<Vec<Literal>> {
        self.take_symbol("(")?;
        let mut literals = vec![self.literal()?];
        while self.take_symbol(",").is_some() {
            literals.push(self.literal()?);
        }
        self.take_symbol(")")?;
        Some(literals)
    }

    fn literal(&mut self) -> Option<Literal> {
        let token = self.tokens.get(self.next)?.clone();
        self.next += 1;
        let kind = match self.take_symbol("::") {
            Some(()) => Some(self.name()?),
            None => None,
        };
        Some(match (token, kind.as_deref()) {
            (Token::Text(text), None) => Literal::Text(text),
            (Token::Text(text), Some("DATE")) => text.parse().map_or(Literal::Other, Literal::Date),
            (Token::Text(text), Some("TIMESTAMP")) => {
                text.replace(' ', "T").parse().map_or(Literal::Other, Literal::Moment)
            }
            (Token::Number(digits), None) => digits.parse().map_or(Literal::Other, Literal::Number),
            (Token::Text(_) | Token::Number(_), Some(_)) => Literal::Other,
            _ => return None,
        })
    }

    fn name(&mut self) -> Option<String> {
        let Token::Name(name) = self.tokens.get(self.next)? else {
            return None;
        };
        self.next += 1;
        Some(name.clone())
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.next), Some(Token::Name(name)) if name == word);
        self.next += usize::from(found);
        found
    }

    fn take_symbol(&mut self, symbol: &str) -> Option<()> {
        let found = matches!(self.tokens.get(self.next), Some(Token::Symbol(here)) if *here == symbol);
        self.next += usize::from(found);
        found.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn holds(text: &str, store: &str, day: Date) -> bool {
        let bounds = |column: &str| match column {
            "store_id" => Some((Literal::Text(store.into()), Literal::Text(store.into()))),
            "fecha" => Some((Literal::Date(day), Literal::Date(day))),
            _ => None,
        };
        Predicate::parse(text).unwrap().may_hold(&bounds)
    }

    #[test]
    fn every_form_duckdb_prints_narrows_to_the_days_and_stores_it_names() {
        let cases = [
            ("store_id='s1'", true, true),
            ("store_id='s2'", false, false),
            ("store_id='O''Higgins'", false, false),
            ("fecha>='2017-01-01'::DATE AND fecha<'2017-02-01'::DATE", true, false),
            ("optional: fecha='2017-01-05'::DATE OR fecha='2017-01-07'::DATE", true, false),
            ("optional: store_id IN ('s0', 's1')", true, true),
            ("(store_id NOT IN ('s1', 's3'))", false, false),
            ("store_id!='s1'", false, false),
            (
                "(((fecha >= '2017-01-01'::DATE) AND (fecha <= '2017-01-31'::DATE)) OR (fecha = '2018-01-01'::DATE))",
                true,
                false,
            ),
            ("(\"year\"(fecha) = 2018)", false, false),
            ("(CAST(fecha AS TIMESTAMP) < '2017-01-05 10:00:00'::TIMESTAMP)", true, false),
            (
                "fecha>'2016-01-01'::DATE AND optional: fecha='2017-01-05'::DATE OR fecha='2017-03-03'::DATE",
                true,
                false,
            ),
            ("fecha='2017-03-01'::DATE AND (fecha IS NOT NULL)", false, true),
        ];
        for (text, january, march) in cases {
            assert_eq!(holds(text, "s1", date(2017, 1, 5)), january, "{text} on 5 January");
            assert_eq!(holds(text, "s1", date(2017, 3, 1)), march, "{text} on 1 March");
        }
    }

    #[test]
    fn what_is_not_understood_may_always_hold() {
        let texts = [
            "(store_id ~~* 'S2')",
            "contains(store_id, 's9')",
            "optional: Dynamic Filter (fecha)",
            "total>3.000",
            "fecha='infinity'::DATE",
            "(CAST(store_id AS INTEGER) = 5)",
            "store_id='s2' AND",
            "",
        ];
        for text in texts {
            assert!(holds(text, "s1", date(2017, 1, 5)), "{text}");
        }
    }

    #[test]
    fn a_filter_cut_inside_a_string_is_recognised() {
        assert_eq!(Predicate::parse("store_id='a"), Err(Unterminated));
        assert_eq!(Predicate::parse("b' ~ store_id='x'"), Err(Unterminated));
    }

    #[test]
    fn bounds_of_a_file_are_pruned_only_when_no_value_between_them_can_fit() {
        let bounds = |_: &str| Some((Literal::Date(date(2017, 1, 3)), Literal::Date(date(2017, 1, 9))));
        for (text, may) in [
            ("fecha='2017-01-05'::DATE", true),
            ("fecha!='2017-01-05'::DATE", true),
            ("fecha>'2017-01-09'::DATE", false),
            ("fecha<'2017-01-03'::DATE", false),
            ("fecha IN ('2017-01-01'::DATE, '2017-01-10'::DATE)", false),
        ] {
            assert_eq!(Predicate::parse(text).unwrap().may_hold(&bounds), may, "{text}");
        }
    }
}
