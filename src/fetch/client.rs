//! The HTTP client: one request with its redirects, through the proxies of the environment. A token goes to the host
//! that it belongs to and to no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderValue, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::address::{Address, Host};
use super::dataset::HUB;
use super::patience::Patience;
use super::proxy::Proxies;
use crate::error::{Class, Error, Result};
use crate::files::FileError;
use crate::hash::Digest;

/// Redirects of one request.
const REDIRECTS: usize = 10;

/// Bytes that the client reads at once.
const INPUT: usize = 256 << 10;

/// Longest wait for a name or a connection, which no stop cuts short.
const CONNECT: Duration = Duration::from_secs(10);

/// The environment's variables; empty ones are as good as unset.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Of these variables.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Name and value of a variable that may be spelt in lower case, which wins.
    pub(super) fn either_case(&self, name: &str) -> Option<(String, &str)> {
        let lower = name.to_ascii_lowercase();
        [lower.as_str(), name].iter().find_map(|name| Some(((*name).to_owned(), self.get(name)?)))
    }

    /// The Hub: `HF_ENDPOINT`, else where it is.
    pub(super) fn hub(&self) -> Result<Address> {
        let endpoint = self.get("HF_ENDPOINT");
        Address::parse(endpoint.unwrap_or(HUB))
            .map_err(|error| if endpoint.is_some() { error.key("HF_ENDPOINT") } else { error })
    }
}

/// `Result` with a [`Trouble`].
pub(super) type Outcome<T> = std::result::Result<T, Trouble>;

/// Why there is no answer, or none that helps.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may go away; what happened, and how long the server asks to wait.
    Passing(String, Option<Duration>),
    /// It will not.
    Final(Error),
    /// Whoever asked does not want it any more.
    Stopped,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<FileError> for Trouble {
    fn from(error: FileError) -> Self {
        Self::Final(error.into())
    }
}

/// From which byte on, and for which version of the file.
pub(super) struct Rest<'a> {
    pub(super) from: u64,
    /// A strong `ETag`.
    pub(super) version: Option<&'a str>,
}

/// What the Hub says of a file on its way to where the file is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) sha256: Option<Digest>,
    pub(super) bytes: Option<u64>,
}

/// An answer that is no redirect.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) promise: Promise,
    pub(super) body: Body,
    /// Where it came from at last.
    pub(super) from: Address,
    /// Whether the token was sent there.
    pub(super) with_token: bool,
}

impl Reply {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        text(&self.headers, name)
    }
}

/// See the module.
pub(super) struct Client {
    /// Straight to the host.
    direct: Agent,
    /// Through the proxies of `http` and `https`.
    proxied: [Option<Agent>; 2],
    proxies: Proxies,
    token: Option<(Host, HeaderValue)>,
}

impl Client {
    /// With the proxies, certificates and token of an environment.
    ///
    /// # Errors
    /// A proxy, a certificate file or a token that is none.
    pub(super) fn new(environment: &Environment, patience: &Patience) -> Result<Self> {
        let proxies = Proxies::of(environment)?;
        let tls = TlsConfig::builder().root_certs(roots(environment)?).build();
        let agent = |proxy: Option<&ureq::Proxy>| {
            Agent::new_with_config(
                Agent::config_builder()
                    .tls_config(tls.clone())
                    .proxy(proxy.cloned())
                    .user_agent(concat!("nanorun/", env!("CARGO_PKG_VERSION")))
                    .accept_encoding("identity")
                    .http_status_as_error(false)
                    .max_redirects(0)
                    .max_redirects_will_error(false)
                    .timeout_resolve(Some(CONNECT))
                    .timeout_connect(Some(CONNECT))
                    .timeout_per_read(Some(patience.silence))
                    .timeout_per_write(Some(patience.silence))
                    .input_buffer_size(INPUT)
                    .build(),
            )
        };
        let proxied = [false, true].map(|https| proxies.of_scheme(https).map(|proxy| agent(Some(proxy))));
        let token = match environment.get("HF_TOKEN").map(str::trim).filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| Error::input("HF_TOKEN holds characters that no token has"))?;
                value.set_sensitive(true);
                Some((environment.hub()?.host(), value))
            }
        };
        Ok(Self { direct: agent(None), proxied, proxies, token })
    }

    /// Ends the requests under way; those that follow fail.
    pub(super) fn shut_down(&self) {
        let proxied = self.proxied.iter().flatten();
        proxied.chain([&self.direct]).for_each(|agent| agent.clone().shutdown());
    }

    /// The host that the token is for, where there is a token.
    pub(super) fn token_host(&self) -> Option<&Host> {
        self.token.as_ref().map(|(host, _)| host)
    }

    /// Asks for a file, or the rest of it, and follows redirects.
    pub(super) fn get(&self, address: &Address, rest: Option<&Rest<'_>>) -> Outcome<Reply> {
        let mut at = address.clone();
        let mut promise = Promise::default();
        for _ in 0..=REDIRECTS {
            let host = at.host();
            let through = self.proxied.get(usize::from(host.https)).and_then(Option::as_ref);
            let agent = through.filter(|_| !self.proxies.is_direct(&host)).unwrap_or(&self.direct);
            let mut request = agent.get(at.uri().clone());
            if let Some(rest) = rest {
                request = request.header(header::RANGE, format!("bytes={}-", rest.from));
                if let Some(version) = rest.version {
                    request = request.header(header::IF_RANGE, version);
                }
            }
            let token = self.token.as_ref().filter(|(own, _)| *own == host);
            if let Some((_, token)) = token {
                request = request.header(header::AUTHORIZATION, token.clone());
            }
            let response = request.call().map_err(|error| unanswered(error, &at))?;
            let (parts, body) = response.into_parts();
            let (status, headers) = (parts.status.as_u16(), parts.headers);
            promise = promise.or(promised(&headers));
            let location =
                if matches!(status, 301 | 302 | 303 | 307 | 308) { text(&headers, "location") } else { None };
            let Some(location) = location else {
                return Ok(Reply { status, headers, promise, body, with_token: token.is_some(), from: at });
            };
            let next = at.join(&location).map_err(|error| {
                Error::input(format!("{} redirects to what is no address", at.shown())).because(error)
            })?;
            if host.https && !next.host().https {
                return Err(Trouble::Final(
                    Error::input(format!("{} redirects from https to plain http", at.shown()))
                        .expected("an https address")
                        .help(
                            "somebody on the way may have changed the answer; try another network or proxy",
                        ),
                ));
            }
            at = next;
        }
        Err(Trouble::Final(
            Error::input(format!("{} redirects more than {REDIRECTS} times", address.shown()))
                .help("check the base address, and whether a login page stands before it"),
        ))
    }
}

