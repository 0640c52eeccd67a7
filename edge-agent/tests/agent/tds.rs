//! SQL Server's protocol from the server's side, as MS-TDS describes it: types, values, tokens.
//! Written for the tests, and from the specification alone: it shares nothing with a driver.

use ribera_agent::calendar::days_of;
use ribera_storage::ExactDecimal;
use rsfbclient_core::charset::{WIN_1251, WIN_1252};

/// The token of a statement's end.
pub const DONE: u8 = 0xFD;
/// The same within a procedure, and of a procedure.
pub const DONE_IN_PROC: u8 = 0xFF;
pub const DONE_PROC: u8 = 0xFE;
pub const MORE: u16 = 1;
pub const FAILED: u16 = 2;
pub const COUNTED: u16 = 0x10;
pub const ATTENTION: u16 = 0x20;

const SPANISH: [u8; 5] = [0x0A, 0x0C, 0xD0, 0x00, 0x00];
const CYRILLIC: [u8; 5] = [0x19, 0x04, 0xD0, 0x00, 0x00];
/// A collation by its sort id: SQL_Latin1_General_CP1_CI_AS.
const LATIN_SORTED: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];

/// Days from year 1 to 1970, and from 1900.
const DAYS_1: i64 = 719_162;
const DAYS_1900: i64 = 25_567;

/// A type by its name in SQL; `!` behind it: NOT NULL, which has tokens of its own for some.
/// Behind the name of a text type may stand its code page.
#[derive(Debug, Clone, Copy)]
pub struct Type {
    name: &'static str,
    /// What stands in brackets; -1 for max.
    size: i64,
    scale: u8,
    collation: [u8; 5],
    fixed: bool,
}

impl Type {
    pub fn of(text: &'static str) -> Self {
        let (text, fixed) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
        let (text, collation) = match text.rsplit_once(' ') {
            Some((text, "1251")) => (text, CYRILLIC),
            Some((text, "sorted")) => (text, LATIN_SORTED),
            _ => (text, SPANISH),
        };
        let (name, brackets) = text.split_once('(').unwrap_or((text, ""));
        let mut numbers = brackets.trim_end_matches(')').split(',').map(|number| number.parse::<i64>().unwrap_or(-1));
        let (size, scale) = (numbers.next().unwrap_or(-1), numbers.next().unwrap_or(0));
        Self { name, size, scale: scale as u8, collation, fixed }
    }

