//! The procedure of RFC 3263 §4 over the records that name servers give.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use sip_message::Transport;
use tokio::task::JoinSet;

use crate::limits::{SRV_RECORDS_MAX, TARGETS_MAX};
use crate::resolve::order::{self, Pointer, Service};
use crate::resolve::{
    Families, ResolveError, ResolveRequest, ResolverOptions, Target, default_port,
};

/// The queries that one name server may have open at once.
const QUERIES_PER_SERVER_MAX: usize = 256;

/// Name servers, their cache, and what we can send over.
#[derive(Debug)]
pub(super) struct Lookup {
    resolver: TokioResolver,
    options: ResolverOptions,
}

impl Lookup {
    /// Call it inside a runtime.
    pub(super) fn new(options: ResolverOptions) -> io::Result<Self> {
        let (config, mut tuning) = match options.name_servers.as_slice() {
            [] => system_conf::read_system_conf().unwrap_or_else(|error| {
                tracing::warn!(%error, "no name servers: only numeric addresses can be reached");
                (ResolverConfig::from_name_servers(Vec::new()), ResolverOpts::default())
            }),
            servers => {
                let servers = servers.iter().copied().map(name_server).collect();
                (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
            }
        };
        tuning.timeout = options.query_timeout;
        tuning.attempts = options.retries;
        tuning.cache_size = options.cache_entries;
        tuning.positive_max_ttl = Some(options.ttl_max);
        tuning.negative_max_ttl = Some(options.ttl_max);
        tuning.max_active_requests = QUERIES_PER_SERVER_MAX;
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = tuning;
        let resolver = builder.build().map_err(io::Error::other)?;
        Ok(Self { resolver, options })
    }

    pub(super) fn clear_cache(&self) {
        self.resolver.clear_cache();
    }

    /// The targets of `request`, in the order of trying; never an empty list.
    pub(super) async fn targets(
        &self,
        request: &ResolveRequest,
        random: u64,
    ) -> Result<Vec<Target>, ResolveError> {
        if let Some(literal) = request.literal() {
            let target = literal?;
            return self.supported(target.transport).map(|_| vec![target]);
        }
        let host = request.host.trim_end_matches('.');
        if host.is_empty() {
            return Err(ResolveError::BadName);
        }
        let is_fixed = request.port.is_some();
        if !is_fixed && let Some((transport, services)) = self.services(request, host).await? {
            return self.targets_of_services(services, transport, random).await;
        }
        // An explicit port, or no SRV record anywhere (RFC 3263 §4.2).
        let transport = self.supported(request.chosen_transport()?)?;
        let port = request.port.unwrap_or_else(|| default_port(transport));
        let addresses = self.addresses(host).await?;
        finish(
            addresses
                .into_iter()
                .map(|ip| Target { address: SocketAddr::new(ip, port), transport }),
        )
    }

    /// The SRV records of `host` and the transport that they are for (RFC 3263 §4.1); `None` if it
    /// has none.
    async fn services(
        &self,
        request: &ResolveRequest,
        host: &str,
    ) -> Result<Option<(Transport, Vec<Service>)>, ResolveError> {
        if request.transport.is_some() {
            let transport = self.supported(request.chosen_transport()?)?;
            let services = match service_name(transport, host) {
                Some(name) => self.services_at(&name).await?,
                None => Vec::new(),
            };
            return Ok((!services.is_empty()).then_some((transport, services)));
        }
        if self.options.naptr
            && let Some((transport, pointer)) = order::choose_pointer(
                self.pointers(host).await,
                &self.options.transports,
                request.secure,
            )
        {
            let services = self.services_at(&pointer.replacement).await?;
            return Ok((!services.is_empty()).then_some((transport, services)));
        }
        for &transport in &self.options.transports {
            if request.secure && transport != Transport::Tls {
                continue;
            }
            let Some(name) = service_name(transport, host) else { continue };
            let services = self.services_at(&name).await?;
            if !services.is_empty() {
                return Ok(Some((transport, services)));
            }
        }
        Ok(None)
    }

    /// The addresses behind SRV records, looked up side by side, in the records' order.
    async fn targets_of_services(
        &self,
        services: Vec<Service>,
        transport: Transport,
        random: u64,
    ) -> Result<Vec<Target>, ResolveError> {
        // A record that names the root says: not here (RFC 2782).
        if services.iter().all(|service| matches!(service.host.as_str(), "" | ".")) {
            return Err(ResolveError::NotOffered);
        }
        let mut services = order::order_services(services, random);
        services.truncate(SRV_RECORDS_MAX);
        let mut lookups = JoinSet::new();
        for (place, service) in services.into_iter().enumerate() {
            let (resolver, families) = (self.resolver.clone(), self.options.families);
            lookups.spawn(async move {
                let addresses = addresses(&resolver, families, &service.host).await;
                (place, service.port, addresses)
            });
        }
        let mut found = lookups.join_all().await;
        found.sort_by_key(|&(place, ..)| place);
        let last_error =
            found.iter().find_map(|(_, _, addresses)| addresses.as_ref().err().copied());
        let targets = found.into_iter().flat_map(|(_, port, addresses)| {
            let addresses = addresses.unwrap_or_default().into_iter();
            addresses.map(move |ip| Target { address: SocketAddr::new(ip, port), transport })
        });
        finish(targets).map_err(|error| last_error.unwrap_or(error))
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        addresses(&self.resolver, self.options.families, host).await
    }

    async fn services_at(&self, name: &str) -> Result<Vec<Service>, ResolveError> {
        let records = query(&self.resolver, name, RecordType::SRV).await?;
        let services = records.into_iter().filter_map(|data| match data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                host: srv.target.to_ascii(),
            }),
            _ => None,
        });
        Ok(services.collect())
    }

    /// NAPTR is a refinement: a server that cannot answer for it has none.
    async fn pointers(&self, host: &str) -> Vec<Pointer> {
        let records = query(&self.resolver, host, RecordType::NAPTR).await.unwrap_or_default();
        let pointers = records.into_iter().filter_map(|data| match data {
            RData::NAPTR(naptr) => Some(Pointer {
                order: naptr.order,
                preference: naptr.preference,
                flags: naptr.flags.into(),
                services: naptr.services.into(),
                replacement: naptr.replacement.to_ascii(),
            }),
            _ => None,
        });
        pointers.collect()
    }

    fn supported(&self, transport: Transport) -> Result<Transport, ResolveError> {
        let is_supported = self.options.transports.contains(&transport);
        is_supported.then_some(transport).ok_or(ResolveError::NoTransport)
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// Where the SRV records of a transport stand; WebSocket has none (RFC 7118 §5).
fn service_name(transport: Transport, host: &str) -> Option<String> {
    match transport {
        Transport::Udp => Some(format!("_sip._udp.{host}")),
        Transport::Tcp => Some(format!("_sip._tcp.{host}")),
        Transport::Tls => Some(format!("_sips._tcp.{host}")),
        Transport::Ws | Transport::Wss => None,
    }
}

async fn addresses(
    resolver: &TokioResolver,
    families: Families,
    host: &str,
) -> Result<Vec<IpAddr>, ResolveError> {
    let kinds: &[RecordType] = match families {
        Families::V4 => &[RecordType::A],
        Families::V6 => &[RecordType::AAAA],
        Families::Both => &[RecordType::AAAA, RecordType::A],
    };
    let mut found = Vec::new();
    let mut failure = None;
    for &kind in kinds {
        match query(resolver, host, kind).await {
            Ok(records) => found.extend(records.into_iter().filter_map(|data| match data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            })),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// The records at `name`; none is an empty list, not an error.
async fn query(
    resolver: &TokioResolver,
    name: &str,
    kind: RecordType,
) -> Result<Vec<RData>, ResolveError> {
    let mut name = Name::from_ascii(name).map_err(|_| ResolveError::BadName)?;
    // The names of SIP are complete: the system's search list is not for them.
    name.set_fqdn(true);
    match resolver.lookup(name, kind).await {
        Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => {
            tracing::debug!(%error, ?kind, "failed to look up a name");
            Err(match error {
                NetError::Busy => ResolveError::Overloaded,
                _ => ResolveError::Unavailable,
            })
        }
    }
}

fn finish(targets: impl Iterator<Item = Target>) -> Result<Vec<Target>, ResolveError> {
    let mut unique: Vec<Target> = Vec::new();
    for target in targets {
        if unique.len() < TARGETS_MAX && !unique.contains(&target) {
            unique.push(target);
        }
    }
    if unique.is_empty() { Err(ResolveError::NotFound) } else { Ok(unique) }
}
