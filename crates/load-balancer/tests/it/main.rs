//! The running balancer between a client and a proxy of the tests, on loopback addresses of their
//! own.

mod bed;
mod control;
mod members;
mod streams;
mod udp;
