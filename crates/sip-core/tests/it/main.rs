//! The rooms together: a call through balancer and proxy, and messages that somebody damaged.

mod call;
mod damage;
mod owners;
mod world;