impl Promise {
    fn or(self, other: Self) -> Self {
        Self { sha256: self.sha256.or(other.sha256), bytes: self.bytes.or(other.bytes) }
    }
}

/// `X-Linked-ETag` is the SHA-256 of a file in large file storage. An `ETag` of 64 digits is so only beside the Hub's
/// own headers: the storage behind it has tags of that length that are other hashes.
fn promised(headers: &HeaderMap) -> Promise {
    let linked = text(headers, "x-linked-etag")
        .or_else(|| text(headers, "x-repo-commit").and_then(|_| text(headers, "etag")));
    let sha256 = linked.and_then(|tag| tag.trim_start_matches("W/").trim_matches('"').parse().ok());
    Promise { sha256, bytes: text(headers, "x-linked-size").and_then(|bytes| bytes.trim().parse().ok()) }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Mozilla's authorities, or those of the file that `SSL_CERT_FILE` names in their place.
fn roots(environment: &Environment) -> Result<RootCerts> {
    let Some(file) = environment.get("SSL_CERT_FILE") else { return Ok(RootCerts::WebPki) };
    let bad = |what: &str| Error::input(what).file(file).key("SSL_CERT_FILE");
    let pem = std::fs::read(file).map_err(|error| bad("cannot read the certificates").because(error))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(bad("no certificates are in the file").expected("PEM: -----BEGIN CERTIFICATE-----"));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

/// What it means that nobody answered.
fn unanswered(error: ureq::Error, at: &Address) -> Trouble {
    let host = at.host();
    let what = format!("{host}: {}", reason(&error));
    let final_input = |help: &str| Trouble::Final(Error::input(what.clone()).help(help));
    match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::NotConnected => {
            // After a shutdown, or a connection that went away: asked again, the first is told apart by its flag.
            Trouble::Passing(what, None)
        }
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => final_input("check the base address"),
        ureq::Error::ConnectProxyFailed(reason) if reason.contains("407") => {
            final_input("the proxy wants a name and a password: http://NAME:PASSWORD@HOST:PORT")
        }
        _ if what.contains("certificate") || what.contains("UnknownIssuer") => final_input(
            "where a proxy signs with its own authority, name the file of that authority's certificates (PEM) in \
             SSL_CERT_FILE",
        ),
        _ => Trouble::Passing(what, None),
    }
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "no such host, or no network".to_owned(),
        ureq::Error::Timeout(_) => "it does not answer".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// What it means that a body broke off.
pub(super) fn broken(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => "the server fell silent".to_owned(),
        std::io::ErrorKind::UnexpectedEof => "the connection was cut".to_owned(),
        _ => format!("the connection was cut ({error})"),
    }
}

/// A failure that may have passed by the next start of the program.
pub(super) fn passed_over(what: impl Into<String>) -> Error {
    Error::new(Class::Run, what)
}
