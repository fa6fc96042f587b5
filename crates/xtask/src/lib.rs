//! The developer tools that tests use as well.
//!
//! # Where it sits
//!
//! Beside the house: nothing of the product depends on it.
//!
//! # Invariants
//!
//! - It knows the element under test only by its address.
//!
//! # Reading order
//!
//! `torture`; the other tools belong to the binary alone.

pub mod torture;
