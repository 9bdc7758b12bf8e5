//! Which proxy a request goes through, by the variables that other programs obey.

use std::net::IpAddr;

use super::address::Host;
use super::client::Environment;
use crate::error::{Error, Result};

/// The proxies of an environment.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<ureq::Proxy>,
    https: Option<ureq::Proxy>,
    /// The entries of `NO_PROXY`.
    direct: Vec<String>,
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`; the lower-case spelling wins, as in curl.
    ///
    /// # Errors
    /// A proxy that is none.
    pub(super) fn of(environment: &Environment) -> Result<Self> {
        let proxy = |name: &str| {
            let all = || environment.either_case("ALL_PROXY");
            let Some((name, value)) = environment.either_case(name).or_else(all) else { return Ok(None) };
            let proxy = ureq::Proxy::new(value.trim()).map_err(|_| {
                Error::input(format!("{name} is no proxy"))
                    .expected("http://, https://, socks4://, socks5:// or socks5h:// with host and port")
            })?;
            Ok::<_, Error>(Some(proxy))
        };
        let direct = environment.either_case("NO_PROXY").map_or("", |(_, value)| value);
        let direct = direct.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase());
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            direct: direct.filter(|entry| !entry.is_empty()).collect(),
        })
    }

    /// The proxy for requests of a scheme.
    pub(super) fn of_scheme(&self, https: bool) -> Option<&ureq::Proxy> {
        if https { self.https.as_ref() } else { self.http.as_ref() }
    }

    /// Whether `NO_PROXY` names this host.
    pub(super) fn is_direct(&self, host: &Host) -> bool {
        self.direct.iter().any(|entry| matches(entry, host))
    }
}

/// `*`, a name (which stands for all beneath it), a `.suffix`, an address, or a network such as `10.0.0.0/8`; each may
/// end with a port.
fn matches(entry: &str, host: &Host) -> bool {
    if entry == "*" {
        return true;
    }
    let name = host.name.trim_start_matches('[').trim_end_matches(']');
    if let (Some((network, bits)), Ok(address)) = (entry.split_once('/'), name.parse::<IpAddr>()) {
        return network
            .parse()
            .is_ok_and(|network| bits.parse().is_ok_and(|bits| shares_prefix(network, address, bits)));
    }
    let (entry, port) = match entry.rsplit_once(':') {
        // More colons are an IPv6 address.
        Some((entry, port)) if !entry.contains(':') || entry.ends_with(']') => (entry, Some(port)),
        _ => (entry, None),
    };
    if port.is_some_and(|port| port.parse() != Ok(host.port)) {
        return false;
    }
    let entry = entry.trim_start_matches('[').trim_end_matches(']');
    let suffix = entry.trim_start_matches('*').trim_start_matches('.');
    let beneath = name.strip_suffix(suffix).is_some_and(|before| before.ends_with('.'));
    !suffix.is_empty() && (beneath || name == suffix)
}

fn shares_prefix(network: IpAddr, address: IpAddr, bits: u32) -> bool {
    let high = |value: u128, width: u32| value.checked_shr(width.saturating_sub(bits)).unwrap_or(0);
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => high(a.to_bits().into(), 32) == high(b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => high(a.to_bits(), 128) == high(b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Address;
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::of(&Environment::of(variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))))
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let host = |proxies: &Proxies, https| proxies.of_scheme(https).map(|proxy| proxy.host().to_owned());
        let both = proxies(&[("HTTPS_PROXY", "http://a:1"), ("ALL_PROXY", "socks5h://b:2")]).unwrap();
        assert_eq!((host(&both, true), host(&both, false)), (Some("a".to_owned()), Some("b".to_owned())));
        let lower = proxies(&[("HTTP_PROXY", "http://a:1"), ("http_proxy", "c:3")]).unwrap();
        assert_eq!((host(&lower, true), host(&lower, false)), (None, Some("c".to_owned())));
        let none = proxies(&[("HTTP_PROXY", ""), ("ALL_PROXY", "")]).unwrap();
        assert_eq!((host(&none, true), host(&none, false)), (None, None));
        let wrong = proxies(&[("https_proxy", "gopher://a:1")]).unwrap_err().to_string();
        assert!(wrong.contains("https_proxy is no proxy"), "{wrong}");
    }

    #[test]
    fn no_proxy_names_hosts_networks_and_ports() {
        let direct = |no_proxy: &str, address: &str| {
            let host = Address::parse(address).unwrap().host();
            proxies(&[("NO_PROXY", no_proxy)]).unwrap().is_direct(&host)
        };
        for (no_proxy, address) in [
            ("*", "https://hub.example/"),
            ("a.example, hub.EXAMPLE", "https://hub.example/"),
            ("example", "https://hub.example/"),
            (".example", "https://hub.example/"),
            ("*.example", "https://hub.example/"),
            ("hub.example:443", "https://hub.example/"),
            ("10.0.0.0/8", "http://10.1.2.3/"),
            ("127.0.0.1:81", "http://127.0.0.1:81/"),
            ("::1", "http://[::1]:80/"),
            ("fd00::/8", "http://[fd12::1]/"),
        ] {
            assert!(direct(no_proxy, address), "{no_proxy} {address}");
        }
        for (no_proxy, address) in [
            ("", "https://hub.example/"),
            ("ub.example", "https://hub.example/"),
            ("hub.example:80", "https://hub.example/"),
            ("10.0.0.0/8", "http://11.1.2.3/"),
            ("10.0.0.0/8", "http://10.example/"),
            ("10.0.0.0/x", "http://10.1.2.3/"),
        ] {
            assert!(!direct(no_proxy, address), "{no_proxy} {address}");
        }
    }
}
