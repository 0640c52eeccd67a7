//! Batches by the contract, as tests and benchmarks make them without an agent.

use ribera_storage::batch::{AgentFacts, CONTRACT_VERSION, FileFacts, Manifest, UnitFacts};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::ids::{BatchId, Month};
use ribera_storage::{Result, paths};
use sha2::{Digest, Sha256};

/// The manifest of a whole `replace` batch with `file` as its data. Month and moment of extraction
/// are those of its first unit.
pub fn replace_manifest(
    dataset: &DatasetDefinition,
    batch: BatchId,
    units: Vec<UnitFacts>,
    file: &[u8],
) -> Result<Manifest> {
    let sha256: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    let month = units.first().and_then(|facts| facts.unit.date()).map(Month::of);
    let extracted_at = units.first().map(|facts| facts.extracted_at).unwrap_or_default();
    Ok(Manifest {
        contract: CONTRACT_VERSION,
        dataset_version: dataset.version,
        month,
        file: FileFacts {
            path: paths::landing(&batch, month, &sha256)?.to_string(),
            bytes: file.len() as u64,
            sha256,
            rows: units.iter().map(|facts| facts.file.rows).sum(),
        },
        agent: AgentFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            journal_id: format!("test-{}", batch.store),
            extraction_started_at: extracted_at,
            extraction_finished_at: extracted_at,
        },
        batch,
        units,
    })
}
