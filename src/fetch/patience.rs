//! How long a server is waited for, and how often it is asked again.

use std::time::Duration;

/// The bounds. Whatever fails in passing is tried again; who has tried `attempts` times without a new byte gives up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Pause after the first failure; it doubles with each further one.
    pub first: Duration,
    /// Longest pause that is taken without being asked to.
    pub longest: Duration,
    /// Longest pause that a server may ask for.
    pub asked: Duration,
    /// Failures in a row, none of which brought a byte.
    pub attempts: u32,
    /// Failures of one shard in all.
    pub failures: u32,
    /// Silence of a server that ends a connection.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            asked: Duration::from_secs(15 * 60),
            attempts: 7,
            failures: 100,
            silence: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The pause after so many failures in a row, from 1.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.checked_mul(doubled).map_or(self.longest, |pause| pause.min(self.longest))
    }
}

/// What a server's headers ask for: `Retry-After` in seconds or as a date (held against the server's own `Date`, so
/// that no clock here matters), else the reset of the Hub's `RateLimit`.
pub(super) fn asked_for(header: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    if let Some(after) = header("retry-after") {
        let after = after.trim();
        let seconds = after.parse().ok().or_else(|| {
            let (until, now) = (seconds_of(after)?, seconds_of(&header("date")?)?);
            Some(until.saturating_sub(now))
        });
        if seconds.is_some() {
            return seconds.map(Duration::from_secs);
        }
    }
    // "resolvers";r=0;t=55
    let limit = header("ratelimit")?;
    let reset = limit.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())?;
    let left = limit.split(';').any(|part| part.trim() == "r=0");
    left.then(|| Duration::from_secs(reset))
}

/// Seconds since 1970 of a date as HTTP writes it now: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_of(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = date.split_once(", ")?;
    let mut parts = date.split([' ', ':']);
    let day: u64 = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut number = || parts.next()?.parse::<u64>().ok().filter(|number| *number <= 60);
    let (hour, minute, second) = (number()?, number()?, number()?);
    // Years begin in March here, so that a leap day is the last day of one.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day;
    // 1 January 1970 is day 719,469 of that count.
    Some(days.checked_sub(719_469)? * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let patience = Patience::default();
        let seconds: Vec<_> = [1, 2, 3, 7, 40].map(|failures| patience.pause(failures).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(seconds_of("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds_of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of("Tue, 29 Feb 2000 00:00:01 GMT"), Some(951_782_401));
        for wrong in ["", "yesterday", "Sun, 06 Nox 1994 08:49:37 GMT", "Sun, 06 Nov 99999 08:49:37 GMT"] {
            assert_eq!(seconds_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn servers_ask_in_three_ways() {
        let asked = |headers: &[(&str, &str)]| {
            asked_for(|name| headers.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned()))
                .map(|pause| pause.as_secs())
        };
        assert_eq!(asked(&[("retry-after", " 7 ")]), Some(7));
        let dates =
            [("retry-after", "Sun, 06 Nov 1994 08:49:57 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(asked(&dates), Some(20));
        assert_eq!(asked(&[("ratelimit", "\"resolvers\";r=0;t=55")]), Some(55));
        assert_eq!(asked(&[("ratelimit", "\"resolvers\";r=3;t=55")]), None);
        assert_eq!(asked(&[("retry-after", "soon")]), None);
        assert_eq!(asked(&[]), None);
    }
}
