//! What the footer of a large checkpoint says of its row groups, so that a reader fetches those alone that
//! it needs. Other programs pass over it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::delta::log::action::Stores;
use crate::error::{Error, Result};
use crate::ids::StoreId;

/// The key of the footer under which the index stands.
pub(super) const INDEX_KEY: &str = "ribera.checkpoint";

/// Of each row group but the last one, which holds protocol and metadata.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::delta) struct Index {
    pub files: u64,
    pub removals: u64,
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::delta) struct Group {
    /// Of the files that it holds, if any.
    pub files: Option<FileBounds>,
    /// It holds removals.
    pub removals: bool,
    /// Of its bytes: two calls may write the checkpoint of one version at the same time, and a reader must
    /// not take parts of both for one.
    pub sha256: String,
}

/// Where the files of a row group lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::delta) struct FileBounds {
    /// Keys of the first and the last partition.
    partitions: (String, String),
    /// The first and the last store; `None` when nobody knows.
    stores: Option<(String, String)>,
    #[serde(skip)]
    is_empty: bool,
}

impl FileBounds {
    /// Of no file yet.
    pub(super) fn of(partition: &str) -> Self {
        Self { partitions: (partition.to_owned(), partition.to_owned()), stores: None, is_empty: true }
    }

    pub(super) fn last_partition(&self) -> &str {
        &self.partitions.1
    }

    /// Takes in a file that comes in order of its partition.
    pub(super) fn take(&mut self, partition: &str, stores: Stores<'_>) {
        if self.partitions.1 != partition {
            partition.clone_into(&mut self.partitions.1);
        }
        let found = match stores {
            Stores::One(store) => Some((store, store)),
            Stores::Between(first, last) => Some((first, last)),
            Stores::Any => None,
        };
        self.stores = match (self.stores.take(), found) {
            (None, Some((first, last))) if self.is_empty => Some((first.to_owned(), last.to_owned())),
            (Some((low, high)), Some((first, last))) => {
                let low = if first < low.as_str() { first.to_owned() } else { low };
                let high = if last > high.as_str() { last.to_owned() } else { high };
                Some((low, high))
            }
            _ => None,
        };
        self.is_empty = false;
    }

    /// Whether a file that is wanted may be among them.
    pub(super) fn may_hold(&self, wanted: &Wanted) -> bool {
        let (first, last) = &self.partitions;
        let mut partitions = wanted.partitions.range(first.clone()..=last.clone());
        self.may_hold_any(&wanted.stores)
            || partitions.any(|(_, stores)| stores.as_ref().is_none_or(|stores| self.may_hold_any(stores)))
    }

    fn may_hold_any(&self, stores: &BTreeSet<StoreId>) -> bool {
        let within = |store: &StoreId| match &self.stores {
            Some((low, high)) => (low.as_str()..=high.as_str()).contains(&store.as_str()),
            None => true,
        };
        stores.iter().any(within)
    }
}

/// Files that a reader needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::delta) struct Wanted {
    /// By partition key those of some stores, or of all (`None`).
    partitions: BTreeMap<String, Option<BTreeSet<StoreId>>>,
    /// Those of these stores in every partition.
    stores: BTreeSet<StoreId>,
}

impl Wanted {
    /// All files of some stores.
    pub(in crate::delta) fn of_stores(stores: BTreeSet<StoreId>) -> Self {
        Self { stores, ..Self::default() }
    }

    pub(in crate::delta) fn add_store(&mut self, partition: String, store: &StoreId) {
        if let Some(stores) = self.partitions.entry(partition).or_insert_with(|| Some(BTreeSet::new())) {
            stores.insert(store.clone());
        }
    }

    pub(in crate::delta) fn add_partition(&mut self, partition: String) {
        self.partitions.insert(partition, None);
    }
}

impl Index {
    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::bug("checkpoint: its index does not serialise").with_source(error))
    }

    pub(super) fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::data("checkpoint: its index is not readable").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partition: &str, store: Option<&str>) -> Wanted {
        let mut wanted = Wanted::default();
        match store {
            Some(store) => wanted.add_store(partition.to_owned(), &store.parse().unwrap()),
            None => wanted.add_partition(partition.to_owned()),
        }
        wanted
    }

    #[test]
    fn bounds_hold_every_file_they_were_told_of_and_shut_others_out() {
        let mut bounds = FileBounds::of("m=1");
        bounds.take("m=1", Stores::One("d"));
        bounds.take("m=2", Stores::Between("b", "f"));
        for (partition, store, may) in [
            ("m=1", Some("d"), true),
            ("m=2", Some("b"), true),
            ("m=2", Some("f"), true),
            ("m=2", Some("a"), false),
            ("m=1", Some("g"), false),
            ("m=0", Some("d"), false),
            ("m=3", None, false),
            ("m=2", None, true),
        ] {
            assert_eq!(bounds.may_hold(&wanted(partition, store)), may, "{partition} {store:?}");
        }
        for (store, may) in [("b", true), ("e", true), ("f", true), ("a", false), ("g", false)] {
            let everywhere = Wanted::of_stores([store.parse().unwrap()].into());
            assert_eq!(bounds.may_hold(&everywhere), may, "{store} in every partition");
        }
        assert!(!bounds.may_hold(&Wanted::default()));
        assert_eq!(serde_json::from_str::<FileBounds>(&serde_json::to_string(&bounds).unwrap()).unwrap(), bounds);
    }

    #[test]
    fn a_file_whose_stores_nobody_knows_opens_the_bounds_for_all_that_follow() {
        for order in [[Stores::Any, Stores::One("d")], [Stores::One("d"), Stores::Any]] {
            let mut bounds = FileBounds::of("m=1");
            order.into_iter().for_each(|stores| bounds.take("m=1", stores));
            bounds.take("m=1", Stores::One("d"));
            assert!(bounds.may_hold(&wanted("m=1", Some("z"))));
            assert!(bounds.may_hold(&Wanted::of_stores(["z".parse().unwrap()].into())));
        }
    }

    #[test]
    fn a_partition_that_is_wanted_whole_stays_so() {
        let mut all = wanted("m=1", None);
        all.add_store("m=1".to_owned(), &"a".parse().unwrap());
        assert_eq!(all, wanted("m=1", None));
    }
}