    /// TYPE_INFO of a column.
    pub fn info(&self) -> Vec<u8> {
        let sized = |token: u8, size: u8| vec![token, size];
        let counted = |token: u8, collated: bool| {
            let size =
                if self.size < 0 { 0xFFFF } else { self.size as u16 * if self.name.starts_with('n') { 2 } else { 1 } };
            let mut info = vec![token];
            info.extend(size.to_le_bytes());
            info.extend(collated.then_some(self.collation).into_iter().flatten());
            info
        };
        let long = |token: u8, collated: bool| {
            let mut info = vec![token, 0xFF, 0xFF, 0xFF, 0x7F];
            info.extend(collated.then_some(self.collation).into_iter().flatten());
            // The table that it comes from: one part, "t".
            info.extend([1, 1, 0, b't', 0]);
            info
        };
        match (self.name, self.fixed) {
            ("tinyint", true) => vec![0x30],
            ("bit", true) => vec![0x32],
            ("smallint", true) => vec![0x34],
            ("int", true) => vec![0x38],
            ("smalldatetime", true) => vec![0x3A],
            ("real", true) => vec![0x3B],
            ("money", true) => vec![0x3C],
            ("datetime", true) => vec![0x3D],
            ("float", true) => vec![0x3E],
            ("smallmoney", true) => vec![0x7A],
            ("bigint", true) => vec![0x7F],
            ("tinyint", _) => sized(0x26, 1),
            ("smallint", _) => sized(0x26, 2),
            ("int", _) => sized(0x26, 4),
            ("bigint", _) => sized(0x26, 8),
            ("bit", _) => sized(0x68, 1),
            ("real", _) => sized(0x6D, 4),
            ("float", _) => sized(0x6D, 8),
            ("smallmoney", _) => sized(0x6E, 4),
            ("money", _) => sized(0x6E, 8),
            ("smalldatetime", _) => sized(0x6F, 4),
            ("datetime", _) => sized(0x6F, 8),
            ("uniqueidentifier", _) => sized(0x24, 16),
            ("decimal", _) => vec![0x6A, self.decimal_bytes(), self.size as u8, self.scale],
            ("numeric", _) => vec![0x6C, self.decimal_bytes(), self.size as u8, self.scale],
            ("date", _) => vec![0x28],
            ("time", _) => sized(0x29, self.size as u8),
            ("datetime2", _) => sized(0x2A, self.size as u8),
            ("datetimeoffset", _) => sized(0x2B, self.size as u8),
            ("char", _) => counted(0xAF, true),
            ("varchar", _) => counted(0xA7, true),
            ("nchar", _) => counted(0xEF, true),
            ("nvarchar", _) => counted(0xE7, true),
            ("binary", _) => counted(0xAD, false),
            ("rowversion", _) => vec![0xAD, 8, 0],
            ("varbinary", _) => counted(0xA5, false),
            ("text", _) => long(0x23, true),
            ("ntext", _) => long(0x63, true),
            ("image", _) => long(0x22, false),
            ("xml", _) => vec![0xF1, 0],
            ("sql_variant", _) => vec![0x62, 0x49, 0x1F, 0, 0],
            ("hierarchyid", _) => {
                let mut info = vec![0xF0, 0x7C, 0x03];
                ["db", "sys", "hierarchyid"].iter().for_each(|part| info.extend(short_text(part)));
                info.extend(counted_text("Microsoft.SqlServer.Types.SqlHierarchyId"));
                info
            }
            (other, _) => panic!("a type that the responder does not have: {other}"),
        }
    }

    /// A value in a row, from its literal; `None` is NULL.
    pub fn value(&self, literal: Option<&str>) -> Vec<u8> {
        let bytes = literal.map(|literal| self.bytes(literal));
        if self.fixed && self.name != "date" && self.info().len() == 1 {
            return bytes.expect("a column that is NOT NULL has a value");
        }
        match (self.name, bytes) {
            ("text" | "ntext" | "image", None) => vec![0],
            ("text" | "ntext" | "image", Some(bytes)) => {
                // A pointer and a time stamp of no meaning.
                let mut value = vec![16];
                value.extend([0xAB; 16 + 8]);
                value.extend((bytes.len() as u32).to_le_bytes());
                value.extend(bytes);
                value
            }
            ("sql_variant", bytes) => bytes.unwrap_or_else(|| vec![0; 4]),
            ("xml" | "hierarchyid", bytes) => self.pieces(bytes),
            (_, bytes) if self.is_counted() && self.size < 0 && self.name != "rowversion" => self.pieces(bytes),
            (_, None) if self.is_counted() => vec![0xFF, 0xFF],
            (_, Some(bytes)) if self.is_counted() => prefixed((bytes.len() as u16).to_le_bytes(), &bytes),
            (_, None) => vec![0],
            (_, Some(bytes)) => prefixed([bytes.len() as u8], &bytes),
        }
    }

    fn is_counted(&self) -> bool {
        self.name.ends_with("char") || self.name.ends_with("binary") || self.name == "rowversion"
    }

    /// In pieces; every other value says its length before, as the server may.
    fn pieces(&self, bytes: Option<Vec<u8>>) -> Vec<u8> {
        let Some(bytes) = bytes else { return vec![0xFF; 8] };
        let length = if bytes.len() % 4 == 0 { bytes.len() as u64 } else { u64::MAX - 1 };
        let mut value = length.to_le_bytes().to_vec();
        for piece in bytes.chunks(1001) {
            value.extend((piece.len() as u32).to_le_bytes());
            value.extend(piece);
        }
        value.extend([0; 4]);
        value
    }

