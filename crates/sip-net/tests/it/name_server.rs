//! A name server for one test: answers from a list of records, remembers what it was asked.

use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_proto::rr::{Name, RData, Record};

/// Runs until it is dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    pub(crate) fn start(ip: &str, records: Vec<Record>) -> Self {
        let socket = UdpSocket::bind((ip, 0)).expect("a loopback address");
        let address = socket.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok((length, source)) = socket.recv_from(&mut buffer) {
                let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
                    return;
                };
                let query = Message::from_vec(bytes).expect("a dns message");
                let (text, answer) = answer(query, &records);
                remembered.lock().expect("not poisoned").push(text);
                let bytes = answer.to_vec().expect("bytes");
                socket.send_to(&bytes, source).expect("sent");
            }
        });
        Self { address, asked, thread: Some(thread) }
    }

    /// "TYPE name." of every query so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram ends the thread.
        let socket = UdpSocket::bind((self.address.ip(), 0)).expect("a loopback address");
        socket.send_to(&[], self.address).expect("sent");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the name server did not panic");
        }
    }
}

fn answer(query: Message, records: &[Record]) -> (String, Message) {
    let question = query.queries.first().expect("one question").clone();
    let name = Name::from_str(&question.name().to_ascii().to_lowercase()).expect("a name");
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    let of_name: Vec<_> = records.iter().filter(|record| record.name == name).collect();
    if of_name.is_empty() {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    let of_type = of_name.into_iter().filter(|it| it.record_type() == question.query_type());
    answer.add_answers(of_type.cloned());
    let text = format!("{} {name}", question.query_type());
    answer.add_query(question);
    (text, answer)
}

pub(crate) fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

pub(crate) fn a(owner: &str, ip: &str) -> Record {
    let ip = ip.parse().expect("an address");
    Record::from_rdata(name(owner), 300, RData::A(A(ip)))
}

pub(crate) fn aaaa(owner: &str, ip: &str) -> Record {
    let ip = ip.parse().expect("an address");
    Record::from_rdata(name(owner), 300, RData::AAAA(AAAA(ip)))
}

pub(crate) fn srv(owner: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let data = SRV::new(priority, weight, port, name(target));
    Record::from_rdata(name(owner), 300, RData::SRV(data))
}

pub(crate) fn naptr(owner: &str, order: u16, services: &str, replacement: &str) -> Record {
    let (flags, services) = (Box::from(*b"s"), services.as_bytes().into());
    let data = NAPTR::new(order, 10, flags, services, Box::default(), name(replacement));
    Record::from_rdata(name(owner), 300, RData::NAPTR(data))
}
