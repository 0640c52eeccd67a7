//! Reads the facts of files whose units are in an object of their own.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::delta::log::action::AddFile;
use crate::delta::log::snapshot::Snapshot;
use crate::delta::units::facts::{self, Block, FactsTag, LoadedFacts};
use crate::delta::{CONCURRENCY, Table};
use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::object::{ObjectPath, ObjectStore};

/// Blocks that lie side by side are read together as long as they are no more than this.
const BLOCKS_BYTES_MAX: u64 = 1 << 20;

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
        let texts: Vec<Vec<(usize, String)>> = stream::iter(neighbours(loaded.missing(stores)))
            .map(|blocks| self.read_blocks(&path, blocks))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        texts.into_iter().flatten().for_each(|(place, text)| loaded.add(place, text));
        Ok(loaded)
    }

    /// Blocks that lie side by side, in one request.
    async fn read_blocks(&self, path: &ObjectPath, blocks: Vec<(usize, Block)>) -> Result<Vec<(usize, String)>> {
        let range = blocks.first().zip(blocks.last()).map(|(first, last)| first.1.range().start..last.1.range().end);
        let Some(range) = range else { return Ok(Vec::new()) };
        let bytes = self.part(path, range.clone()).await?;
        let text = |(place, block): (usize, Block)| {
            let at = |place: u64| usize::try_from(place - range.start).ok();
            let part =
                at(block.range().start).zip(at(block.range().end)).and_then(|(start, end)| bytes.get(start..end));
            let part = part.ok_or_else(|| Error::data(format!("{path}: is shorter than its index says")))?;
            Ok((place, block.decode(part)?))
        };
        blocks.into_iter().map(text).collect()
    }

    async fn read_index(&self, path: &ObjectPath, tag: &FactsTag) -> Result<Vec<facts::Block>> {
        facts::decode_index(tag, &self.part(path, tag.index()).await?).map_err(|error| error.context(path))
    }

    async fn part(&self, path: &ObjectPath, range: std::ops::Range<u64>) -> Result<Bytes> {
        let part = self.objects.get_range(path, range).await?;
        part.map(|part| part.bytes).ok_or_else(|| Error::data(format!("{path}: is named by the log but absent")))
    }
}

/// Divides blocks into what is read together.
fn neighbours(blocks: Vec<(usize, Block)>) -> Vec<Vec<(usize, Block)>> {
    let mut all: Vec<Vec<(usize, Block)>> = Vec::new();
    for (place, block) in blocks {
        let range = block.range();
        let joins = |run: &[(usize, Block)]| {
            let (first, last) = (run.first()?.1.range(), run.last()?.1.range());
            Some(last.end == range.start && range.end - first.start <= BLOCKS_BYTES_MAX)
        };
        match all.last_mut() {
            Some(run) if joins(run) == Some(true) => run.push((place, block)),
            _ => all.push(vec![(place, block)]),
        }
    }
    all
}
