//! Merges whatever a lake has to merge, as `ribera maintain` does, in a process that does nothing else.

use std::path::PathBuf;
use std::time::Instant;

use ribera_storage::delta::{MergeOptions, Table, merge_plan};
use ribera_storage::object::FolderStore;
use ribera_storage::ports::{Host, Random};
use ribera_storage::{Error, Result};
use serde_json::{Value, json};

use crate::correction::{cpu_seconds, status_bytes};
use crate::generate;
use crate::options::Options;
use crate::ports::{SplitMix, WallClock};

/// `--folder=F`: its table of the generated dataset. `--units=N`: another bound on the units of a merge.
pub fn measure(options: &Options) -> Result<Value> {
    let bounds = MergeOptions::default();
    let bounds = MergeOptions { group_units_max: options.get("units", bounds.group_units_max)?, ..bounds };
    let random = SplitMix::fresh();
    let objects = FolderStore::open(PathBuf::from(options.required("folder")?), random.fresh_name())?.without_sync();
    let host = Host::new(objects, WallClock, random);
    let dataset = generate::dataset()?;
    let lake = Table::new(&host.objects, dataset.name.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.map_err(|error| Error::bug("no runtime").with_source(error))?.block_on(async {
        let (started, cpu_s) = (Instant::now(), cpu_seconds()?);
        let mut snapshot = lake.load().await?.ok_or_else(|| Error::data("no table"))?;
        let (files_before, rss_bytes) = (snapshot.file_count(), status_bytes("VmRSS:")?);
        let groups = merge_plan(&snapshot, jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date(), &bounds);
        let (mut rows, mut units) = (0, 0);
        for group in &groups {
            let merged = lake.merge(host.ports(), &dataset, group).await?;
            if !merged.committed || !merged.left_alone.is_empty() {
                return Err(Error::data(format!("{merged:?}")));
            }
            (rows, units) = (rows + merged.rows, units + merged.units);
        }
        let (seconds, cpu_s, peak) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu_s, status_bytes("VmHWM:")?);
        lake.refresh(&mut snapshot).await?;
        Ok(json!({
            "groups": groups.len(), "rows": rows, "units": units, "seconds": seconds, "cpu_s": cpu_s,
            "rows_per_cpu_s": rows as f64 / cpu_s, "files_before": files_before, "files_after": snapshot.file_count(),
            "file_bytes": snapshot.files().map(|file| file.size).collect::<Vec<_>>(),
            "rss_of_snapshot_bytes": rss_bytes, "rss_peak_bytes": peak,
        }))
    })
}
