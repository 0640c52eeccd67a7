//! The simulation: stores, lines, object storage, function hosts and their failures in one
//! thread and virtual time, over the real core, storage and agent code.
//!
//! | module | holds |
//! |---|---|
//! | [`kernel`] | virtual clock, seeded order, tasks that die at a step |
//! | [`cloud`] | the object store, faulty for each program in its own way |
//! | [`disk`] | a store PC's disk that forgets what was not synced |
//! | [`pos`] | the stores' databases: the truth, with its past |
//! | [`host`] | function hosts, schedules, events |
//! | [`lake`] | the model: every log entry replayed and held against the invariants |
//! | [`checker`] | coverage and rows against the truth |
//! | [`reader`] | answers to queries while batches are committed, against the truth |
//! | [`hostile`] | a store that writes any bytes below its own prefixes |
//! | [`guard`] | what may be called complete of that store |
//! | [`foreign`] | another program that writes checkpoints |
//! | [`twin`] | the same world with and without the hostile store |

pub mod checker;
pub mod cloud;
pub mod disk;
pub mod foreign;
pub mod guard;
pub mod host;
pub mod hostile;
pub mod kernel;
pub mod lake;
pub mod machine;
pub mod nature;
pub mod pos;
pub mod reader;
pub mod rows;
pub mod run;
pub mod source;
pub mod tally;
pub mod twin;
pub mod world;
