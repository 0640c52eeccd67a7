//! Which companies a chain's servers hold, and the configuration of an agent that reads them.
//!
//! [`ask`] reads master tables; [`company`] decides, from their rows alone, which company is read
//! where; [`stores`] compares that with the stores already configured; [`file`] writes the file.

pub mod ask;
pub mod company;
pub mod file;
pub mod stores;
