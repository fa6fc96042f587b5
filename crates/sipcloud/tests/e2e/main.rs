//! The whole cloud as clients and operators see it: the binary on a loopback network of each test's
//! own, phones and load that call through it, machines that come, go and are killed.

mod balancers;
mod call;
mod cloud;
mod detection;
mod dns;
mod drill;
mod evaluate;
mod load;
mod manager;
mod phone;
mod registration;
mod scale;
mod sip;
mod torture;
mod upgrade;
