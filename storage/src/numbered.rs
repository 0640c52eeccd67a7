//! Mutable state without overwriting: numbered objects below a prefix, of which the highest
//! number wins. A writer puts the next number only if it is absent.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::object::{ObjectMeta, ObjectPath, ObjectStore, PutOutcome, list_all};
use crate::paths;

/// Attempts before a writer that always loses the next number gives up.
const ATTEMPTS_MAX: usize = 16;

/// The state that wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    pub number: u64,
    pub path: ObjectPath,
    pub bytes: Bytes,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The number under which the text stands.
    pub number: u64,
    /// False when the latest text was the same already and nothing was written.
    pub changed: bool,
}

/// The number that a numbered object's path ends with, such as 7 of `…/0000000007.toml`.
pub fn number_of(path: &ObjectPath) -> Option<u64> {
    let (number, _) = path.file_name().split_once('.')?;
    (number.len() == 10 && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| number.parse().ok())?
}

/// The highest number directly below `prefix` with its bytes, or `None` when there is none.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn latest<S: ObjectStore>(objects: &S, prefix: &str) -> Result<Option<Latest>> {
    let mut found = numbers(objects, prefix).await?;
    // An object may be pruned between listing and reading; a higher number is there then.
    for _ in 0..ATTEMPTS_MAX {
        let Some((number, meta)) = found.pop() else { return Ok(None) };
        if let Some(bytes) = objects.get(&meta.path).await? {
            return Ok(Some(Latest { number, path: meta.path, bytes }));
        }
        found = numbers(objects, prefix).await?;
    }
    Err(Error::retry(format!("{prefix}: its latest number changes faster than it can be read")))
}

/// The path of the highest number directly below `prefix`, unread.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn latest_path<S: ObjectStore>(objects: &S, prefix: &str) -> Result<Option<ObjectPath>> {
    Ok(numbers(objects, prefix).await?.pop().map(|(_, meta)| meta.path))
}

/// Makes `bytes` the latest unless they are already. `extension` is without a dot.
///
/// # Errors
///
/// `Retry` when the object store does not answer, or others published first too often.
pub async fn publish<S: ObjectStore>(objects: &S, prefix: &str, extension: &str, bytes: Bytes) -> Result<Published> {
    for _ in 0..ATTEMPTS_MAX {
        let latest = latest(objects, prefix).await?;
        if let Some(latest) = &latest
            && latest.bytes == bytes
        {
            return Ok(Published { number: latest.number, changed: false });
        }
        let number = latest.map_or(1, |latest| latest.number + 1);
        if put_number(objects, prefix, number, extension, &bytes).await? {
            return Ok(Published { number, changed: true });
        }
    }
    Err(Error::retry(format!("{prefix}: lost the next number {ATTEMPTS_MAX} times to other writers")))
}

/// Puts exactly `number` if it is absent. After an error the object is read back and compared:
/// true only if `bytes` stand there.
///
/// # Errors
///
/// `Retry` when the object store does not answer so that it is not known what stands there.
pub async fn put_number<S: ObjectStore>(
    objects: &S,
    prefix: &str,
    number: u64,
    extension: &str,
    bytes: &Bytes,
) -> Result<bool> {
    let path = paths::numbered(prefix, number, extension)?;
    match objects.put_if_absent(&path, bytes.clone().into()).await {
        Ok(PutOutcome::Created) => Ok(true),
        Ok(PutOutcome::Exists) => Ok(objects.get(&path).await?.as_ref() == Some(bytes)),
        Err(error) => match objects.get(&path).await? {
            Some(found) => Ok(found == *bytes),
            None => Err(error),
        },
    }
}

/// Deletes all but the `keep` highest numbers. For state whose history nobody reads.
///
/// # Errors
///
/// `Retry` when the object store does not answer.
pub async fn prune<S: ObjectStore>(objects: &S, prefix: &str, keep: usize) -> Result<()> {
    let found = numbers(objects, prefix).await?;
    for (_, meta) in found.iter().take(found.len().saturating_sub(keep)) {
        objects.delete(&meta.path).await?;
    }
    Ok(())
}

async fn numbers<S: ObjectStore>(objects: &S, prefix: &str) -> Result<Vec<(u64, ObjectMeta)>> {
    let folder = format!("{prefix}/");
    let listed = list_all(objects, &folder, None).await?;
    let direct = |meta: &ObjectMeta| meta.path.as_str().len() == folder.len() + meta.path.file_name().len();
    Ok(listed
        .into_iter()
        .filter(direct)
        .filter_map(|meta| number_of(&meta.path).map(|number| (number, meta)))
        .collect())
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::object::MemoryStore;

    #[test]
    fn publishing_counts_up_and_an_unchanged_text_gets_no_new_number() {
        block_on(async {
            let objects = MemoryStore::new();
            let put = async |text: &'static str| publish(&objects, "p", "toml", text.into()).await.unwrap();
            assert_eq!(put("a").await, Published { number: 1, changed: true });
            assert_eq!(put("a").await, Published { number: 1, changed: false });
            assert_eq!(put("b").await, Published { number: 2, changed: true });
            assert_eq!(latest(&objects, "p").await.unwrap().unwrap().bytes, "b");
            assert_eq!(latest(&objects, "q").await.unwrap(), None);
        });
    }

    #[test]
    fn pruning_keeps_the_highest_numbers() {
        block_on(async {
            let objects = MemoryStore::new();
            for text in ["a", "b", "c"] {
                publish(&objects, "p", "json", text.into()).await.unwrap();
            }
            prune(&objects, "p", 1).await.unwrap();
            let found = list_all(&objects, "p/", None).await.unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(number_of(&found[0].path), Some(3));
        });
    }
}
