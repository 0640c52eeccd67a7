//! Generated batches of the shipped dataset `ventas`, by the contract: data file, then manifest.
//! The same parameters give the same rows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow_array::builder::{
    Date32Builder, Decimal128Builder, Int32Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use jiff::Timestamp;
use jiff::civil::Date;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use ribera_storage::batch::{Facts, Manifest, UnitFacts};
use ribera_storage::dataset::{DatasetDefinition, shipped};
use ribera_storage::decimal::ExactDecimal;
use ribera_storage::ids::{BatchId, Month, Position, Unit};
use ribera_storage::object::{FolderStore, ObjectStore};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{Error, Result, paths};
use ribera_tests::contract::replace_manifest;
use serde_json::{Value, json};

use crate::options::Options;
use crate::ports::{SplitMix, mix};

const PRODUCTS: u64 = 20_000;
const CUSTOMERS: u64 = 60_000;
const LINES_PER_TICKET_MEAN: f64 = 4.5;
/// Rows handed to the Parquet writer at once.
const CHUNK_ROWS: usize = 65_536;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Plan {
    pub store: String,
    pub position: Position,
    pub days: Vec<Date>,
    /// Spread evenly over the days.
    pub rows: u64,
    pub closed: bool,
}

/// A batch as an agent would upload it.
pub struct Generated {
    pub manifest: Manifest,
    pub file: Vec<u8>,
}

pub fn dataset() -> Result<DatasetDefinition> {
    shipped("ventas").ok_or_else(|| Error::bug("ventas is not shipped"))?
}

/// Puts the definition of a store that may send batches.
pub async fn put_store_definition<S: ObjectStore>(objects: &S, store: &str) -> Result<()> {
    let text = format!("id = \"{store}\"\nname = \"Tienda {store}\"\ntime_zone = \"Europe/Madrid\"\n");
    let definition = StoreDefinition::from_toml(&text)?;
    let path = paths::numbered(&paths::store_definitions(&definition.id), 1, "toml")?;
    objects.put_if_absent(&path, definition.to_toml()?.into_bytes().into()).await?;
    Ok(())
}

/// Uploads `batch`: the file, then the manifest.
pub async fn upload<S: ObjectStore>(objects: &S, batch: Generated) -> Result<()> {
    let file = &batch.manifest.file;
    let path = ribera_storage::object::ObjectPath::new(file.path.clone())?;
    objects.put(&path, batch.file.into()).await?;
    let inbox = paths::inbox(&batch.manifest.batch)?;
    objects.put_if_absent(&inbox, batch.manifest.to_json()?.into()).await?;
    Ok(())
}

/// Fills a folder store: `--folder --stores=17 --first=2025-01 --months=13 --rows=82300000`. With
/// `--tail=0.8` the rows of a store are as 1 to the power of its rank (by Zipf), not the same for all; `--skip=3`
/// leaves out the first months, which were made before.
pub fn into_folder(options: &Options) -> Result<Value> {
    let folder = PathBuf::from(options.required("folder")?);
    let history = History {
        stores: options.get("stores", 17)?,
        months: months(
            options.get("first", Month::of(jiff::civil::date(2025, 1, 1)))?,
            options.get("skip", 0)? + options.get("months", 13)?,
        )?,
        skip: options.get("skip", 0)?,
        rows: options.get("rows", 82_300_000)?,
        tail: options.get("tail", 0.0)?,
    };
    let plans = history.plans();
    let objects = FolderStore::open(&folder, "generate")?.without_sync();
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Error::bug("no runtime").with_source(error))?;
        while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
            let batch = generate(plan)?;
            bytes.fetch_add(batch.file.len() as u64, Ordering::Relaxed);
            runtime.block_on(async {
                put_store_definition(&objects, &plan.store).await?;
                upload(&objects, batch).await
            })?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Error::bug("generator died"))))
    })?;
    Ok(json!({"batches": plans.len(), "rows": plans.iter().map(|plan| plan.rows).sum::<u64>(),
        "bytes": bytes.into_inner()}))
}

/// `count` months, `first` the first.
pub fn months(first: Month, count: usize) -> Result<Vec<Month>> {
    let mut months = Vec::with_capacity(count);
    let mut month = first;
    for _ in 0..count {
        months.push(month);
        let next = month.last_day().tomorrow().map_err(|error| Error::config("--months").with_source(error))?;
        month = Month::of(next);
    }
    Ok(months)
}

/// One batch per store and month.
struct History {
    stores: u64,
    months: Vec<Month>,
    /// Months that are left out.
    skip: usize,
    /// Of the months that are made.
    rows: u64,
    tail: f64,
}

