//! What the embedded DNS server knows: the records of the service names, and the answer to one query.
//!
//! Pure: a zone and a turn go in, records come out. `dns_embedded` owns the sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA, NAPTR, NS, SOA, SRV};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use provider::{DnsTarget, Zone};

/// Seconds a secondary waits before it asks again; of interest to no resolver.
const REFRESH_S: i32 = 3_600;
const RETRY_S: i32 = 600;
const EXPIRE_S: i32 = 86_400;
/// Transports in the order in which clients should try them, with their NAPTR service.
const TRANSPORTS: [(&str, &[u8]); 2] = [("_udp", b"SIP+D2U"), ("_tcp", b"SIP+D2T")];

/// Every record that is served, per service name. Replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    zones: Vec<ServiceZone>,
}

#[derive(Clone, Debug)]
struct ServiceZone {
    apex: Name,
    soa: Record,
    sets: BTreeMap<(LowerName, RecordType), Vec<Record>>,
    /// Names that exist, with or without records of the type that was asked for.
    names: BTreeSet<LowerName>,
}

/// The answer to one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Records of the name and type, equal ones in turn; addresses of their targets beside them.
    Found { answers: Vec<Record>, additionals: Vec<Record> },
    /// The name exists, the type does not (RFC 2308 §2.2).
    NoData { soa: Record },
    /// The name does not exist (RFC 2308 §2.1).
    NoName { soa: Record },
    /// Not one of the service names or a name below one.
    NotOurs,
}

impl Records {
    /// The records of `zone`. `server` is where this very server answers; `serial` must grow.
    ///
    /// # Errors
    ///
    /// A service name or host name that is none.
    pub(crate) fn new(zone: &Zone, server: SocketAddr, serial: u32) -> Result<Self, ProtoError> {
        let zones = zone
            .service_names
            .iter()
            .map(|name| ServiceZone::new(name, zone, server, serial))
            .collect::<Result<_, _>>()?;
        Ok(Self { zones })
    }

    /// Answers a query. `turn` counts queries: equal records begin with another one each time.
    pub(crate) fn lookup(&self, name: &LowerName, kind: RecordType, turn: usize) -> Lookup {
        let ours = self.zones.iter().filter(|zone| zone.apex.zone_of(name));
        // Of two service names, one below the other, the longer one answers.
        match ours.max_by_key(|zone| zone.apex.num_labels()) {
            Some(zone) => zone.lookup(name, kind, turn),
            None => Lookup::NotOurs,
        }
    }
}

impl ServiceZone {
    fn new(domain: &str, zone: &Zone, server: SocketAddr, serial: u32) -> Result<Self, ProtoError> {
        let mut apex = Name::from_ascii(domain)?;
        apex.set_fqdn(true);
        let ttl = u32::try_from(zone.ttl.as_secs()).unwrap_or(u32::MAX);
        let host = apex.prepend_label("ns")?;
        let mail = apex.prepend_label("hostmaster")?;
        let soa = SOA::new(host.clone(), mail, serial, REFRESH_S, RETRY_S, EXPIRE_S, ttl);
        let soa = Record::from_rdata(apex.clone(), ttl, RData::SOA(soa));
        let mut this = Self {
            apex: apex.clone(),
            soa: soa.clone(),
            sets: BTreeMap::new(),
            names: BTreeSet::new(),
        };
        this.add(soa);
        this.add(Record::from_rdata(apex.clone(), ttl, RData::NS(NS(host.clone()))));
        this.add(Record::from_rdata(host, ttl, address(server.ip())));
        this.add_services(ttl)?;
        for balancer in &zone.balancers {
            this.add_balancer(balancer, ttl)?;
        }
        Ok(this)
    }

    /// The NAPTR records of the apex (RFC 3263 §4.1), and the names that they lead to.
    fn add_services(&mut self, ttl: u32) -> Result<(), ProtoError> {
        for (order, (transport, service)) in (1_u16..).zip(TRANSPORTS) {
            let name = self.service(transport)?;
            self.add_name(&name);
            let naptr = NAPTR::new(
                order * 10,
                50,
                Box::from(&b"s"[..]),
                Box::from(service),
                Box::from(&b""[..]),
                name,
            );
            self.add(Record::from_rdata(self.apex.clone(), ttl, RData::NAPTR(naptr)));
        }
        Ok(())
    }

    fn service(&self, transport: &str) -> Result<Name, ProtoError> {
        self.apex.prepend_label(transport)?.prepend_label("_sip")
    }

    fn add_balancer(&mut self, balancer: &DnsTarget, ttl: u32) -> Result<(), ProtoError> {
        let host = self.apex.prepend_label(balancer.name.as_str())?;
        let address = address(balancer.address);
        self.add(Record::from_rdata(host.clone(), ttl, address.clone()));
        for (transport, _) in TRANSPORTS {
            let srv = SRV::new(balancer.priority, balancer.weight, balancer.port, host.clone());
            self.add(Record::from_rdata(self.service(transport)?, ttl, RData::SRV(srv)));
        }
        // Clients that know addresses only take the standard port; others would be misled.
        if balancer.port == SIP_PORT {
            self.add(Record::from_rdata(self.apex.clone(), ttl, address));
        }
        Ok(())
    }

    fn add(&mut self, record: Record) {
        self.add_name(&record.name.clone());
        let key = (LowerName::from(&record.name), record.record_type());
        self.sets.entry(key).or_default().push(record);
    }

    /// A name and the names between it and the apex exist, even without records (RFC 8020).
    fn add_name(&mut self, name: &Name) {
        let mut name = name.clone();
        while name.num_labels() >= self.apex.num_labels() {
            self.names.insert(LowerName::from(&name));
            name = name.base_name();
        }
    }

    fn lookup(&self, name: &LowerName, kind: RecordType, turn: usize) -> Lookup {
        let found = match kind {
            // Any one set will do (RFC 8482 §4.1).
            RecordType::ANY => self.sets.iter().find(|((owner, _), _)| owner == name),
            _ => self.sets.get_key_value(&(name.clone(), kind)),
        };
        match found {
            Some((_, set)) => {
                let answers = in_turn(set, turn);
                let additionals = self.addresses_of_targets(&answers);
                Lookup::Found { answers, additionals }
            }
            None if self.names.contains(name) => Lookup::NoData { soa: self.soa.clone() },
            None => Lookup::NoName { soa: self.soa.clone() },
        }
    }

    /// Saves the client a query per target (RFC 2782).
    fn addresses_of_targets(&self, answers: &[Record]) -> Vec<Record> {
        let targets = answers.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(LowerName::from(&srv.target)),
            RData::NS(ns) => Some(LowerName::from(&ns.0)),
            _ => None,
        });
        let kinds = [RecordType::A, RecordType::AAAA];
        targets
            .flat_map(|name| kinds.map(|kind| (name.clone(), kind)))
            .filter_map(|key| self.sets.get(&key))
            .flatten()
            .cloned()
            .collect()
    }
}

const SIP_PORT: u16 = 5060;

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn in_turn(set: &[Record], turn: usize) -> Vec<Record> {
    let first = turn.checked_rem(set.len()).unwrap_or(0);
    let (head, tail) = set.split_at(first);
    tail.iter().chain(head).cloned().collect()
}

#[cfg(test)]
mod tests;
