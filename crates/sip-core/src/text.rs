//! Small pieces of text, written without the formatting machinery: this is the balancer's path.

use std::net::{IpAddr, SocketAddr};

/// Writes a decimal number.
pub(crate) fn push_number(number: u64, out: &mut Vec<u8>) {
    // The longest number of 64 bits has 20 digits.
    let mut digits = [0; 20];
    let mut left = number;
    let mut length = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
        length += 1;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - length..).unwrap_or_default());
}

/// Writes `ip:port` as sent-by and hostport want it; IPv6 in brackets.
pub(crate) fn push_address(address: SocketAddr, out: &mut Vec<u8>) {
    push_ip(address.ip(), out);
    out.push(b':');
    push_number(u64::from(address.port()), out);
}

/// Writes an address as a host; IPv6 in brackets.
pub(crate) fn push_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            push_number(u64::from(a), out);
            for octet in [b, c, d] {
                out.push(b'.');
                push_number(u64::from(octet), out);
            }
        }
        IpAddr::V6(ip) => {
            use std::io::Write as _;
            // Writing to a `Vec` does not fail.
            let _ = write!(out, "[{ip}]");
        }
    }
}

/// Writes an address as `received` wants it: IPv6 without brackets.
pub(crate) fn push_received(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(_) => push_ip(ip, out),
        IpAddr::V6(ip) => {
            use std::io::Write as _;
            // Writing to a `Vec` does not fail.
            let _ = write!(out, "{ip}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_the_standard_library_writes_them() {
        for text in ["127.0.10.1:5060", "255.0.1.10:1", "[2001:db8::1]:65535", "0.0.0.0:0"] {
            let mut out = Vec::new();
            push_address(text.parse().expect("an address"), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
