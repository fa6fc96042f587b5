//! RFC 3263: from a URI to the addresses to try, in order. Numeric hosts are answered at once;
//! names are looked up on a thread of their own and come back as completions.

mod lookup;
mod order;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sip_message::{Scheme, Transport, Uri};
use tokio::sync::mpsc;

use crate::background::Background;
use crate::poll::Waker;
use crate::resolve::lookup::Lookup;

/// Where to send, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub transport: Transport,
}

/// What of a URI decides where its request goes (RFC 3263 §4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolveRequest {
    /// A name, or a numeric address (IPv6 with or without brackets).
    pub host: String,
    pub port: Option<u16>,
    /// What the URI's `transport` parameter asks for.
    pub transport: Option<Transport>,
    /// A `sips` URI: nothing but TLS.
    pub secure: bool,
}

impl ResolveRequest {
    /// The request for `uri`; `maddr` stands for the host if it is there.
    ///
    /// # Errors
    ///
    /// The scheme is not SIP's, the transport is unknown, or the host is not ASCII.
    pub fn of(uri: &Uri<'_>) -> Result<Self, ResolveError> {
        let secure = match uri.scheme() {
            Scheme::Sip => false,
            Scheme::Sips => true,
            _ => return Err(ResolveError::NotSip),
        };
        let transport = match uri.param(b"transport").flatten() {
            Some(text) => Some(Transport::from_bytes(text).ok_or(ResolveError::NoTransport)?),
            None => None,
        };
        let host = uri.param(b"maddr").flatten().unwrap_or_else(|| uri.host());
        let host = std::str::from_utf8(host).map_err(|_| ResolveError::BadName)?;
        Ok(Self { host: host.to_owned(), port: uri.port(), transport, secure })
    }

    /// The answer if the host is numeric: no name server is asked.
    pub fn literal(&self) -> Option<Result<Target, ResolveError>> {
        let ip = sip_message::parse_ip(self.host.as_bytes())?;
        Some(self.direct(ip, self.chosen_transport()))
    }

    fn direct(
        &self,
        ip: IpAddr,
        transport: Result<Transport, ResolveError>,
    ) -> Result<Target, ResolveError> {
        let transport = transport?;
        let port = self.port.unwrap_or_else(|| default_port(transport));
        Ok(Target { address: SocketAddr::new(ip, port), transport })
    }

    /// The transport where no record of the DNS chooses it (RFC 3263 §4.1): UDP, or what the
    /// URI says; over TLS if it is a `sips` URI.
    fn chosen_transport(&self) -> Result<Transport, ResolveError> {
        match (self.secure, self.transport) {
            (false, transport) => Ok(transport.unwrap_or(Transport::Udp)),
            (true, None | Some(Transport::Tcp | Transport::Tls)) => Ok(Transport::Tls),
            (true, Some(Transport::Ws | Transport::Wss)) => Ok(Transport::Wss),
            (true, Some(Transport::Udp)) => Err(ResolveError::NoTransport),
        }
    }
}

/// The target of a URI with a numeric host, as most are inside the tier; `None` for names and for
/// what is not a SIP URI.
pub fn literal(uri: &Uri<'_>) -> Option<Target> {
    ResolveRequest::of(uri).ok()?.literal()?.ok()
}

/// The port of a transport whose URI or Via names none (RFC 3261 §18.1.1, RFC 7118 §5).
pub fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
        Transport::Ws => 80,
        Transport::Wss => 443,
    }
}

/// Why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("the uri is not a sip uri")]
    NotSip,
    #[error("the host is not a name")]
    BadName,
    #[error("no transport that both sides have")]
    NoTransport,
    #[error("the name has no address")]
    NotFound,
    #[error("the domain does not offer the service")]
    NotOffered,
    #[error("no name server answered in time")]
    Unavailable,
    #[error("too many names are being looked up")]
    Overloaded,
}

impl ResolveError {
    /// Whether asking again later may help.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Overloaded)
    }
}

/// Which addresses a name may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    /// IPv6 first.
    Both,
}

/// How names are looked up.
#[derive(Clone, Debug)]
pub struct ResolverOptions {
    /// Whom to ask; empty: the system's name servers (`/etc/resolv.conf`).
    pub name_servers: Vec<SocketAddr>,
    /// What we can send over, the preferred first.
    pub transports: Vec<Transport>,
    pub families: Families,
    /// Whether NAPTR records choose the transport, where they exist (RFC 3263 §4.1).
    pub naptr: bool,
    /// How long one name server may take.
    pub query_timeout: Duration,
    /// Repetitions of a query that was not answered.
    pub retries: usize,
    /// How long a whole request may take, with all its queries.
    pub deadline: Duration,
    /// Answers kept, each for its TTL; the least used go first.
    pub cache_entries: u64,
    /// The longest that an answer is kept, whatever its TTL.
    pub ttl_max: Duration,
    /// Requests not yet completed and fetched; beyond, `submit` refuses.
    pub in_flight_max: usize,
}

