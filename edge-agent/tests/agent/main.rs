//! The agent on real SQLite files, real MariaDB, PostgreSQL, Firebird and S3 servers, SQL Server's
//! protocol, on virtual time, with failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adapters;
mod agreement;
mod alarm;
mod between;
mod check;
mod cli;
mod clocks;
mod complaints;
mod crash;
mod cycle;
mod databases;
mod differing;
mod discover;
mod each;
mod firebird;
mod firebird_server;
mod firebird_types;
mod fixture;
mod journal;
mod kinds;
mod lake;
mod line;
mod logs;
mod mariadb;
mod mariadb_server;
mod matrix;
mod old_servers;
mod postgres;
mod postgres_server;
mod procedures;
mod s3_agent;
mod s3_check;
mod s3_server;
mod s3_store;
mod servers;
mod spool;
mod sqlbridge;
mod sqlserver;
mod sqlserver_tls;
mod sqlserver_types;
mod tds;
mod tds_responder;
mod uplink;
mod watermark;
