//! Objects that are JSON.

use super::{ObjectPath, ObjectStore};
use crate::error::{Error, Result};

/// Puts `value` as JSON, over whatever was there.
///
/// # Errors
///
/// `Bug` when the value does not serialise, else as [`ObjectStore::put`].
pub async fn put_json<S: ObjectStore, T: serde::Serialize>(objects: &S, path: &ObjectPath, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::bug(format!("{path}: does not serialise")).with_source(error))?;
    objects.put(path, bytes.into()).await
}
