//! The Cassandra node as this machine's kernel sees it: its CPU, and the bytes of its clients.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use node_api::process::usage_of;

/// Where Cassandra serves its clients.
const CQL_PORT: u16 = 9042;

/// Totals of the node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) received_bytes: Option<u64>,
    pub(super) sent_bytes: Option<u64>,
}

pub(super) struct StoreNode {
    address: SocketAddr,
    pid: Option<u32>,
    /// Bytes received and sent, by the connection's other end: what was last seen of it.
    connections: HashMap<String, (u64, u64)>,
    received: u64,
    sent: u64,
}

impl StoreNode {
    /// The node at a contact point, if that is an address of this machine.
    pub(super) fn at(contact_point: &str) -> Option<Self> {
        let with_port: Option<SocketAddr> = contact_point.parse().ok();
        let alone = || contact_point.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, CQL_PORT));
        let address = with_port.or_else(alone)?;
        let pid = listener(address);
        Some(Self { address, pid, connections: HashMap::new(), received: 0, sent: 0 })
    }

    pub(super) fn totals(&mut self) -> Totals {
        let traffic = self.traffic();
        Totals {
            cpu_seconds: self.pid.and_then(usage_of).map(|usage| usage.cpu_seconds),
            received_bytes: traffic.map(|()| self.received),
            sent_bytes: traffic.map(|()| self.sent),
        }
    }

    /// Adds what the open connections have moved since; one that closed in between is missed.
    fn traffic(&mut self) -> Option<()> {
        let filter = ["-tniHO", "src", &self.address.to_string()];
        let output = Command::new("ss").args(filter).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let now: HashMap<String, (u64, u64)> = text.lines().filter_map(connection).collect();
        for (peer, (received, sent)) in &now {
            let (had_received, had_sent) = self.connections.get(peer).copied().unwrap_or_default();
            self.received += received.saturating_sub(had_received);
            self.sent += sent.saturating_sub(had_sent);
        }
        self.connections = now;
        Some(())
    }
}

/// The other end and the bytes of one connection, out of a line of `ss`.
fn connection(line: &str) -> Option<(String, (u64, u64))> {
    let peer = line.split_ascii_whitespace().nth(4)?.to_owned();
    let value = |name: &str| -> u64 {
        let found = line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
        found.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Some((peer, (value("bytes_received:"), value("bytes_sent:"))))
}

/// The process that listens at an address.
fn listener(address: SocketAddr) -> Option<u32> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().find_map(|line| listening_inode(line, ip, address.port()))
    })?;
    let wanted = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| {
            fs::read_link(file.path()).is_ok_and(|link| link.to_string_lossy() == wanted)
        })
    };
    let entries = fs::read_dir("/proc").ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(holds)
}

/// Of a row of `/proc/net/tcp` or `tcp6`, if it listens there (proc(5): state 0A).
fn listening_inode(line: &str, ip: Ipv4Addr, port: u16) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    // An IPv4 address in an IPv6 socket is its last eight digits.
    let wanted = format!("{:08X}:{port:04X}", u32::from_le_bytes(ip.octets()));
    if !(state == "0A" && local.ends_with(&wanted)) {
        return None;
    }
    fields.nth(5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_address() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("an address");
        assert_eq!(listener(address), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(address), None);
    }

    #[test]
    fn a_line_of_ss_is_read() {
        let line = "ESTAB 0 0 127.0.40.1:9042 127.0.0.1:40000 cubic wscale:7,7 bytes_sent:12 \
                    bytes_acked:12 bytes_received:34 segs_out:3";
        assert_eq!(connection(line), Some(("127.0.0.1:40000".to_owned(), (34, 12))));
    }
}
