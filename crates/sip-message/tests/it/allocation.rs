//! The call path asks for no memory.

#[path = "../../benches/support/call_path.rs"]
mod call_path;

use call_path::{INVITE, read};
use sip_message::{Edits, HeaderName, Index};
use testkit::{Allocations, allocations};

/// Method: count this thread's allocations around parsing and the fields that a balancer reads.
#[test]
fn balancer_reads_an_invite_without_allocating() {
    assert_eq!(INVITE.len(), 600);
    let mut index = Index::new();
    let before = allocations();
    let read = read(INVITE, &mut index);
    assert_eq!(allocations().since(before), Allocations::default());
    assert!(read.is_some());
}

/// Method: the first round may grow the scratch, the second must not.
#[test]
fn reused_edits_do_not_allocate() {
    let mut index = Index::new();
    let message = sip_message::parse(INVITE, &mut index, sip_message::Framing::Datagram).unwrap();
    let mut edits = Edits::new();
    let mut out = Vec::new();
    let mut round = || {
        edits.clear();
        out.clear();
        edits.insert(message.headers_start(), b"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n");
        edits.remove_first(&message, HeaderName::ROUTE, 1);
        edits.insert(message.top_via().unwrap().end(), b";received=192.0.2.10");
        edits.apply(message.bytes(), &mut out);
    };
    round();
    let before = allocations();
    round();
    assert_eq!(allocations().since(before), Allocations::default());
}