impl Default for ResolverOptions {
    fn default() -> Self {
        Self {
            name_servers: Vec::new(),
            transports: vec![Transport::Udp, Transport::Tcp],
            families: Families::V4,
            naptr: true,
            query_timeout: Duration::from_secs(2),
            retries: 1,
            deadline: Duration::from_secs(5),
            cache_entries: 4_096,
            ttl_max: Duration::from_secs(3_600),
            in_flight_max: 1_024,
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// What the request was submitted with.
    pub ticket: u64,
    /// Targets in the order in which to try them (RFC 3263 §4.3); at least one.
    pub result: Result<Vec<Target>, ResolveError>,
}

/// Looks names up without ever making its owner wait.
#[derive(Debug)]
pub struct Resolver {
    completed: mpsc::UnboundedReceiver<Resolution>,
    completions: mpsc::UnboundedSender<Resolution>,
    in_flight: Arc<AtomicUsize>,
    in_flight_max: usize,
    deadline: Duration,
    lookup: Arc<Lookup>,
    waker: Waker,
    background: Background,
}

impl Resolver {
    /// Starts the thread; `waker` is called when [`poll_completion`](Self::poll_completion) has
    /// something.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left. Missing name servers are not an error here:
    /// every name is then `Unavailable`, numeric hosts work.
    pub fn start(options: ResolverOptions, waker: Waker) -> io::Result<Self> {
        let background = Background::start("sip-resolve")?;
        let (completions, completed) = mpsc::unbounded_channel();
        let (in_flight_max, deadline) = (options.in_flight_max, options.deadline);
        let lookup = {
            let _inside = background.handle().enter();
            Arc::new(Lookup::new(options)?)
        };
        let in_flight = Arc::new(AtomicUsize::new(0));
        Ok(Self {
            completed,
            completions,
            in_flight,
            in_flight_max,
            deadline,
            lookup,
            waker,
            background,
        })
    }

    /// Asks for the targets of `request`; they come as a [`Resolution`] with `ticket`.
    ///
    /// `random` orders SRV records of one priority (RFC 2782); any number, a new one each time.
    ///
    /// # Errors
    ///
    /// [`ResolveError::Overloaded`]: nothing was asked and no completion will come.
    pub fn submit(
        &self,
        ticket: u64,
        request: ResolveRequest,
        random: u64,
    ) -> Result<(), ResolveError> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.in_flight_max {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(ResolveError::Overloaded);
        }
        let (lookup, waker) = (Arc::clone(&self.lookup), self.waker.clone());
        let (completions, deadline) = (self.completions.clone(), self.deadline);
        self.background.handle().spawn(async move {
            let result = tokio::time::timeout(deadline, lookup.targets(&request, random)).await;
            let result = result.unwrap_or(Err(ResolveError::Unavailable));
            if completions.send(Resolution { ticket, result }).is_ok() {
                waker.wake();
            }
        });
        Ok(())
    }

    /// The next answer, if any. After a wake call it until `None`.
    pub fn poll_completion(&mut self) -> Option<Resolution> {
        let resolution = self.completed.try_recv().ok()?;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        Some(resolution)
    }

    /// Forgets every answer: what the DNS says now counts.
    pub fn clear_cache(&self) {
        self.lookup.clear_cache();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str) -> Result<ResolveRequest, ResolveError> {
        ResolveRequest::of(&Uri::parse(uri.as_bytes()).expect("a uri"))
    }

    /// RFC 3263 §4.1 and §4.2 for numeric hosts.
    #[test]
    fn numeric_hosts_need_no_name_server() {
        let table = [
            ("sip:a@127.45.0.1", Some("127.45.0.1:5060 UDP")),
            ("sip:a@127.45.0.1:5080", Some("127.45.0.1:5080 UDP")),
            ("sip:a@127.45.0.1;transport=tcp", Some("127.45.0.1:5060 TCP")),
            ("sip:a@127.45.0.1;transport=TLS", Some("127.45.0.1:5061 TLS")),
            ("sips:a@127.45.0.1", Some("127.45.0.1:5061 TLS")),
            ("sips:a@127.45.0.1;transport=tcp", Some("127.45.0.1:5061 TLS")),
            ("sips:a@127.45.0.1;transport=udp", None),
            ("sip:a@127.45.0.1;transport=sctp", None),
            ("sip:a@[2001:db8::1]:5070", Some("[2001:db8::1]:5070 UDP")),
            ("sip:a@example.com;maddr=127.45.0.9", Some("127.45.0.9:5060 UDP")),
            ("sip:a@example.com", None),
            ("tel:+1234", None),
        ];
        for (text, expected) in table {
            let found = literal(&Uri::parse(text.as_bytes()).expect("a uri"));
            let found = found.map(|it| format!("{} {}", it.address, it.transport.as_str()));
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn requests_that_no_lookup_could_answer_are_refused() {
        assert_eq!(request("tel:+1234"), Err(ResolveError::NotSip));
        assert_eq!(request("sip:a@b;transport=sctp"), Err(ResolveError::NoTransport));
        assert!(ResolveError::Unavailable.is_transient() && !ResolveError::NotFound.is_transient());
    }
}