impl History {
    fn plans(&self) -> Vec<Plan> {
        let shares = self.shares();
        let made = (self.months.len() - self.skip) as u64;
        let width = (self.stores.max(1).ilog10() as usize + 1).max(3);
        let mut plans = Vec::new();
        for (at, month) in self.months.iter().enumerate().skip(self.skip) {
            let index = (at - self.skip) as u64;
            let of_month = self.rows * (index + 1) / made - self.rows * index / made;
            for store in 0..self.stores {
                let upto = |store: u64| (of_month as f64 * shares[store as usize]).round() as u64;
                plans.push(Plan {
                    store: format!("t{:0width$}", store + 1),
                    position: Position { epoch: 0, sequence: at as u64 + 1 },
                    days: month.days().collect(),
                    rows: upto(store + 1) - upto(store),
                    closed: true,
                });
            }
        }
        plans
    }

    /// The share of the stores before each, and of all of them: from 0 to 1.
    fn shares(&self) -> Vec<f64> {
        // Large and small stores lie mixed.
        let mut by_rank: Vec<u64> = (0..self.stores).collect();
        by_rank.sort_by_key(|store| mix(store + 1));
        let mut weights = vec![0.0; by_rank.len()];
        for (rank, store) in by_rank.iter().enumerate() {
            weights[*store as usize] = ((rank + 1) as f64).powf(-self.tail);
        }
        let all: f64 = weights.iter().sum();
        let mut shares = vec![0.0];
        let mut sum = 0.0;
        for weight in weights {
            sum += weight;
            shares.push(sum / all);
        }
        shares
    }
}

pub fn generate(plan: &Plan) -> Result<Generated> {
    let dataset = dataset()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(parquet_error)?))
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), dataset.arrow_schema(), Some(properties)).map_err(parquet_error)?;
    let mut units = Vec::with_capacity(plan.days.len());
    let mut lines = Lines::new(plan);
    let days = plan.days.len() as u64;
    for (at, day) in plan.days.iter().enumerate() {
        let rows = plan.rows * (at as u64 + 1) / days - plan.rows * at as u64 / days;
        let facts = lines.write_day(&dataset, *day, rows, &mut writer)?;
        units.push(UnitFacts {
            unit: Unit::Day(*day),
            audit: Some(facts.clone()),
            file: facts,
            closed: plan.closed,
            extracted_at: extracted_at(*day)?,
        });
    }
    let file = writer.into_inner().map_err(parquet_error)?;
    let batch = BatchId { store: plan.store.parse()?, dataset: dataset.name.clone(), position: plan.position };
    let manifest = replace_manifest(&dataset, batch, units, &file)?;
    Ok(Generated { manifest, file })
}

/// The lines of a store, ticket after ticket.
struct Lines {
    random: SplitMix,
    store: String,
    ticket: u64,
}

impl Lines {
    fn new(plan: &Plan) -> Self {
        let seed = plan.store.bytes().fold(plan.position.sequence, |seed, byte| mix(seed ^ u64::from(byte)));
        // Tickets are numbered on from month to month.
        Self { random: SplitMix::seeded(seed), store: plan.store.clone(), ticket: plan.position.sequence * 10_000_000 }
    }

    fn write_day(
        &mut self,
        dataset: &DatasetDefinition,
        day: Date,
        rows: u64,
        writer: &mut ArrowWriter<Vec<u8>>,
    ) -> Result<Facts> {
        let mut columns = Columns::new(dataset);
        let (mut quantity, mut amount) = (0_i128, 0_i128);
        let mut left_in_ticket = 0;
        let (mut line, mut customer) = (0, None);
        let opening = midnight(day)?.as_microsecond() + 9 * 3_600_000_000;
        for row in 0..rows {
            if left_in_ticket == 0 {
                self.ticket += 1;
                left_in_ticket = 1 + (-(LINES_PER_TICKET_MEAN - 1.0) * (1.0 - self.random.unit()).ln()) as u64;
                line = 0;
                customer = (self.random.unit() < 0.42).then(|| self.random.below(CUSTOMERS));
            }
            left_in_ticket -= 1;
            line += 1;
            let at = opening + (row as i64) * (43_200_000_000 / rows as i64) / 1_000_000 * 1_000_000;
            let sale = Sale::draw(&self.random);
            quantity += sale.quantity;
            amount += sale.amount;
            columns.push(day, &self.store, self.ticket, line, at, customer, &sale);
            if columns.rows >= CHUNK_ROWS {
                writer.write(&columns.finish(dataset)?).map_err(parquet_error)?;
            }
        }
        writer.write(&columns.finish(dataset)?).map_err(parquet_error)?;
        Ok(Facts {
            rows,
            sums: BTreeMap::from([
                ("cantidad".to_owned(), ExactDecimal::new(quantity, 3)),
                ("total".to_owned(), ExactDecimal::new(amount, 2)),
            ]),
        })
    }
}

/// What is sold on one line, in units of the columns' scales.
struct Sale {
    product: u64,
    quantity: i128,
    price: i128,
    discount: Option<i128>,
    amount: i128,
}

