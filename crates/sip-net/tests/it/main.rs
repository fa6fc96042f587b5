//! Real loopback sockets, each test on addresses of its own; every wait has a deadline.

mod name_server;
mod resolver;
mod streams;
