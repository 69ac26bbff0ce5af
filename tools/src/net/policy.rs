//! What may be reached: hosts by name, and addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use url::{Host, Url};

use super::address::{Reach, classify, within};
use super::{NetError, shown};

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of `host`, best first.
    ///
    /// # Errors
    /// When the name is not known, or the name server does not answer.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// One host, or all below a domain, at one port or at any: `api.example.com`, `*.example.com`, `example.com:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    host: String,
    below: bool,
    port: Option<u16>,
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`NetError::Setting`] when it is not a host name, an address, or `*.` and a domain, with or without a port.
    pub fn parse(text: &str) -> Result<Self, NetError> {
        let refuse = || {
            NetError::Setting(format!(
                "{text:?} is not a host: give a name such as api.example.com, all below a domain as *.example.com, or \
                 either with a port, without https:// and without a path"
            ))
        };
        let (below, rest) = text.trim().strip_prefix("*.").map_or((false, text.trim()), |rest| (true, rest));
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', '*', '\\']) || rest.contains(char::is_whitespace) {
            return Err(refuse());
        }
        // `Url` reads hosts as requests do: IDNA, and addresses in any notation. The scheme has no default port.
        let bracketed = if rest.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{rest}]") } else { rest.to_owned() };
        let url = Url::parse(&format!("http://{bracketed}")).map_err(|_| refuse())?;
        // `http` drops its own port from the address: read that one by hand.
        let port = url.port().or_else(|| bracketed.ends_with(":80").then_some(80));
        let host = url.host_str().map(bare).filter(|host| !host.is_empty()).ok_or_else(refuse)?;
        if below && !matches!(url.host(), Some(Host::Domain(_))) {
            return Err(refuse());
        }
        Ok(Self { host, below, port })
    }

    /// Whether the address's host, and its port when the pattern has one, are meant.
    pub fn matches(&self, url: &Url) -> bool {
        let Some(host) = url.host_str().map(bare) else { return false };
        let named = if self.below {
            host.strip_suffix(&self.host).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.host
        };
        named && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
    }
}

/// A host without the root's dot, in small letters: `example.com.` and `example.com` are one host.
fn bare(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// What the client may reach.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    /// The only hosts; any when `None`.
    pub hosts: Option<Vec<HostPattern>>,
    /// Hosts that may have internal addresses.
    pub internal: Vec<HostPattern>,
    /// Addresses that may be reached whatever they are.
    pub nets: Vec<IpNet>,
}

impl Policy {
    /// Reads `allow_private`: host names, host:port, addresses and CIDR ranges.
    pub fn allow_private(&mut self, entries: &[String]) -> Result<(), NetError> {
        for entry in entries {
            let text = entry.trim();
            if let Ok(net) = text.parse::<IpNet>() {
                self.nets.push(net);
            } else if let Ok(address) = text.parse::<IpAddr>() {
                self.nets.push(address.into());
            } else if text.contains('/') {
                return Err(NetError::Setting(format!(
                    "{entry:?} is not a range of addresses: write it as 10.0.0.0/8"
                )));
            } else {
                self.internal.push(HostPattern::parse(text)?);
            }
        }
        Ok(())
    }

    /// Checks all of an address that can be told without resolving its name.
    pub fn check(&self, url: &Url) -> Result<(), NetError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(NetError::Refused(format!("{} is not http or https", shown(url))));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NetError::Refused(format!(
                "the address of {} has a user name or password in it; leave them out",
                shown(url)
            )));
        }
        if self.hosts.as_ref().is_some_and(|hosts| !hosts.iter().any(|host| host.matches(url))) {
            let host = url.host_str().unwrap_or_default();
            // With the port, which may be all that is wrong.
            let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
            return Err(NetError::Refused(format!("{host}{port} is not among the hosts that may be asked")));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            Some(Host::Domain(name)) if !name.is_empty() => return Ok(()),
            _ => return Err(NetError::Refused("the address has no host".to_owned())),
        };
        // An operator who wrote down this very address means it, whatever it is.
        let allowed = self.is_internal(url) || self.check_address(address, false);
        allowed.then_some(()).ok_or_else(|| NetError::private(&address.to_string()))
    }

    /// Whether the operator said that this host may have internal addresses.
    pub fn is_internal(&self, url: &Url) -> bool {
        self.internal.iter().any(|host| host.matches(url))
    }

    /// Whether the operator named this host, or the very address that stands for it.
    pub fn is_opened(&self, url: &Url) -> bool {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
            _ => None,
        };
        self.is_internal(url) || address.is_some_and(|address| within(&self.nets, address))
    }

    /// Whether the address may be connected to. `internal`: its host's name is one of the operator's own.
    pub fn check_address(&self, address: IpAddr, internal: bool) -> bool {
        match classify(address) {
            Reach::Public => true,
            Reach::Internal => internal || within(&self.nets, address),
            Reach::Special => within(&self.nets, address),
        }
    }
}

