//! What most verbs need of a lake: its definitions, its snapshots, a DuckDB over its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ribera_storage::control::{self, Settings};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{Snapshot, Table};
use ribera_storage::engine::{DoubtfulFile, EngineOptions, StoreZones, doubtful_files};
use ribera_storage::object::FolderStore;
use ribera_storage::ports::{Ports, Random as _};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{DatasetName, Error, Result, StoreId};

use crate::cli::Context;
use crate::ports::{SystemClock, SystemRandom};

/// A lake with its definitions as they stand.
pub struct Lake {
    pub objects: FolderStore,
    pub settings: Settings,
    /// By id.
    pub stores: Vec<StoreDefinition>,
    /// By name: the published and the shipped ones.
    pub datasets: Vec<DatasetDefinition>,
    spill: OnceLock<PrivateFolder>,
}

/// A folder of a name that nobody can guess, closed to other users, and deleted at the end.
#[derive(Debug)]
struct PrivateFolder(PathBuf);

/// A dataset's table as a command read it.
pub struct DatasetTable {
    /// `None` when the table was never written.
    pub snapshot: Option<Snapshot>,
    pub doubtful: Vec<DoubtfulFile>,
}

/// The versions that a query asks for, by table; a table that is not named is read in its newest version.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    by_table: BTreeMap<DatasetName, u64>,
    /// For the one table that a query reads.
    single: Option<u64>,
}

impl Lake {
    pub async fn open(context: &Context) -> Result<Self> {
        Self::of(context.existing_store()?).await
    }

    pub async fn of(objects: FolderStore) -> Result<Self> {
        let settings = control::load_settings(&objects).await?;
        let stores = control::load_stores(&objects).await?;
        let datasets = control::load_datasets(&objects).await?;
        Ok(Self { objects, settings, stores, datasets, spill: OnceLock::new() })
    }

    /// The named dataset; the error names those there are.
    pub fn dataset(&self, name: &DatasetName) -> Result<&DatasetDefinition> {
        self.datasets.iter().find(|dataset| dataset.name == *name).ok_or_else(|| {
            let names: Vec<&str> = self.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
            Error::config(format!("--dataset: must be one of {}, got {name}", names.join(", ")))
                .with_hint("ribera dataset list")
        })
    }

    /// The store's definition; the error says how to see those there are.
    pub fn store(&self, id: &StoreId) -> Result<&StoreDefinition> {
        self.stores.iter().find(|store| store.id == *id).ok_or_else(|| {
            Error::config(format!("--store: must be a declared store, got {id}")).with_hint("ribera store list")
        })
    }