impl Sale {
    fn draw(random: &SplitMix) -> Self {
        // Few products sell much.
        let product = (PRODUCTS as f64 * random.unit().powi(3)) as u64;
        let cents = 29 + i128::from(mix(product) % 300) * i128::from(mix(product + 1) % 40) / 4 * 5;
        let weighed = mix(product ^ 0x77) % 100 < 12;
        let quantity = match random.unit() {
            part if weighed => 80 + (2_400.0 * part * part) as i128,
            part if part < 0.81 => 1_000,
            _ => 1_000 * (2 + i128::from(random.below(5))),
        };
        let discount = (random.unit() < 0.12).then(|| 5 * (1 + i128::from(random.below(12))));
        let amount = (quantity * cents + 500) / 1_000 - discount.unwrap_or(0);
        Self { product, quantity, price: cents * 100, discount, amount }
    }
}

struct Columns {
    rows: usize,
    date: Date32Builder,
    store: StringBuilder,
    ticket: StringBuilder,
    line: Int32Builder,
    at: TimestampMicrosecondBuilder,
    product: StringBuilder,
    customer: StringBuilder,
    numbers: [Decimal128Builder; 4],
}

impl Columns {
    fn new(dataset: &DatasetDefinition) -> Self {
        let decimal = |name: &str| {
            let kind = dataset.column(name).map(|column| column.column_type.arrow());
            kind.map_or_else(Decimal128Builder::new, |kind| Decimal128Builder::new().with_data_type(kind))
        };
        Self {
            rows: 0,
            date: Date32Builder::new(),
            store: StringBuilder::new(),
            ticket: StringBuilder::new(),
            line: Int32Builder::new(),
            at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            product: StringBuilder::new(),
            customer: StringBuilder::new(),
            numbers: ["cantidad", "precio_unitario", "descuento", "total"].map(decimal),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn push(&mut self, day: Date, store: &str, ticket: u64, line: i32, at: i64, customer: Option<u64>, sale: &Sale) {
        use std::fmt::Write as _;
        self.rows += 1;
        self.date.append_value(days_since_epoch(day));
        self.store.append_value(store);
        // Writing to a string builder cannot fail.
        let _ = write!(self.ticket, "{:02}-{ticket:09}", 1 + ticket % 8);
        self.ticket.append_value("");
        self.line.append_value(line);
        self.at.append_value(at);
        let _ = write!(self.product, "84{:011}", (sale.product * 7_919 + 104_729) % 100_000_000_000);
        self.product.append_value("");
        match customer {
            Some(number) => {
                let _ = write!(self.customer, "C{number:07}");
                self.customer.append_value("");
            }
            None => self.customer.append_null(),
        }
        let [quantity, price, discount, amount] = &mut self.numbers;
        quantity.append_value(sale.quantity);
        price.append_value(sale.price);
        discount.append_option(sale.discount);
        amount.append_value(sale.amount);
    }

    fn finish(&mut self, dataset: &DatasetDefinition) -> Result<RecordBatch> {
        self.rows = 0;
        let [quantity, price, discount, amount] = &mut self.numbers;
        let mut by_name: BTreeMap<&str, ArrayRef> = BTreeMap::from([
            ("fecha", Arc::new(self.date.finish()) as ArrayRef),
            ("ubicacion_id", Arc::new(self.store.finish())),
            ("ticket_id", Arc::new(self.ticket.finish())),
            ("linea", Arc::new(self.line.finish())),
            ("vendido_en", Arc::new(self.at.finish())),
            ("producto_id", Arc::new(self.product.finish())),
            ("cliente_id", Arc::new(self.customer.finish())),
            ("cantidad", Arc::new(quantity.finish())),
            ("precio_unitario", Arc::new(price.finish())),
            ("descuento", Arc::new(discount.finish())),
            ("total", Arc::new(amount.finish())),
        ]);
        let column = |column: &ribera_storage::dataset::Column| {
            by_name.remove(column.name.as_str()).ok_or_else(|| Error::bug(format!("no values for {}", column.name)))
        };
        let arrays = dataset.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(dataset.arrow_schema(), arrays).map_err(|error| Error::bug("columns").with_source(error))
    }
}

pub fn days_since_epoch(day: Date) -> i32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    day.since(epoch).map_or(0, |span| span.get_days())
}

fn midnight(day: Date) -> Result<Timestamp> {
    let zoned = day.to_zoned(jiff::tz::TimeZone::UTC);
    zoned.map(|zoned| zoned.timestamp()).map_err(|error| Error::bug("midnight").with_source(error))
}

/// Four in the morning of the next day, or now.
pub fn extracted_at(day: Date) -> Result<Timestamp> {
    Ok((midnight(day)? + jiff::SignedDuration::from_hours(28)).min(Timestamp::now()))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub fn parquet_error(error: parquet::errors::ParquetError) -> Error {
    Error::bug("generated Parquet").with_source(error)
}
