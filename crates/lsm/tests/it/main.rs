//! The manager against a cloud in memory and nodes that only pretend, on virtual time.

mod adoption;
mod follows_load;
mod paper_figure_5;
mod service;
mod troubles;
mod world;
