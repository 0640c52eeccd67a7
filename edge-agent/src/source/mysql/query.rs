//! Statements and their rows.

use super::fault::Fault;
use super::value::Kind;
use super::wire::{Fields, Wire, put_number};
use crate::sql::Statement;
use crate::value::{Rows, Value};

const QUERY: u8 = 0x03;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
const CLOSE: u8 = 0x19;
const OK: u8 = 0x00;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// The status flag of an answer that another follows, as after CALL.
const MORE_RESULTS: u16 = 8;
/// The type of a parameter: text.
const VAR_STRING: u8 = 0xfd;
/// Statements kept prepared: those of a few datasets.
const PREPARED_MAX: usize = 16;

pub struct Connection {
    wire: Wire,
    /// Column definitions and rows end with packets of the old kind.
    has_old_ends: bool,
    prepared: Vec<(String, u32)>,
    /// Rows of the last statement are still to come because whoever took them refused one.
    has_rows_left: bool,
}

struct ResultColumn {
    name: String,
    kind: Kind,
}

impl Connection {
    pub fn new(wire: Wire, has_old_ends: bool) -> Self {
        Self { wire, has_old_ends, prepared: Vec::new(), has_rows_left: false }
    }

    /// Runs a statement that gives no rows.
    pub async fn command(&mut self, sql: &str) -> Result<(), Fault> {
        self.pass_rows_left().await?;
        self.wire.command(&[&[QUERY], sql.as_bytes()].concat()).await?;
        match self.receive().await? {
            OK => Ok(()),
            _ => Err(Fault::protocol("rows in answer to a statement that gives none")),
        }
    }

    /// Runs a statement and hands over its rows.
    pub async fn run(&mut self, statement: &Statement<'_>, rows: &mut dyn Rows) -> Result<(), Fault> {
        self.pass_rows_left().await?;
        let id = self.prepare(statement).await?;
        self.wire.command(&execution(id, &statement.parameters)).await?;
        while self.result(rows).await? & MORE_RESULTS != 0 {}
        Ok(())
    }

    async fn prepare(&mut self, statement: &Statement<'_>) -> Result<u32, Fault> {
        if let Some((_, id)) = self.prepared.iter().find(|(sql, _)| sql == statement.sql) {
            return Ok(*id);
        }
        if self.prepared.len() >= PREPARED_MAX {
            let (_, id) = self.prepared.remove(0);
            // The server does not answer to this.
            self.wire.command(&[&[CLOSE][..], &id.to_le_bytes()].concat()).await?;
        }
        self.wire.command(&[&[PREPARE], statement.sql.as_bytes()].concat()).await?;
        self.receive().await?;
        let (id, columns, parameters) =
            prepared(self.wire.payload()).ok_or_else(|| Fault::protocol("an answer to a statement that is cut off"))?;
        for definitions in [parameters, columns] {
            for _ in 0..definitions {
                self.receive().await?;
            }
            if definitions > 0 {
                self.end_definitions().await?;
            }
        }
        if usize::from(parameters) != statement.parameters.len() {
            let bound = statement.parameters.len();
            return Err(Fault::protocol(format!(
                "a statement with {parameters} parameters, of which {bound} are bound"
            )));
        }
        self.prepared.push((statement.sql.to_owned(), id));
        Ok(id)
    }

    /// One result of a statement; the server's status after it.
    async fn result(&mut self, rows: &mut dyn Rows) -> Result<u16, Fault> {
        if self.receive().await? == OK {
            return Ok(status_of_ok(self.wire.payload()));
        }
        let columns = self.columns().await?;
        let kinds: Vec<Kind> = columns.iter().map(|column| column.kind).collect();
        let mut is_first = true;
        loop {
            match self.receive().await? {
                OK => {}
                END => return Ok(status_of_end(self.wire.payload())),
                _ => return Err(Fault::protocol("a packet that is no row")),
            }
            if is_first {
                is_first = false;
                let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
                if let Err(refused) = rows.begin(&names) {
                    self.has_rows_left = true;
                    return Err(refused.into());
                }
            }
            hand_over(self.wire.payload(), &kinds, rows)
                .ok_or_else(|| Fault::protocol("a row that is cut off or not of its columns' types"))?;
            if let Err(refused) = rows.end_row() {
                self.has_rows_left = true;
                return Err(refused.into());
            }
        }
    }

    async fn columns(&mut self) -> Result<Vec<ResultColumn>, Fault> {
        let damaged = || Fault::protocol("the definition of a column is cut off");
        let count = Fields(self.wire.payload()).number().and_then(|count| u16::try_from(count).ok());
        let mut columns = Vec::new();
        for _ in 0..count.ok_or_else(damaged)? {
            self.receive().await?;
            columns.push(ResultColumn::read(self.wire.payload()).ok_or_else(damaged)?);
        }
        self.end_definitions().await?;
        Ok(columns)
    }

