//! The one place where the time is read. Stamps stand in journals and lock files, durations beside results, and
//! neither decides anything: a clock that goes backwards changes no order and no result.

#![allow(clippy::disallowed_methods, reason = "this is the place")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, for measuring how long something takes.
pub fn now() -> Instant {
    Instant::now()
}

/// Now, as files have it.
pub fn system_now() -> SystemTime {
    SystemTime::now()
}

/// Now, in whole seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Now, as `2026-01-31T23:59:59Z`.
pub fn utc_now() -> String {
    utc(unix_now())
}

/// Seconds since 1970 as `2026-01-31T23:59:59Z`.
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that a leap day is the last of its year; a year of that kind
    // has months of 31, 30, 31, 30, 31 days over and over, which (153 m + 2) / 5 counts.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest % 3_600 / 60, rest % 60)
}

/// The seconds since 1970 of a time as [`utc`] writes it; none of anything else.
pub fn unix(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || year < 1970
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // As above, the other way round.
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    (utc(seconds) == text || second == 60).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::{unix, utc};

    #[test]
    fn times_come_back() {
        for seconds in [0, 951_782_400, 1_709_251_199, 4_102_444_799, 1_700_000_000] {
            assert_eq!(unix(&utc(seconds)), Some(seconds));
        }
        for text in ["", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "yesterday", "2026-01-01 00:00:00Z"]
        {
            assert_eq!(unix(text), None, "{text}");
        }
    }

    #[test]
    fn known_instants() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(utc(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(utc(4_102_444_799), "2099-12-31T23:59:59Z");
    }
}
