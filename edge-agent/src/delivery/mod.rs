//! What goes to the object store, and what comes back from it. Reads no source.

mod acks;
mod differing;
mod epochs;
pub mod heartbeat;
mod retries;
mod upload;
