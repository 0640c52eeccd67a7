//! Puts lake files: each under a fresh name, before any log entry names it.

use bytes::Bytes;

use crate::dataset::PartitionColumn;
use crate::delta::log::action::AddFile;
use crate::delta::log::path;
use crate::delta::units::facts::{self, FileUnits, LoadedFacts};
use crate::delta::units::tags;
use crate::delta::{LakeFile, Table};
use crate::error::{Error, Result};
use crate::object::{ObjectPath, ObjectStore, PutOutcome};
use crate::ports::Ports;

impl<S: ObjectStore> Table<'_, S> {
    /// Puts an encoded file under a fresh name in `partition` (see
    /// [`crate::dataset::DatasetDefinition::partition`]). It is in the table once an entry names it.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer, or cannot say whether the file stands.
    pub async fn put_file(
        &self,
        ports: Ports<'_, S>,
        partition: &[PartitionColumn],
        file: &LakeFile,
    ) -> Result<AddFile> {
        let log_path = path::data_file(partition, &ports.random.fresh_name(), file.one_store());
        let object = path::object_path(&self.name, &log_path)?;
        self.put_fresh(&object, file.bytes.clone()).await?;
        let mut add = AddFile {
            path: log_path,
            partition_values: partition.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            size: file.bytes.len() as u64,
            modification_time: ports.clock.now().as_millisecond(),
            data_change: true,
            stats: Some(file.stats.clone()),
            tags: None,
            facts: LoadedFacts::default(),
        };
        self.say_units(&mut add, &file.units).await?;
        if add.rows() != Some(file.rows) {
            return Err(Error::bug(format!("{object}: its statistics must say {} rows", file.rows)));
        }
        add.set_sha256(&file.bytes);
        Ok(add)
    }

    /// By the file's tag, or where that would be too long by an object that the tag names.
    async fn say_units(&self, add: &mut AddFile, units: &FileUnits) -> Result<()> {
        let Some((first, last)) = units.stores() else {
            return Err(Error::bug("a lake file must have units"));
        };
        // What cannot fit is not written twice.
        let least = units.count().saturating_mul(tags::UNIT_BYTES_MIN);
        if let Some(few) = units.few().filter(|_| least <= self.bounds.units_tag_bytes_max) {
            let text = tags::encode(few)?;
            if text.len() <= self.bounds.units_tag_bytes_max {
                add.set_text(text);
                return Ok(());
            }
        }
        let (object, tag, loaded) = facts::encode(units)?;
        self.put_fresh(&add.facts_path(&self.name)?, object).await?;
        add.set_facts(&tag, first, last, loaded);
        Ok(())
    }

    /// A name that is random cannot be taken; put-if-absent makes sure of it all the same.
    async fn put_fresh(&self, object: &ObjectPath, bytes: Bytes) -> Result<()> {
        match self.objects.put_if_absent(object, bytes.clone().into()).await {
            Ok(PutOutcome::Created) => Ok(()),
            doubt => match self.objects.get(object).await? {
                Some(found) if found == bytes => Ok(()),
                Some(_) => Err(Error::bug(format!("{object}: a fresh name was taken"))),
                None => Err(doubt.err().unwrap_or_else(|| Error::retry(format!("{object}: vanished")))),
            },
        }
    }
}