    fn decimal_bytes(&self) -> u8 {
        match self.size {
            1..=9 => 5,
            10..=19 => 9,
            20..=28 => 13,
            _ => 17,
        }
    }

    fn bytes(&self, literal: &str) -> Vec<u8> {
        let units = |scale: u8| literal.parse::<ExactDecimal>().unwrap().rescale(scale).expect(literal).unscaled();
        match self.name {
            "tinyint" | "bit" => (units(0) as u8).to_le_bytes().into(),
            "smallint" => (units(0) as i16).to_le_bytes().into(),
            "int" => (units(0) as i32).to_le_bytes().into(),
            "bigint" => (units(0) as i64).to_le_bytes().into(),
            "real" => literal.parse::<f32>().unwrap().to_le_bytes().into(),
            "float" => literal.parse::<f64>().unwrap().to_le_bytes().into(),
            "smallmoney" => (units(4) as i32).to_le_bytes().into(),
            "money" => {
                // The higher half first.
                let units = units(4) as i64;
                [((units >> 32) as i32).to_le_bytes(), (units as i32).to_le_bytes()].concat()
            }
            "decimal" | "numeric" => {
                let units = units(self.scale);
                let magnitude = units.unsigned_abs().to_le_bytes();
                prefixed([u8::from(units >= 0)], &magnitude[..usize::from(self.decimal_bytes()) - 1])
            }
            "date" => days(literal).to_le_bytes()[..3].into(),
            "time" => self.time(literal),
            "datetime2" => {
                let (date, time) = literal.split_once('T').unwrap();
                [self.time(time), days(date).to_le_bytes()[..3].into()].concat()
            }
            "datetimeoffset" => self.with_offset(literal),
            "datetime" => {
                let (date, time) = literal.split_once('T').unwrap();
                let units = (ticks(time, 3) * 3 + 5) / 10;
                let day = (i64::from(days(date)) - DAYS_1 + DAYS_1900) as i32;
                [day.to_le_bytes(), (units as u32).to_le_bytes()].concat()
            }
            "smalldatetime" => {
                let (date, time) = literal.split_once('T').unwrap();
                let day = (i64::from(days(date)) - DAYS_1 + DAYS_1900) as u16;
                [day.to_le_bytes(), ((ticks(time, 0) / 60) as u16).to_le_bytes()].concat()
            }
            "char" | "varchar" | "text" => {
                let charset = if self.collation == CYRILLIC { WIN_1251 } else { WIN_1252 };
                charset.encode(literal).unwrap().to_vec()
            }
            "nchar" | "nvarchar" | "ntext" | "xml" => utf16(literal),
            "uniqueidentifier" => {
                let bytes = hex_bytes(&literal.replace('-', ""));
                // The first three groups are numbers, lowest byte first.
                [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at| bytes[at]).into()
            }
            "sql_variant" => {
                // An int.
                let value = (units(0) as i32).to_le_bytes();
                [&6_u32.to_le_bytes()[..], &[0x38, 0], &value[..]].concat()
            }
            _ => hex_bytes(literal),
        }
    }

    fn time(&self, literal: &str) -> Vec<u8> {
        let width = match self.size {
            0..=2 => 3,
            3..=4 => 4,
            _ => 5,
        };
        ticks(literal, self.size as u32).to_le_bytes()[..width].into()
    }