    pub fn table<'a>(&'a self, name: &DatasetName) -> Table<'a, FolderStore> {
        Table::new(&self.objects, name.clone())
    }

    /// A dataset's table in the version that was asked for, with all facts; `None` when it was never written.
    pub async fn snapshot(&self, dataset: &DatasetName, versions: &Versions) -> Result<Option<Snapshot>> {
        let mut snapshot = self.snapshot_without_facts(dataset, versions).await?;
        if let Some(snapshot) = &mut snapshot {
            self.table(dataset).load_facts(snapshot, None, None).await?;
        }
        Ok(snapshot)
    }

    async fn snapshot_without_facts(&self, dataset: &DatasetName, versions: &Versions) -> Result<Option<Snapshot>> {
        let table = self.table(dataset);
        match versions.of(dataset) {
            Some(version) => table.load_at(version).await.map(Some),
            None => table.load().await,
        }
    }

    pub fn zones(&self) -> StoreZones {
        let mut zones = StoreZones::default();
        for store in &self.stores {
            zones.add(store.id.clone(), &store.time_zone);
        }
        zones
    }

    /// The tables of every dataset that `is_wanted`, with the files whose log record cannot be trusted. Facts that
    /// files keep in objects of their own are read for those datasets of which they are needed.
    pub async fn tables_of(
        &self,
        is_wanted: impl Fn(&DatasetDefinition) -> bool,
        needs_facts: impl Fn(&DatasetDefinition) -> bool,
        versions: &Versions,
    ) -> Result<BTreeMap<DatasetName, DatasetTable>> {
        let mut tables = BTreeMap::new();
        for dataset in self.datasets.iter().filter(|dataset| is_wanted(dataset)) {
            let snapshot = match needs_facts(dataset) {
                true => self.snapshot(&dataset.name, versions).await?,
                false => self.snapshot_without_facts(&dataset.name, versions).await?,
            };
            let doubtful = snapshot.iter().flat_map(|snapshot| doubtful_files(snapshot, dataset)).collect();
            tables.insert(dataset.name.clone(), DatasetTable { snapshot, doubtful });
        }
        Ok(tables)
    }

    /// The folder of the object store, absolute.
    pub fn root(&self) -> Result<PathBuf> {
        Ok(std::path::absolute(self.objects.root())?)
    }

    /// A DuckDB that may open lake files only.
    pub fn engine_options(&self) -> Result<EngineOptions> {
        let mut options = EngineOptions::new(vec![self.root()?.join("lake")]);
        options.spill_folder = Some(self.spill_folder()?);
        Ok(options)
    }

    /// Where DuckDB puts what exceeds its memory: rows of the lake, which are for this user only.
    fn spill_folder(&self) -> Result<PathBuf> {
        if let Some(folder) = self.spill.get() {
            return Ok(folder.0.clone());
        }
        let folder = PrivateFolder::new(&std::env::temp_dir())?;
        Ok(self.spill.get_or_init(|| folder).0.clone())
    }

    /// The lake's folder with the clock and the randomness of this machine.
    pub fn ports(&self) -> Ports<'_, FolderStore> {
        Ports { objects: &self.objects, clock: &SystemClock, random: &SystemRandom }
    }
}

impl PrivateFolder {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("ribera-{}", SystemRandom.fresh_name()));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // Fails where something has that name already.
        builder.create(&path).map_err(|error| {
            Error::config(format!("TMPDIR: must be a folder that can be written, got {}", parent.display()))
                .with_source(error)
                .with_hint("TMPDIR=/var/tmp ribera ...")
        })?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // What is left is the system's to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Versions {
    /// From `--version` texts, each `N` or `TABLE=N`.
    pub fn parse(texts: &[String]) -> Result<Self> {
        let mut versions = Self::default();
        for text in texts {
            let bad = || Error::config(format!("--version: must be N or TABLE=N, got {text:?}"));
            match text.split_once('=') {
                Some((table, number)) => {
                    let number = number.parse().map_err(|_| bad())?;
                    versions.by_table.insert(table.parse().map_err(|_| bad())?, number);
                }
                None => versions.single = Some(text.parse().map_err(|_| bad())?),
            }
        }
        Ok(versions)
    }

    /// Gives the bare `N` to the one table that is read; an error when there are several.
    pub fn settle(&mut self, tables: &[DatasetName]) -> Result<()> {
        let Some(version) = self.single.take() else { return Ok(()) };
        match tables {
            [table] => drop(self.by_table.insert(table.clone(), version)),
            tables => {
                let names: Vec<String> = tables.iter().map(|table| format!("{table}={version}")).collect();
                return Err(Error::config(format!(
                    "--version: must name its table as TABLE=N when the query does not read exactly one, got {version}"
                ))
                .with_hint(format!("--version {}", names.first().map_or("ventas=1", String::as_str))));
            }
        }
        Ok(())
    }

    pub fn of(&self, table: &DatasetName) -> Option<u64> {
        self.by_table.get(table).copied()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn spilled_rows_are_for_this_user_only_and_gone_at_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let folders = [PrivateFolder::new(parent.path()).unwrap(), PrivateFolder::new(parent.path()).unwrap()];
        assert_ne!(folders[0].0, folders[1].0);
        assert!(!folders[0].0.display().to_string().contains(&format!("-{}", std::process::id())));
        assert_eq!(std::fs::metadata(&folders[0].0).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(folders[0].0.join("spilled"), "rows").unwrap();
        drop(folders);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
