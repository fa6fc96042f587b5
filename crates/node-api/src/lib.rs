//! How manager, nodes and tools talk: JSON over HTTP, with a token on everything.
//!
//! It takes the place of the XML-RPC interface by which the paper's manager polled its servers.
//!
//! # Where it sits
//!
//! Floor 3. The roles implement [`NodeHandle`] or [`ManagerHandle`] and serve it; the manager and
//! the command line are the clients.
//!
//! # Invariants
//!
//! - Only the types of [`wire`] cross a process boundary.
//! - No request is answered without the token, not even whether a path exists.
//! - Every request has a deadline and every body a limit.
//! - Tokens and keys never reach a log: `Debug` of a [`wire::Secret`] shows nothing.
//!
//! # Reading order
//!
//! `wire` (what is said) → `server` (who is asked) → `client` (who asks).

pub mod client;
pub mod process;
pub mod server;
pub mod text;
pub mod wire;

pub use client::{ClientError, ManagerClient, NodeClient};
pub use server::{ManagerHandle, NodeHandle, OrderError, Server, serve, serve_manager};
