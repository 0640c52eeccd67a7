//! A new journal in place of a damaged one: what the spool still names is extracted again.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use ribera_storage::batch::UnitFacts;
use ribera_storage::object::PutBody;
use ribera_storage::{DatasetName, Error, Result, StoreId};

use crate::journal::Journal;
use crate::ports::SpoolDisk;

/// Moves the journal aside and says where to, if there is one.
pub fn set_aside(journal: &Path, now: jiff::Timestamp) -> Result<Option<PathBuf>> {
    if !journal.exists() {
        return Ok(None);
    }
    let aside = journal.with_extension(format!("damaged-{}", now.strftime("%Y%m%dT%H%M%S")));
    std::fs::rename(journal, &aside)
        .map_err(|error| Error::config(format!("journal {}: cannot be moved", journal.display())).with_source(error))?;
    // SQLite's own rollback file belongs to the old journal.
    let hot = PathBuf::from(format!("{}-journal", journal.display()));
    match std::fs::remove_file(&hot) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::config(format!("{}: cannot be deleted", hot.display())).with_source(error))
        }
        _ => Ok(Some(aside)),
    }
}

/// Notes the units of every batch file in the spool as lost, so that the next cycle extracts them
/// again, however old they are. Returns how many.
pub fn note_spooled_units(journal: &Journal, disk: &dyn SpoolDisk) -> Result<usize> {
    let mut noted = 0;
    for (name, _) in disk.list()? {
        // A file that cannot be read says nothing; its days are found by their fingerprints.
        let Some((store, dataset, version, units)) = disk.body(&name).ok().and_then(footer) else { continue };
        journal.note_lost_units(&store, &dataset, version, &units)?;
        noted += units.len();
    }
    Ok(noted)
}

/// Store, dataset, its version and the units of a batch file.
type Footer = (StoreId, DatasetName, u32, Vec<UnitFacts>);

fn footer(body: PutBody) -> Option<Footer> {
    let metadata = match body {
        PutBody::File { path, .. } => SerializedFileReader::new(File::open(path).ok()?).ok()?.metadata().clone(),
        PutBody::Bytes(bytes) => SerializedFileReader::new(bytes).ok()?.metadata().clone(),
    };
    let facts = metadata.file_metadata().key_value_metadata()?;
    let value = |wanted: &str| facts.iter().find(|one| one.key == wanted)?.value.as_deref();
    Some((
        value("ribera.store")?.parse().ok()?,
        value("ribera.dataset")?.parse().ok()?,
        value("ribera.dataset_version")?.parse().ok()?,
        serde_json::from_str(value("ribera.units")?).ok()?,
    ))
}
