//! Pages of kept coverage: some stores each, in order. What a refresh needs of a store that stands as it is lies in
//! front; the rest is text that is not read then, and goes into the next page as it is.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use ribera_storage::{Error, Result, StoreId};

use super::summary::{self, Counted};
use super::{CoverageSettings, Period, StoreCoverage, StoreSummary};

/// A store of a page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub store: StoreId,
    /// See [`super::incremental`]. Empty: judged anew every time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub basis: String,
    /// `None` of an inactive store: it stands outside totals.
    pub(super) counted: Option<Counted>,
    /// Of a [`PageStore`].
    kept: Box<RawValue>,
}

/// All that is kept of a store. Inactive stores have no summary: they stand outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageStore {
    pub coverage: StoreCoverage,
    pub summary: Option<StoreSummary>,
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        (&self.store, &self.basis, &self.counted) == (&other.store, &other.basis, &other.counted)
            && self.kept.get() == other.kept.get()
    }
}

impl Line {
    /// With the summary over `period`.
    pub(super) fn new(
        coverage: StoreCoverage,
        basis: String,
        settings: &CoverageSettings,
        period: Option<Period>,
    ) -> Result<Self> {
        let summary = coverage.active.then(|| summary::of_store(&coverage, settings, period));
        let counted = summary.as_ref().map(|summary| Counted::of(&coverage, summary));
        let store = coverage.store.clone();
        let kept = serde_json::value::to_raw_value(&PageStore { coverage, summary })
            .map_err(|error| Error::bug("coverage does not serialise").with_source(error))?;
        Ok(Self { store, basis, counted, kept })
    }

    /// Whether it has a summary.
    pub fn is_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// All that is kept of the store.
    ///
    /// # Errors
    ///
    /// `Data` when its text cannot be read.
    pub fn read(&self) -> Result<PageStore> {
        serde_json::from_str(self.kept.get())
            .map_err(|error| Error::data(format!("kept coverage of {}: cannot be read", self.store)).with_source(error))
    }
}