    /// `2024-07-01T12:00:00.1234567+05:30`: the moment in UTC, and the minutes of the offset.
    fn with_offset(&self, literal: &str) -> Vec<u8> {
        let (local, offset) = literal.split_at(literal.len() - 6);
        let sign = if offset.starts_with('-') { -1 } else { 1 };
        let minutes = sign * (offset[1..3].parse::<i64>().unwrap() * 60 + offset[4..].parse::<i64>().unwrap());
        let (date, time) = local.split_once('T').unwrap();
        let per_second = 10_i64.pow(self.size as u32);
        let day = 86_400 * per_second;
        let moment = i64::from(days(date)) * day + ticks(time, self.size as u32) - minutes * 60 * per_second;
        let width = self.time("00:00:00").len();
        let mut bytes = moment.rem_euclid(day).to_le_bytes()[..width].to_vec();
        bytes.extend(&(moment.div_euclid(day) as i32).to_le_bytes()[..3]);
        bytes.extend((minutes as i16).to_le_bytes());
        bytes
    }
}

/// A result: its columns, and rows of literals. Every other row names its NULLs in a bitmap.
pub fn result(columns: &[(String, Type)], rows: &[Vec<Option<String>>]) -> Vec<u8> {
    let mut tokens = vec![0x81];
    tokens.extend((columns.len() as u16).to_le_bytes());
    for (name, column) in columns {
        // No type of the user's; NULL is allowed or not.
        tokens.extend([0, 0, 0, 0, u8::from(!column.fixed), 0]);
        tokens.extend(column.info());
        tokens.extend(short_text(name));
    }
    for (index, row) in rows.iter().enumerate() {
        let with_bitmap = index % 2 == 1;
        if with_bitmap {
            tokens.push(0xD2);
            for eight in row.chunks(8) {
                tokens.push(eight.iter().enumerate().map(|(bit, value)| u8::from(value.is_none()) << bit).sum());
            }
        } else {
            tokens.push(0xD1);
        }
        for ((_, column), value) in columns.iter().zip(row) {
            if value.is_some() || !with_bitmap {
                tokens.extend(column.value(value.as_deref()));
            }
        }
    }
    tokens
}

/// The end of a statement or a procedure.
pub fn done(token: u8, status: u16, rows: usize) -> Vec<u8> {
    let mut tokens = vec![token];
    tokens.extend(status.to_le_bytes());
    tokens.extend([0xC1, 0]);
    tokens.extend((rows as u64).to_le_bytes());
    tokens
}

/// What a procedure returns.
pub fn returned(status: i32) -> Vec<u8> {
    prefixed([0x79], &status.to_le_bytes())
}

pub fn error(number: u32, class: u8, message: &str) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend([1, class]);
    body.extend(counted_text(message));
    body.extend(short_text("respondedor"));
    body.extend(short_text(""));
    body.extend(1_u32.to_le_bytes());
    token(0xAA, &body)
}

/// A token with its length.
pub fn token(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut token = vec![kind];
    token.extend((body.len() as u16).to_le_bytes());
    token.extend(body);
    token
}

/// Text behind its length in one byte, and in two.
pub fn short_text(text: &str) -> Vec<u8> {
    let units = utf16(text);
    prefixed([(units.len() / 2) as u8], &units)
}

pub fn counted_text(text: &str) -> Vec<u8> {
    let units = utf16(text);
    prefixed(((units.len() / 2) as u16).to_le_bytes(), &units)
}

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn prefixed<const N: usize>(prefix: [u8; N], bytes: &[u8]) -> Vec<u8> {
    [&prefix[..], bytes].concat()
}

/// Days since year 1.
fn days(date: &str) -> i32 {
    days_of(date.parse().unwrap()) + DAYS_1 as i32
}

/// `HH:MM:SS[.fraction]` in 10^-scale seconds.
fn ticks(time: &str, scale: u32) -> i64 {
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let parts: Vec<i64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    let seconds = (parts[0] * 60 + parts[1]) * 60 + parts[2];
    let digits = format!("{fraction:0<width$}", width = scale as usize);
    assert!(digits.len() == scale as usize, "{time} has more digits than {scale}");
    seconds * 10_i64.pow(scale) + digits.parse::<i64>().unwrap_or(0)
}

pub fn hex_bytes(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
