//! The embedded authoritative DNS server: leads clients to the live balancers.
//!
//! Owns the UDP and the TCP listener; what is answered is decided in `dns_zone`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, LowerName, Record};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use provider::{DnsProvider, ProviderError, Zone};
use tokio::net::{TcpListener, UdpSocket};

use crate::dns_zone::{Lookup, Records};

/// An idle TCP client is let go after this long.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait for one slow TCP client.
const TCP_ANSWERS_WAITING_MAX: usize = 32;
/// The largest UDP answer, whatever the client says it can take: no fragments.
const UDP_ANSWER_BYTES_MAX: u16 = 1_232;

/// The running server. Dropping it closes the listeners.
pub struct EmbeddedDns {
    shared: Arc<Shared>,
    address: SocketAddr,
    serial: AtomicU32,
    server: Server<Handler>,
}

#[derive(Default)]
struct Shared {
    zone: RwLock<Option<Zone>>,
    records: RwLock<Arc<Records>>,
    turn: AtomicUsize,
}

struct Handler(Arc<Shared>);

impl EmbeddedDns {
    /// Opens the listeners on `listen` (UDP and TCP); until the first zone comes it refuses
    /// every query. `first_serial` begins the count of zones: UNIX seconds do, because a serial
    /// must not fall when the server starts again.
    ///
    /// # Errors
    ///
    /// The address is in use or not of this machine.
    pub async fn start(listen: SocketAddr, first_serial: u32) -> io::Result<Self> {
        let udp = UdpSocket::bind(listen).await?;
        let address = udp.local_addr()?;
        let tcp = TcpListener::bind(address).await?;
        let shared = Arc::new(Shared::default());
        let mut server = Server::new(Handler(Arc::clone(&shared)));
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS_WAITING_MAX);
        Ok(Self { shared, address, serial: AtomicU32::new(first_serial), server })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listeners and waits for the last answer.
    pub async fn stop(mut self) {
        if let Err(error) = self.server.shutdown_gracefully().await {
            tracing::debug!(%error, "the embedded DNS server ended with an error");
        }
    }
}

#[async_trait]
impl DnsProvider for EmbeddedDns {
    async fn publish(&self, zone: &Zone) -> Result<(), ProviderError> {
        let mut published = self.shared.zone.write();
        if published.as_ref() == Some(zone) {
            return Ok(());
        }
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let records = Records::new(zone, self.address, serial)
            .map_err(|error| ProviderError::Refused { why: error.to_string() })?;
        *self.shared.records.write() = Arc::new(records);
        *published = Some(zone.clone());
        Ok(())
    }

    async fn published(&self) -> Result<Option<Zone>, ProviderError> {
        Ok(self.shared.zone.read().clone())
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let answer = self.answer(request);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        let mut edns = Edns::new();
        if let Some(asked) = &request.edns {
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_ANSWER_BYTES_MAX));
            builder.edns(&edns);
        }
        let response = builder.build(
            answer.metadata,
            &answer.answers,
            &[] as &[Record],
            answer.soa.as_ref(),
            &answer.additionals,
        );
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "a DNS answer was not sent");
                let counts = HeaderCounts::default();
                Header { metadata: answer.metadata, counts }.into()
            }
        }
    }
}

struct Answer {
    metadata: Metadata,
    answers: Vec<Record>,
    soa: Option<Record>,
    additionals: Vec<Record>,
}

impl Handler {
    fn answer(&self, request: &Request) -> Answer {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.message_type = MessageType::Response;
        let mut answer =
            Answer { metadata, answers: Vec::new(), soa: None, additionals: Vec::new() };
        if request.metadata.op_code != OpCode::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer;
        }
        let Ok(info) = request.request_info() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        let class = info.query.query_class();
        let lookup = match class {
            DNSClass::IN | DNSClass::ANY => {
                let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
                let records = Arc::clone(&self.0.records.read());
                let name: &LowerName = info.query.name();
                records.lookup(name, info.query.query_type(), turn)
            }
            _ => Lookup::NotOurs,
        };
        answer.metadata.authoritative = lookup != Lookup::NotOurs;
        match lookup {
            Lookup::Found { answers, additionals } => {
                answer.answers = answers;
                answer.additionals = additionals;
            }
            Lookup::NoData { soa } => answer.soa = Some(soa),
            Lookup::NoName { soa } => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.soa = Some(soa);
            }
            Lookup::NotOurs => answer.metadata.response_code = ResponseCode::Refused,
        }
        answer
    }
}

#[cfg(test)]
mod tests;
