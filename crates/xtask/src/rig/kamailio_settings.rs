//! What every Kamailio under measurement has: one UDP worker per socket and core, no TCP, no logs, no names
//! to look up. The balancer's bench shares this file.

/// The beginning of its configuration.
pub(crate) fn common(workers: usize, listen: &str) -> String {
    format!(
        "#!KAMAILIO
debug=-3
log_stderror=yes
fork=yes
children={workers}
disable_tcp=yes
auto_aliases=no
dns=off
rev_dns=off
listen=udp:{listen}
"
    )
}
