//! Says in the object store which days of a stream the lake may no longer call complete.

use bytes::Bytes;
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, Unit, numbered, paths};

use crate::agent::Agent;
use crate::ports::step;

/// Where the journal keeps what was last published.
const KIND: &str = "differing";
const NOTHING: &str = r#"{"units":[]}"#;

impl<S: ObjectStore> Agent<S> {
    /// Notes the units that were found to differ and says so, if the object store can be reached:
    /// if not, it is said before the first batch of the stream is sent.
    pub(crate) async fn found_differing(&self, store: &StoreId, dataset: &DatasetName, units: &[Unit]) -> Result<()> {
        if self.journal.note_differing(store, dataset, units, self.ports.clock.now())? {
            self.publish_differing_soon(store, dataset).await;
        }
        Ok(())
    }

    /// Publishes the doubted units of a stream now if the object store can be reached, else before its next batch.
    pub(crate) async fn publish_differing_soon(&self, store: &StoreId, dataset: &DatasetName) {
        if !self.config.local_only
            && let Err(error) = self.publish_differing(store, dataset).await
        {
            self.log(format!("store {store}, dataset {dataset}: differing days could not be published yet: {error}"));
        }
    }

    /// Publishes the doubted units of every stream of a store.
    pub(crate) async fn publish_all_differing(&self, store: &StoreId) -> Result<()> {
        for store in self.served(std::slice::from_ref(store)) {
            for (dataset, _) in self.config.datasets(&store.config) {
                self.publish_differing(&store.config.id, dataset).await?;
            }
        }
        Ok(())
    }

    /// Publishes the doubted units of a stream unless that stands already.
    pub(crate) async fn publish_differing(&self, store: &StoreId, dataset: &DatasetName) -> Result<()> {
        let text = serde_json::to_string(&self.journal.differing(store, dataset)?)
            .map_err(|error| Error::bug("differing units do not serialise").with_source(error))?;
        let name = format!("{store}/{dataset}");
        let last = self.journal.cached_definition(KIND, &name)?;
        // What the journal remembers of an earlier list is not trusted (it may be a restored
        // one), but for this: where nothing was said and there is nothing to say, nothing is asked.
        if text == NOTHING && last.as_ref().is_none_or(|last| last == NOTHING) {
            return Ok(());
        }
        let prefix = paths::differing(store, dataset);
        let body = Bytes::from(text.clone());
        self.with_retries(async || {
            self.ports.fail_points.hit(step::DIFFERING)?;
            let published = numbered::publish(&self.ports.objects, &prefix, "json", body.clone()).await?;
            if published.changed { numbered::prune(&self.ports.objects, &prefix, 1).await } else { Ok(()) }
        })
        .await?;
        self.journal.cache_definition(KIND, &name, &text)
    }
}
