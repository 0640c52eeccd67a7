//! A digest of all that decides which values a row has in the lake, so that days are sent again when a corrected
//! mapping, another zone or another salt reads the same rows otherwise.

use std::fmt::Display;

use ribera_storage::dataset::Transform;
use ribera_storage::hex::hex;
use sha2::{Digest, Sha256};

use crate::agent::DatasetContext;
use crate::config::{ColumnMapping, DatasetMapping, SourceConfig};

/// What is not set is not in it: a setting that a later version knows changes no digest by its default. What only
/// proves or paces (`audit`, `row_hash`, `watermark`, `chunk_rows`, `order`) is not in it either.
pub(crate) fn values_digest(context: &DatasetContext<'_>, salt: &str) -> String {
    let mut digest = Sha256::new();
    let mut say = |name: &str, value: &dyn Display| digest.update(format!("{name}={value}\0"));
    let DatasetMapping { from, filter, date, range, extract, result_set, columns, .. } = context.mapping;
    for (name, value) in [("from", from), ("where", filter), ("date", date), ("range", range), ("extract", extract)] {
        value.iter().for_each(|value| say(name, value));
    }
    result_set.iter().for_each(|value| say("result_set", value));
    for (name, column) in columns {
        let ColumnMapping { sql, scale, round, zone, epoch, truncate, charset } = column;
        say("column", name);
        sql.iter().for_each(|value| say("sql", value));
        scale.iter().for_each(|value| say("scale", value));
        round.iter().for_each(|value| say("round", value));
        zone.iter().for_each(|value| say("zone", value));
        epoch.iter().for_each(|value| say("epoch", &format!("{value:?}")));
        truncate.then(|| say("truncate", truncate));
        charset.iter().for_each(|value| say("charset", value));
    }
    say("store_zone", &context.calendar.time_zone.iana_name().unwrap_or_default());
    match &context.store.config.source {
        SourceConfig::Sqlite { charset, .. } => charset.iter().for_each(|value| say("source_charset", value)),
        SourceConfig::Mysql(server) | SourceConfig::Postgres(server) => {
            server.charset.iter().for_each(|value| say("source_charset", value));
        }
        SourceConfig::Firebird(server) => say("source_charset", &format!("{:?}", server.charset)),
        SourceConfig::SqlServer(_) => {}
    }
    if context.definition.columns.iter().any(|column| column.transforms.contains(&Transform::Hash)) {
        say("salt", &salt);
    }
    hex(&digest.finalize())
}
