//! Where requests go first, and where next (RFC 3263 §4.3): given addresses in turn, or a name that
//! is looked up again and again. What was found dead is avoided for a while.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sip_message::Transport;
use sip_net::clock;
use sip_net::poll::{Events, Poller};
use sip_net::resolve::{Resolution, ResolveRequest, Resolver, ResolverOptions, Target};

/// How long a destination that did not answer is the last choice.
const AVOID: Duration = Duration::from_secs(10);

/// A name is looked up this often; the answers' TTL decides when a name server is asked again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// Orders drawn at each look-up: calls take them in turn, so that the weights of SRV records show.
const ORDERS: u64 = 16;

/// How long the first look-up may take.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(10);

/// A service that is found by its name (RFC 3263).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    /// With a port no SRV records are asked for.
    pub port: Option<u16>,
    /// Whom to ask; empty: the system's name servers.
    pub name_servers: Vec<SocketAddr>,
}

/// The destinations of one run.
pub(crate) struct Destinations {
    /// Each an order in which to try them.
    orders: Vec<Vec<SocketAddr>>,
    /// Until when each is avoided.
    avoided: HashMap<SocketAddr, Instant>,
    lookup: Option<Lookup>,
    pub(crate) transport: Transport,
}

struct Lookup {
    resolver: Resolver,
    request: ResolveRequest,
    /// Tickets count up; the last [`ORDERS`] belong to one round.
    next_ticket: u64,
    next_at: Instant,
}

impl Destinations {
    /// Addresses to be used in turn; UDP if nothing is said.
    pub(crate) fn fixed(addresses: &[SocketAddr], transport: Option<Transport>) -> Self {
        let rotated = |first| {
            let mut order = addresses.to_vec();
            order.rotate_left(first);
            order
        };
        Self {
            orders: (0..addresses.len()).map(rotated).collect(),
            avoided: HashMap::new(),
            lookup: None,
            transport: transport.unwrap_or(Transport::Udp),
        }
    }

