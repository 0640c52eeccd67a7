//! Reads the facts of files whose units are in an object of their own.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::delta::log::action::AddFile;
use crate::delta::log::snapshot::Snapshot;
use crate::delta::units::facts::{self, FactsTag, LoadedFacts};
use crate::delta::{CONCURRENCY, Table};
use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::object::{ObjectPath, ObjectStore};

impl<S: ObjectStore> Table<'_, S> {
    /// Reads what files of `snapshot` keep of `stores` (of all, if `None`) in objects of their own: of those in the
    /// `partitions` with these keys (in all, if `None`). What was read stays read. What cannot be read makes its file's
    /// units unreadable, and no other's.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn load_facts(
        &self,
        snapshot: &mut Snapshot,
        partitions: Option<&BTreeSet<String>>,
        stores: Option<&BTreeSet<StoreId>>,
    ) -> Result<()> {
        let files = snapshot.files_with_facts(partitions, stores);
        stream::iter(files)
            .map(async |file| {
                file.facts = self.facts_of(file, stores).await?;
                Ok::<_, Error>(())
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    /// The file with all of its facts.
    pub(in crate::delta) async fn with_facts(&self, file: &AddFile) -> Result<AddFile> {
        Ok(AddFile { facts: self.facts_of(file, None).await?, ..file.clone() })
    }

    /// The file with its facts of one store.
    pub(in crate::delta) async fn with_facts_of(&self, file: &AddFile, store: &StoreId) -> Result<AddFile> {
        Ok(AddFile { facts: self.facts_of(file, Some(&[store.clone()].into())).await?, ..file.clone() })
    }

    async fn facts_of(&self, file: &AddFile, stores: Option<&BTreeSet<StoreId>>) -> Result<LoadedFacts> {
        match self.try_facts_of(file, stores).await {
            Err(error) if error.is_retry() => Err(error),
            Err(error) => Ok(LoadedFacts::failed(&error)),
            Ok(facts) => Ok(facts),
        }
    }

    async fn try_facts_of(&self, file: &AddFile, stores: Option<&BTreeSet<StoreId>>) -> Result<LoadedFacts> {
        let mut loaded = file.facts.clone();
        let Some(tag) = file.facts_tag()? else { return Ok(loaded) };
        let path = file.facts_path(&self.name)?;
        if !loaded.has_index() {
            loaded.set_index(self.read_index(&path, &tag).await?);
        }
        let blocks = loaded.missing(stores);
        let texts: Vec<(usize, String)> = stream::iter(blocks)
            .map(async |(place, block)| Ok::<_, Error>((place, block.decode(&self.part(&path, block.range()).await?)?)))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        texts.into_iter().for_each(|(place, text)| loaded.add(place, text));
        Ok(loaded)
    }

    async fn read_index(&self, path: &ObjectPath, tag: &FactsTag) -> Result<Vec<facts::Block>> {
        facts::decode_index(tag, &self.part(path, tag.index()).await?).map_err(|error| error.context(path))
    }

    async fn part(&self, path: &ObjectPath, range: std::ops::Range<u64>) -> Result<Bytes> {
        let part = self.objects.get_range(path, range).await?;
        part.map(|part| part.bytes).ok_or_else(|| Error::data(format!("{path}: is named by the log but absent")))
    }
}
