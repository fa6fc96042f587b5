//! The transaction layer from outside: scripts for those who know SIP, random orders for the rest.

mod any_order;
mod scripts;
mod text;
