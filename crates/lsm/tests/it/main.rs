//! The manager against a cloud in memory and nodes that only pretend, on virtual time.

mod adoption;
mod every_step;
mod follows_load;
mod http_fleet;
mod service;
mod troubles;
mod world;
