//! Paths of data files: relative to the table, percent-encoded in the log as Delta asks.

use std::fmt::Write;

use crate::dataset::PartitionColumn;
use crate::error::{Error, Result};
use crate::ids::{DatasetName, StoreId};
use crate::object::ObjectPath;
use crate::paths;

/// `month=YYYY-MM`: the folder of a partition and its key within a table. Empty without a grain.
pub fn partition_key(partition: &[PartitionColumn]) -> String {
    let parts: Vec<String> = partition.iter().map(|(column, value)| format!("{column}={value}")).collect();
    parts.join("/")
}

/// A fresh data file's path in the log; `store` is the one whose rows it holds, if it is one.
pub fn data_file(partition: &[PartitionColumn], fresh_name: &str, store: Option<&StoreId>) -> String {
    let folder = match partition {
        [] => String::new(),
        partition => format!("{}/", partition_key(partition)),
    };
    let store = store.map(|store| format!("-{store}")).unwrap_or_default();
    encode(&format!("{folder}part-{fresh_name}{store}.parquet"))
}

/// Where the facts of a data file lie, if they have an object of their own: beside it, hidden from other programs.
pub fn facts_file(log_path: &str) -> String {
    let (folder, name) = log_path.rsplit_once('/').map_or(("", log_path), |(folder, name)| (folder, name));
    let name = name.strip_suffix(".parquet").unwrap_or(name);
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{folder}{slash}_{name}.facts")
}

/// Whether an object's name is one that [`facts_file`] gives a file of ours.
pub fn is_facts_file(name: &str) -> bool {
    let data = name.strip_prefix('_').and_then(|name| name.strip_suffix(".facts"));
    data.is_some_and(|data| is_our_file_name(&format!("{data}.parquet")))
}

/// Whether the last part of a log path is a name that [`data_file`] gives.
pub fn is_our_file_name(log_path: &str) -> bool {
    our_name(log_path).is_some()
}

/// The one store whose rows the file of a log path holds, by its name.
pub fn store_of(log_path: &str) -> Option<&str> {
    our_name(log_path)?.strip_prefix('-')
}

/// What follows the random part of a name of ours.
fn our_name(log_path: &str) -> Option<&str> {
    let name = log_path.rsplit('/').next().unwrap_or(log_path);
    let rest = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
    let (hex, store) = rest.split_at_checked(32)?;
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let fits = store.is_empty() || store.strip_prefix('-').is_some_and(|store| store.parse::<StoreId>().is_ok());
    (is_hex && fits).then_some(store)
}

/// Where the file named by a log path lies in the object store.
pub fn object_path(table: &DatasetName, log_path: &str) -> Result<ObjectPath> {
    let decoded = decode(log_path)
        .ok_or_else(|| Error::data(format!("table {table}: path is not percent-encoded text: {log_path:?}")))?;
    ObjectPath::new(format!("{}/{decoded}", paths::table_root(table))).map_err(|error| {
        Error::data(format!("table {table}: names a file outside itself or of a strange name")).with_source(error)
    })
}

/// Percent-encodes what is not unreserved in a URI, `/` and `=` apart.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/=".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The inverse of [`encode`]; `None` when the text is no such encoding.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_survives_percent_encoding(text in ".*") {
            let encoded = encode(&text);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(decode(&encoded), Some(text));
        }
    }

    #[test]
    fn a_file_of_one_store_says_so_in_its_name() {
        let (hex, month) = ("0123456789abcdef0123456789abcdef", [("month".to_owned(), "2026-01".to_owned())]);
        let store: StoreId = "a-b_1".parse().unwrap();
        let own = data_file(&month, hex, Some(&store));
        assert_eq!(own, format!("month=2026-01/part-{hex}-a-b_1.parquet"));
        assert_eq!((store_of(&own), is_our_file_name(&own)), (Some("a-b_1"), true));
        let shared = data_file(&[], hex, None);
        assert_eq!((store_of(&shared), is_our_file_name(&shared)), (None, true));
        assert_eq!(facts_file(&own), format!("month=2026-01/_part-{hex}-a-b_1.facts"));
        assert_eq!(facts_file(&shared), format!("_part-{hex}.facts"));
        assert!(is_facts_file(&facts_file(&shared)) && !is_facts_file(&shared) && !is_facts_file("_delta.facts"));
        for name in ["part-00000-x.snappy.parquet", &format!("part-{hex}-A.parquet"), &format!("part-{hex}x.parquet")] {
            assert_eq!((store_of(name), is_our_file_name(name)), (None, false), "{name}");
        }
    }

    #[test]
    fn a_log_path_that_leaves_the_table_is_refused() {
        let table: DatasetName = "ventas".parse().unwrap();
        assert_eq!(
            object_path(&table, "month=2026-01/part-0.parquet").unwrap().as_str(),
            "lake/ventas/month=2026-01/part-0.parquet"
        );
        for path in ["../other/x.parquet", "%2e%2e/x", "s3://bucket/x", "a%2", "/etc/passwd"] {
            assert_eq!(object_path(&table, path).unwrap_err().kind(), crate::ErrorKind::Data, "{path}");
        }
    }
}
