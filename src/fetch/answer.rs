//! What an answer means for a file of which some bytes are here.

use super::client::{Client, Outcome, Reply, Trouble};
use super::patience::asked_for;
use crate::error::Error;

/// An answer with bytes of the file, or the reason why there are none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of it, of this many bytes where the server says.
    Whole(Option<u64>),
    /// What follows the bytes that are here; the file has this many in all.
    Rest(u64),
    /// Another part than was asked for, or none: what is here belongs to another version.
    Elsewhere,
}

impl Answer {
    /// Reads the head of an answer to a request for the bytes from `from` on.
    pub(super) fn of(reply: &Reply, from: u64, client: &Client) -> Outcome<Self> {
        match reply.status {
            200 => {
                refuse_pages(reply)?;
                Ok(Self::Whole(length(reply)))
            }
            206 => {
                refuse_pages(reply)?;
                let range = reply.header("content-range").and_then(|range| range_of(&range));
                Ok(match range {
                    Some((first, total)) if first == from => Self::Rest(total),
                    _ => Self::Elsewhere,
                })
            }
            416 => Ok(Self::Elsewhere),
            status => Err(refused(reply, status, client)),
        }
    }
}

fn length(reply: &Reply) -> Option<u64> {
    reply.header("content-length")?.trim().parse().ok()
}

/// First byte and length in all of `bytes 5-9/10`.
fn range_of(header: &str) -> Option<(u64, u64)> {
    let (range, total) = header.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) =
        (first.trim().parse().ok()?, last.trim().parse().ok()?, total.trim().parse().ok()?);
    (first <= last && last + 1 == total).then_some((first, total))
}

/// Login pages and captive portals answer 200 with a page of their own.
fn refuse_pages(reply: &Reply) -> Outcome<()> {
    let kind = reply.header("content-type").unwrap_or_default().to_ascii_lowercase();
    if kind.starts_with("text/html") || kind.starts_with("application/xhtml") {
        return Err(Trouble::Final(page(&reply.from.shown())));
    }
    Ok(())
}

/// The error of a page where a shard should be.
pub(super) fn page(from: &str) -> Error {
    Error::input(format!("{from} answered with a web page, not with a shard"))
        .expected("a parquet file")
        .help("a login page or the page of a network may stand in between: open the address in a browser")
}

fn refused(reply: &Reply, status: u16, client: &Client) -> Trouble {
    let from = reply.from.shown();
    let what = format!("{from} answered {status}{}", name(status));
    match status {
        408 | 425 | 429 | 500..=599 => {
            Trouble::Passing(what, asked_for(|name| reply.header(name)))
        }
        401 | 403 => Trouble::Final(Error::input(what).help(match client.token_host() {
            None => "a data set that is private or gated needs a token in HF_TOKEN".to_owned(),
            Some(_) if reply.with_token => {
                "the token in HF_TOKEN is not accepted there: check it, and that the data set's terms are accepted"
                    .to_owned()
            }
            Some(host) => format!(
                "HF_TOKEN was not sent there, it is for {host} alone (HF_ENDPOINT names its host); check the address"
            ),
        })),
        404 | 410 => Trouble::Final(
            Error::input(what)
                .expected("upstream's shards at the base address")
                .help("check --base-url and HF_ENDPOINT; upstream may have moved the data"),
        ),
        _ => Trouble::Final(Error::input(what).help("check --base-url, HF_ENDPOINT and the proxy")),
    }
}

fn name(status: u16) -> &'static str {
    match status {
        401 => " (unauthorised)",
        403 => " (forbidden)",
        404 => " (not found)",
        410 => " (gone)",
        429 => " (too many requests)",
        503 => " (not available)",
        500..=599 => " (its own error)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::range_of;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range_of("bytes 5-9/10"), Some((5, 10)));
        // Not to the end, no length, no range: nothing to go on with.
        for wrong in ["bytes 5-8/10", "bytes 5-9/*", "bytes */10", "items 5-9/10", "bytes 9-5/6", ""] {
            assert_eq!(range_of(wrong), None, "{wrong}");
        }
    }
}