    /// A name; the first look-up is waited for. Without a transport NAPTR records choose it.
    ///
    /// # Errors
    ///
    /// The name leads nowhere, or no name server answers.
    pub(crate) fn named(service: &Service, transport: Option<Transport>) -> io::Result<Self> {
        let options = ResolverOptions {
            name_servers: service.name_servers.clone(),
            ..ResolverOptions::default()
        };
        let poller = Poller::new()?;
        let resolver = Resolver::start(options, poller.waker())?;
        let request = ResolveRequest {
            host: service.name.clone(),
            port: service.port,
            transport,
            secure: false,
        };
        let now = clock::now();
        let lookup = Lookup { resolver, request, next_ticket: 0, next_at: now };
        let mut named = Self {
            orders: Vec::new(),
            avoided: HashMap::new(),
            lookup: Some(lookup),
            transport: transport.unwrap_or(Transport::Udp),
        };
        named.look_up(now);
        let mut events = Events::with_capacity(1);
        let deadline = now + LOOK_UP_PATIENCE;
        let mut why = "no name server answered in time".to_owned();
        while named.orders.is_empty() && clock::now() < deadline {
            poller.wait(Some(Duration::from_millis(50)), &mut events)?;
            while let Some(Resolution { result, .. }) = named.poll_completion() {
                match result {
                    // The record that comes first has chosen the transport (RFC 3263 §4.1).
                    Ok(targets) if named.orders.is_empty() => {
                        named.transport =
                            targets.first().map_or(named.transport, |it| it.transport);
                        named.take(&targets);
                    }
                    Ok(targets) => named.take(&targets),
                    Err(error) => why = error.to_string(),
                }
            }
        }
        if named.orders.is_empty() {
            let message = format!("failed to find {}: {why}", service.name);
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(named)
    }

    /// The destination to try for the `turn`th of its kind, those in `tried` left out. One that is
    /// avoided comes last.
    pub(crate) fn choose(
        &self,
        now: Instant,
        turn: usize,
        tried: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let order = self.orders.get(turn.checked_rem(self.orders.len())?)?;
        let mut left = order.iter().filter(|it| !tried.contains(it));
        let alive = left.clone().find(|it| !self.is_avoided(now, **it));
        alive.or_else(|| left.next()).copied()
    }

    /// Whether `address` is one of them: its neighbours can stand in for it.
    pub(crate) fn includes(&self, address: SocketAddr) -> bool {
        self.orders.first().is_some_and(|order| order.contains(&address))
    }

    pub(crate) fn is_avoided(&self, now: Instant, address: SocketAddr) -> bool {
        self.avoided.get(&address).is_some_and(|until| now < *until)
    }

    /// Nobody answers there.
    pub(crate) fn avoid(&mut self, now: Instant, address: SocketAddr) {
        self.avoid_for(now, address, AVOID);
    }

    /// It asked to be left alone (Retry-After of a 503).
    pub(crate) fn avoid_for(&mut self, now: Instant, address: SocketAddr, time: Duration) {
        if self.includes(address) {
            self.avoided.insert(address, now + time);
        }
    }

    /// Somebody answers there.
    pub(crate) fn answers(&mut self, address: SocketAddr) {
        if !self.avoided.is_empty() {
            self.avoided.remove(&address);
        }
    }

    /// Looks the name up again if it is time, and takes what was found.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        if self.lookup.as_ref().is_some_and(|lookup| lookup.next_at <= now) {
            self.look_up(now);
        }
        // A name server that is away costs nothing: the last orders stay.
        while let Some(Resolution { result, .. }) = self.poll_completion() {
            if let Ok(targets) = result {
                self.take(&targets);
            }
        }
    }

    fn look_up(&mut self, now: Instant) {
        let Some(lookup) = &mut self.lookup else {
            return;
        };
        lookup.next_at = now + LOOK_UP_EVERY;
        for _ in 0..ORDERS {
            let ticket = lookup.next_ticket;
            lookup.next_ticket += 1;
            // Too many under way: those will do.
            let _ = lookup.resolver.submit(ticket, lookup.request.clone(), spread(ticket));
        }
    }

    fn poll_completion(&mut self) -> Option<Resolution> {
        self.lookup.as_mut()?.resolver.poll_completion()
    }

    /// A new order takes the place of the oldest.
    fn take(&mut self, targets: &[Target]) {
        let of_transport = targets.iter().filter(|it| it.transport == self.transport);
        let order: Vec<SocketAddr> = of_transport.map(|it| it.address).collect();
        if order.is_empty() {
            return;
        }
        if self.orders.len() >= ORDERS as usize {
            self.orders.remove(0);
        }
        self.orders.push(order);
    }
}

/// Numbers without a visible order: the finaliser of SplitMix64.
fn spread(number: u64) -> u64 {
    let mut mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 84, 0, last], 5_060))
    }

    #[test]
    fn turns_begin_at_each_and_go_round() {
        let all = Destinations::fixed(&[address(1), address(2), address(3)], None);
        let now = clock::now();
        let first: Vec<_> = (0..4).filter_map(|turn| all.choose(now, turn, &[])).collect();
        assert_eq!(first, [1, 2, 3, 1].map(address));
        assert_eq!(all.choose(now, 1, &[address(2)]), Some(address(3)));
        assert_eq!(all.choose(now, 1, &[address(2), address(3)]), Some(address(1)));
        assert_eq!(all.choose(now, 1, &[1, 2, 3].map(address)), None);
        assert_eq!(Destinations::fixed(&[], None).choose(now, 0, &[]), None);
    }

    #[test]
    fn the_dead_are_the_last_choice_until_they_answer_or_time_has_passed() {
        let mut both = Destinations::fixed(&[address(1), address(2)], None);
        let now = clock::now();
        both.avoid(now, address(1));
        both.avoid(now, address(9));
        assert!(both.is_avoided(now, address(1)) && !both.is_avoided(now, address(9)));
        assert_eq!(both.choose(now, 0, &[]), Some(address(2)));
        assert_eq!(both.choose(now, 0, &[address(2)]), Some(address(1)), "better than nobody");
        assert_eq!(both.choose(now + AVOID, 0, &[]), Some(address(1)));
        both.answers(address(1));
        assert_eq!(both.choose(now, 0, &[]), Some(address(1)));
    }
}