    async fn end_definitions(&mut self) -> Result<(), Fault> {
        if self.has_old_ends && self.receive().await? != END {
            return Err(Fault::protocol("definitions without an end"));
        }
        Ok(())
    }

    /// Receives a packet that is no error; its first byte.
    #[inline]
    async fn receive(&mut self) -> Result<u8, Fault> {
        self.wire.receive().await?;
        match self.wire.payload().first() {
            Some(&ERROR) => {
                self.has_rows_left = false;
                Err(Fault::of_packet(self.wire.payload()))
            }
            Some(first) => Ok(*first),
            None => Err(Fault::protocol("an empty packet")),
        }
    }

    /// Takes what is still to come of a statement whose rows were refused.
    async fn pass_rows_left(&mut self) -> Result<(), Fault> {
        while self.has_rows_left {
            match self.receive().await {
                Ok(END) => {
                    self.has_rows_left = false;
                    let mut status = status_of_end(self.wire.payload());
                    while status & MORE_RESULTS != 0 {
                        status = self.result(&mut Passed).await?;
                    }
                }
                Ok(_) | Err(Fault::Server(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }
}

/// Rows that nobody wants any more.
struct Passed;

impl Rows for Passed {
    fn begin(&mut self, _: &[String]) -> ribera_storage::Result<()> {
        Ok(())
    }

    fn value(&mut self, _: usize, _: Value<'_>) {}

    fn end_row(&mut self) -> ribera_storage::Result<()> {
        Ok(())
    }
}

impl ResultColumn {
    fn read(definition: &[u8]) -> Option<Self> {
        let mut fields = Fields(definition);
        let _catalog_schema_table_and_its_origin = (fields.text()?, fields.text()?, fields.text()?, fields.text()?);
        let (alias, origin) = (fields.text()?, fields.text()?);
        let _length_of_the_rest = fields.number()?;
        let _collation_and_length = fields.bytes(6)?;
        let kind = fields.u8()?;
        let flags = fields.u16()?;
        let name = if alias.is_empty() { origin } else { alias };
        Some(Self { name: String::from_utf8_lossy(name).into_owned(), kind: Kind::of(kind, flags) })
    }
}

/// Hands over the values of a row; `None` when its bytes do not fit the columns.
#[inline]
fn hand_over(row: &[u8], kinds: &[Kind], rows: &mut dyn Rows) -> Option<()> {
    // A bit per column tells NULL; the first two bits are not used.
    let (nulls, rest) = row.get(1..)?.split_at_checked((kinds.len() + 9) / 8)?;
    let mut fields = Fields(rest);
    for (index, kind) in kinds.iter().enumerate() {
        let bit = index + 2;
        let value = if nulls[bit / 8] >> (bit % 8) & 1 == 1 { Value::Null } else { kind.read(&mut fields)? };
        rows.value(index, value);
    }
    Some(())
}

/// Identity, columns and parameters of a prepared statement.
fn prepared(payload: &[u8]) -> Option<(u32, u16, u16)> {
    let mut fields = Fields(payload.get(1..)?);
    Some((fields.u32()?, fields.u16()?, fields.u16()?))
}

fn execution(id: u32, parameters: &[String]) -> Vec<u8> {
    let mut packet = vec![EXECUTE];
    packet.extend_from_slice(&id.to_le_bytes());
    // No cursor; once.
    packet.push(0);
    packet.extend_from_slice(&1_u32.to_le_bytes());
    if parameters.is_empty() {
        return packet;
    }
    // None is NULL; types follow.
    packet.resize(packet.len() + parameters.len().div_ceil(8), 0);
    packet.push(1);
    for _ in parameters {
        packet.extend_from_slice(&[VAR_STRING, 0]);
    }
    for parameter in parameters {
        put_number(&mut packet, parameter.len());
        packet.extend_from_slice(parameter.as_bytes());
    }
    packet
}

fn status_of_ok(payload: &[u8]) -> u16 {
    let mut fields = Fields(payload.get(1..).unwrap_or_default());
    let _rows_and_last_id = (fields.number(), fields.number());
    fields.u16().unwrap_or_default()
}

/// The end of rows is an OK packet in disguise, or the old, shorter one.
fn status_of_end(payload: &[u8]) -> u16 {
    const OLD_BYTES: usize = 5;
    if payload.len() > OLD_BYTES {
        return status_of_ok(payload);
    }
    let mut fields = Fields(payload.get(1..).unwrap_or_default());
    let _warnings = fields.u16();
    fields.u16().unwrap_or_default()
}
