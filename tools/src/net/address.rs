//! Which addresses belong to the public internet, and which lead into somebody's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To a host of the public internet.
    Public,
    /// To this machine, or to a network behind it: loopback, private, shared (CGNAT) and unique-local addresses.
    Internal,
    /// To nothing that a request from outside has business with: link-local (cloud metadata), multicast, unspecified,
    /// broadcast, reserved, documentation and benchmark addresses.
    Special,
}

/// Ranges of IPv4 that are not public, by what they are.
const V4: &[(Ipv4Net, Reach)] = &[
    (v4([0, 0, 0, 0], 8), Reach::Special),
    (v4([10, 0, 0, 0], 8), Reach::Internal),
    (v4([100, 64, 0, 0], 10), Reach::Internal),
    (v4([127, 0, 0, 0], 8), Reach::Internal),
    (v4([169, 254, 0, 0], 16), Reach::Special),
    (v4([172, 16, 0, 0], 12), Reach::Internal),
    (v4([192, 0, 0, 0], 24), Reach::Special),
    (v4([192, 0, 2, 0], 24), Reach::Special),
    // Relays of 6to4: what is sent there goes on to an address inside the packet.
    (v4([192, 88, 99, 0], 24), Reach::Special),
    (v4([192, 168, 0, 0], 16), Reach::Internal),
    (v4([198, 18, 0, 0], 15), Reach::Special),
    (v4([198, 51, 100, 0], 24), Reach::Special),
    (v4([203, 0, 113, 0], 24), Reach::Special),
    (v4([224, 0, 0, 0], 4), Reach::Special),
    (v4([240, 0, 0, 0], 4), Reach::Special),
];

/// Ranges of IPv6 within the global unicast block (2000::/3) that are not public.
const V6: &[(Ipv6Net, Reach)] = &[
    // Teredo, ORCHID and other special purposes.
    (v6([0x2001, 0], 23), Reach::Special),
    (v6([0x2001, 0xdb8], 32), Reach::Special),
    (v6([0x3fff, 0], 20), Reach::Special),
];

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), prefix)
}

const fn v6(head: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], 0, 0, 0, 0, 0, 0), prefix)
}

/// Where `address` leads. An IPv6 address that hides an IPv4 one (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) leads
/// where that one leads, and is never public when it is not.
pub fn classify(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

/// The address that packets really go to: of an IPv4-mapped address the IPv4 one.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether `nets` names the address, in its own form or in the form it is reached by.
pub(super) fn within(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address) || net.contains(&canonical(address)))
}

fn classify_v4(address: Ipv4Addr) -> Reach {
    V4.iter().find(|(net, _)| net.contains(&address)).map_or(Reach::Public, |(_, reach)| *reach)
}

fn classify_v6(address: Ipv6Addr) -> Reach {
    if address.is_loopback() {
        return Reach::Internal;
    }
    if address.is_unspecified() {
        return Reach::Special;
    }
    let segments = address.segments();
    match segments {
        // Mapped, and "compatible" (deprecated, but some systems still route it).
        [0, 0, 0, 0, 0, 0xffff, high, low] => return classify_v4(joined(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] => return never_public(classify_v4(joined(high, low))),
        // NAT64: the well-known prefix translates to any IPv4 address, so that one decides.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return classify_v4(joined(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => return classify_v4(joined(high, low)),
        _ => {}
    }
    if address.is_unique_local() {
        return Reach::Internal;
    }
    if let Some((_, reach)) = V6.iter().find(|(net, _)| net.contains(&address)) {
        return *reach;
    }
    // ISATAP: the interface id is ::0:5efe:a.b.c.d or ::200:5efe:a.b.c.d.
    if let [.., 0 | 0x200, 0x5efe, high, low] = segments {
        return classify_v4(joined(high, low));
    }
    // Only 2000::/3 is given out; the rest is link-local, multicast, discard-only, local NAT64 or reserved.
    if segments[0] & 0xe000 == 0x2000 { Reach::Public } else { Reach::Special }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

fn never_public(reach: Reach) -> Reach {
    if reach == Reach::Public { Reach::Special } else { reach }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reach(address: &str) -> Reach {
        classify(address.parse().unwrap())
    }

    #[test]
    fn known_addresses_are_told_apart() {
        for public in
            ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "223.255.255.1"]
        {
            assert_eq!(reach(public), Reach::Public, "{public}");
        }
        for public in ["2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"] {
            assert_eq!(reach(public), Reach::Public, "{public}");
        }
        for internal in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "172.31.255.255", "100.64.0.1", "::1"] {
            assert_eq!(reach(internal), Reach::Internal, "{internal}");
        }
        for hidden in
            ["::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2a00::5efe:10.0.0.1", "fd00::1"]
        {
            assert_eq!(reach(hidden), Reach::Internal, "{hidden}");
        }
        for special in
            ["169.254.169.254", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1"]
        {
            assert_eq!(reach(special), Reach::Special, "{special}");
        }
        for special in ["198.18.0.1", "198.51.100.1", "203.0.113.1", "192.0.0.8", "::", "fe80::1", "fec0::1", "ff02::1"]
        {
            assert_eq!(reach(special), Reach::Special, "{special}");
        }
        for special in ["2001:db8::1", "2001:0:7f00:1::", "3fff::1", "100::1", "64:ff9b:1::1", "::ffff:169.254.169.254"]
        {
            assert_eq!(reach(special), Reach::Special, "{special}");
        }
        assert_eq!(reach("::8.8.8.8"), Reach::Special, "a compatible address is never public");
    }

    proptest! {
        /// No way of writing an IPv4 address inside an IPv6 one makes it more public.
        #[test]
        fn hiding_never_helps(bits: u32, rest in any::<[u16; 4]>()) {
            let plain = Ipv4Addr::from(bits);
            let (high, low) = ((bits >> 16) as u16, bits as u16);
            let hidden = [
                plain.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, rest[0], rest[1], rest[2], rest[3], 1),
                Ipv6Addr::new(0x2001, 0, rest[0], rest[1], rest[2], rest[3], !high, !low),
                Ipv6Addr::new(0x2600, rest[1], rest[2], rest[3], 0x200, 0x5efe, high, low),
            ];
            if classify(plain.into()) != Reach::Public {
                for address in hidden {
                    prop_assert_ne!(classify(address.into()), Reach::Public, "{}", address);
                }
            }
        }

        /// Agrees with what the standard library knows.
        #[test]
        fn agrees_with_the_standard_library(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let known = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_broadcast()
                || address.is_documentation() || address.is_multicast() || address.is_unspecified();
            prop_assert!(!known || classify(address.into()) != Reach::Public);
        }

        #[test]
        fn only_global_unicast_is_public(bits: u128) {
            let address = Ipv6Addr::from(bits);
            let translated = address.to_ipv4_mapped().is_some() || address.segments()[0] == 0x64;
            prop_assert!(translated || address.segments()[0] & 0xe000 == 0x2000 || classify(address.into()) != Reach::Public);
        }
    }
}
