//! Addresses on the web: whole ones, what a redirect makes of them, and how they may be shown.

use ureq::http::Uri;

use crate::error::{Error, Result};

/// An `http` or `https` address with a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
}

/// Who answers at an address: a secret for one host is for no other scheme, name or port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) https: bool,
    /// In lower case.
    pub(super) name: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads one.
    ///
    /// # Errors
    /// Text that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::input(format!("`{}` is no web address", without_secrets(text)))
                .expected("http:// or https:// with a host")
        };
        let text = text.split('#').next().unwrap_or_default().trim();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let scheme = uri.scheme_str().map(str::to_ascii_lowercase);
        let known = scheme.is_some_and(|scheme| scheme == "http" || scheme == "https");
        let host = uri.host().is_some_and(|host| !host.is_empty());
        if known && host { Ok(Self { uri }) } else { Err(wrong()) }
    }

    /// The address of a path beneath this one.
    ///
    /// # Errors
    /// An address with a query, which has nothing beneath it.
    pub fn beneath(&self, path: &str) -> Result<Self> {
        if self.uri.query().is_some() {
            return Err(Error::input(format!("the address `{}` has a query", self.shown()))
                .expected("the address of a directory, without a `?`"));
        }
        Self::parse(&format!("{}/{path}", self.uri.to_string().trim_end_matches('/')))
    }

    /// Where a redirect from here to `location` leads.
    ///
    /// # Errors
    /// A location that is none.
    pub(super) fn join(&self, location: &str) -> Result<Self> {
        let location = location.trim();
        let scheme = self.uri.scheme_str().unwrap_or("https");
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        // A scheme stands before everything else; a query may hold an address too.
        let before = location.split(['/', '?', '#']).next().unwrap_or_default();
        if before.ends_with(':') {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{authority}{location}"))
        } else if location.starts_with('?') {
            Self::parse(&format!("{scheme}://{authority}{}{location}", self.uri.path()))
        } else {
            let (directory, _) = self.uri.path().rsplit_once('/').unwrap_or_default();
            Self::parse(&format!("{scheme}://{authority}{directory}/{location}"))
        }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn host(&self) -> Host {
        let https = self.uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let name = self.uri.host().unwrap_or_default().to_ascii_lowercase();
        Host { https, name, port: self.uri.port_u16().unwrap_or(if https { 443 } else { 80 }) }
    }

    /// As a person may see it: without a password, and without the query, in which redirects carry signatures.
    pub fn shown(&self) -> String {
        without_secrets(&self.uri.to_string())
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let usual = if self.https { 443 } else { 80 };
        f.write_str(&self.name)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn redirects_lead_where_browsers_go() {
        let from = address("https://a.example/x/y?z=1");
        for (location, expected) in [
            ("https://b.example/s?sig=1#top", "https://b.example/s?sig=1"),
            ("//b.example:8443/s", "https://b.example:8443/s"),
            ("/s/t", "https://a.example/s/t"),
            ("?q=2", "https://a.example/x/y?q=2"),
            ("s?u=http://c.example/", "https://a.example/x/s?u=http://c.example/"),
        ] {
            assert_eq!(from.join(location).unwrap(), address(expected), "{location}");
        }
        assert!(from.join("ftp://b.example/s").is_err());
        assert!(from.join("https:///s").is_err());
    }

    #[test]
    fn a_host_is_scheme_name_and_port() {
        let host = |text: &str| address(text).host();
        assert_eq!(host("https://A.example/x"), host("https://a.example:443/y"));
        assert_ne!(host("https://a.example/"), host("http://a.example:443/"));
        assert_ne!(host("http://127.0.0.1:80/"), host("http://localhost:80/"));
        assert_ne!(host("http://a.example:81/"), host("http://a.example/"));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(address("https://me:pass@a.example/x?Signature=abc").shown(), "https://a.example/x");
        let error = Address::parse("ftp://me:pass@a.example/x?Signature=abc").unwrap_err().to_string();
        assert!(!error.contains("pass") && !error.contains("abc"), "{error}");
    }

    #[test]
    fn what_is_beneath_an_address() {
        for base in ["http://h/a", "http://h/a/"] {
            assert_eq!(address(base).beneath("b").unwrap(), address("http://h/a/b"));
        }
        assert_eq!(address("http://h").beneath("b").unwrap(), address("http://h/b"));
        assert!(address("http://h/a?b=c").beneath("d").is_err());
    }
}
