//! Which record comes first: NAPTR by order and preference, SRV by priority and weight. Pure.

use sip_message::Transport;

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) host: String,
}

/// One NAPTR record, as far as SIP uses it (RFC 3263 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) order: u16,
    pub(super) preference: u16,
    pub(super) flags: Vec<u8>,
    pub(super) services: Vec<u8>,
    pub(super) replacement: String,
}

/// Puts `services` in the order of trying: rising priority; within one, drawn by weight.
///
/// This is the drawing of RFC 2782: records of weight 0 first, then take the first whose running
/// sum reaches a random number between 0 and the sum of all.
pub(super) fn order_services(mut services: Vec<Service>, random: u64) -> Vec<Service> {
    let mut random = Random(random);
    services.sort_by_key(|service| (service.priority, service.weight > 0));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(priority) = services.first().map(|first| first.priority) {
        let group = services.iter().take_while(|service| service.priority == priority);
        let total: u64 = group.map(|service| u64::from(service.weight)).sum();
        let drawn = random.up_to(total);
        let mut sum = 0;
        let found = services.iter().position(|service| {
            sum += u64::from(service.weight);
            sum >= drawn
        });
        ordered.push(services.remove(found.unwrap_or_default()));
    }
    ordered
}

/// The pointer to follow and the transport it stands for: the first whose transport we have.
pub(super) fn choose_pointer(
    mut pointers: Vec<Pointer>,
    supported: &[Transport],
    secure: bool,
) -> Option<(Transport, Pointer)> {
    pointers.sort_by_key(|pointer| (pointer.order, pointer.preference));
    pointers.into_iter().find_map(|pointer| {
        let transport = transport_of(&pointer)?;
        let is_usable = supported.contains(&transport) && (!secure || transport == Transport::Tls);
        is_usable.then_some((transport, pointer))
    })
}

fn transport_of(pointer: &Pointer) -> Option<Transport> {
    // "s": the replacement is a name with SRV records; nothing else is defined for SIP.
    if !pointer.flags.eq_ignore_ascii_case(b"s") {
        return None;
    }
    let known = [
        (&b"SIP+D2U"[..], Transport::Udp),
        (b"SIP+D2T", Transport::Tcp),
        (b"SIPS+D2T", Transport::Tls),
    ];
    let named = known.into_iter().find(|(name, _)| pointer.services.eq_ignore_ascii_case(name))?;
    Some(named.1)
}

/// The SplitMix64 sequence of a seed.
struct Random(u64);

impl Random {
    /// A number of `0..=last`. The error of the remainder is below 2⁻⁴⁰ for sums of weights.
    fn up_to(&mut self, last: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % (last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, host: &str) -> Service {
        Service { priority, weight, port: 5060, host: host.to_owned() }
    }

    fn hosts(services: Vec<Service>, random: u64) -> String {
        order_services(services, random).into_iter().map(|service| service.host).collect()
    }

    #[test]
    fn lower_priority_comes_first_whatever_the_weight() {
        for random in 0..100 {
            let services = vec![service(20, 60_000, "c"), service(0, 0, "a"), service(10, 1, "b")];
            assert_eq!(hosts(services, random), "abc", "random {random}");
        }
    }

    /// Goal: shares follow the weights (RFC 2782). Method: 10,000 drawings of weights 0, 1 and 3.
    #[test]
    fn first_places_follow_the_weights() {
        let mut first = [0_u32; 3];
        for random in 0..10_000_u64 {
            let services = vec![service(0, 3, "c"), service(0, 1, "b"), service(0, 0, "a")];
            let order = hosts(services, random.wrapping_mul(0x5851_f42d_4c95_7f2d));
            let place = "abc".find(order.get(..1).expect("three hosts")).expect("one of them");
            *first.get_mut(place).expect("one of three") += 1;
        }
        // Of the numbers 0 to 4 the record of weight 0 gets one, as the RFC has it.
        let [a, b, c] = first;
        assert!((1_800..2_200).contains(&a), "{first:?}");
        assert!((1_800..2_200).contains(&b), "{first:?}");
        assert!((5_700..6_300).contains(&c), "{first:?}");
    }

    #[test]
    fn same_random_gives_the_same_order() {
        let services: Vec<_> = ["a", "b", "c", "d"].map(|host| service(1, 10, host)).into();
        assert_eq!(hosts(services.clone(), 7), hosts(services, 7));
    }

    #[test]
    fn pointer_is_the_first_that_we_can_follow() {
        let pointer = |order, preference, flags: &str, services: &str| Pointer {
            order,
            preference,
            flags: flags.into(),
            services: services.into(),
            replacement: format!("{order}.{preference}"),
        };
        let pointers = vec![
            pointer(50, 50, "s", "SIPS+D2T"),
            pointer(90, 60, "S", "sip+d2u"),
            pointer(90, 50, "s", "SIP+D2T"),
            pointer(10, 10, "u", "SIP+D2U"),
            pointer(10, 20, "s", "E2U+sip"),
        ];
        let (udp, tcp, tls) = (Transport::Udp, Transport::Tcp, Transport::Tls);
        let table: [(&str, &[Transport], bool, Option<&str>); 5] = [
            ("no tls here", &[udp, tcp], false, Some("90.50")),
            ("udp alone", &[udp], false, Some("90.60")),
            ("tls is the most wanted", &[udp, tcp, tls], false, Some("50.50")),
            ("sips takes nothing else", &[udp, tcp], true, None),
            ("sips over tls", &[udp, tls], true, Some("50.50")),
        ];
        for (name, supported, secure, expected) in table {
            let chosen = choose_pointer(pointers.clone(), supported, secure);
            let chosen = chosen.map(|(_, pointer)| pointer.replacement);
            assert_eq!(chosen.as_deref(), expected, "{name}");
        }
    }
}