/// Says why a name was refused, through the layers of the HTTP library.
#[derive(Debug, thiserror::Error)]
#[error("{host} has no address that may be reached")]
pub(super) struct NoPublicAddress {
    pub host: String,
}

/// Resolves names for the HTTP library, and gives it only addresses that may be reached. It connects to what it is given
/// here, so a name that changes its address afterwards gains nothing.
pub(super) struct GuardedResolver {
    pub resolver: Arc<dyn Resolver>,
    pub policy: Arc<Policy>,
    pub internal: bool,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (resolver, policy, internal) = (Arc::clone(&self.resolver), Arc::clone(&self.policy), self.internal);
        Box::pin(async move {
            let found = resolver.resolve(name.as_str()).await?;
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| policy.check_address(*address, internal))
                // Port 0: the request's own.
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if allowed.is_empty() {
                return Err(NoPublicAddress { host: name.as_str().to_owned() }.into());
            }
            let addresses: reqwest::dns::Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, url: &str) -> bool {
        HostPattern::parse(pattern).unwrap().matches(&Url::parse(url).unwrap())
    }

    #[test]
    fn patterns_name_hosts() {
        assert!(matches("api.example.com", "https://API.example.com/x"));
        assert!(matches("api.example.com", "https://api.example.com./x"));
        assert!(!matches("api.example.com", "https://api.example.com.evil.test/"));
        assert!(matches("*.example.com", "https://a.b.example.com/"));
        assert!(!matches("*.example.com", "https://example.com/"));
        assert!(!matches("*.example.com", "https://notexample.com/"));
        assert!(matches("example.com:8443", "https://example.com:8443/"));
        assert!(!matches("example.com:8443", "https://example.com/"));
        assert!(matches("example.com:80", "http://example.com/"));
        assert!(!matches("example.com:80", "https://example.com/"));
        assert!(matches("[::1]:8080", "http://[::1]:8080/"));
        assert!(matches("::1", "http://[0:0::1]/"));
        for wrong in ["", "*", "https://example.com", "example.com/x", "*.", "a b", "u@h", "*.1.2.3.4"] {
            assert!(HostPattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_notation_of_an_address_is_checked() {
        let policy = Policy::default();
        let notations = [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://127.0.0.1./",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::10.0.0.1]/",
            "http://[2002:a00:1::]/",
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://１２７.0.0.1/",
            "http://%31%32%37.0.0.1/",
            "http://10.1/",
            "http://[::]/",
            "http://0xa9fea9fe/",
            "http://192.168.257/",
            "http:\\\\127.0.0.1\\",
        ];
        for url in notations {
            let refused = policy.check(&Url::parse(url).unwrap());
            assert!(matches!(refused, Err(NetError::Refused(_))), "{url}: {refused:?}");
        }
        assert!(policy.check(&Url::parse("http://8.8.8.8/").unwrap()).is_ok());
        assert!(policy.check(&Url::parse("ftp://example.com/").unwrap()).is_err());
        assert!(policy.check(&Url::parse("file:///etc/passwd").unwrap()).is_err());
        let secret = policy.check(&Url::parse("http://u:hunter2@example.com/").unwrap()).unwrap_err().to_string();
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn operators_open_what_they_name() {
        let mut policy = Policy::default();
        policy.allow_private(&["10.1.0.0/16".into(), "localhost:8080".into(), "::1".into()]).unwrap();
        assert!(policy.check_address("10.1.2.3".parse().unwrap(), false));
        assert!(policy.check_address("::ffff:10.1.2.3".parse().unwrap(), false));
        assert!(!policy.check_address("10.2.2.3".parse().unwrap(), false));
        assert!(policy.check_address("::1".parse().unwrap(), false));
        assert!(policy.is_internal(&Url::parse("http://localhost:8080").unwrap()));
        assert!(!policy.is_internal(&Url::parse("http://localhost:8081").unwrap()));
        assert!(policy.check_address("10.2.2.3".parse().unwrap(), true));
        assert!(!policy.check_address("169.254.169.254".parse().unwrap(), true), "metadata is opened by range only");
        assert!(policy.allow_private(&["10.0.0.0/64".into()]).is_err());
    }
}
