//! How much the cache may hold, and how much of the disk it leaves alone.

use crate::error::{Error, Result};
use crate::files::Space;

/// What names the limit.
const VARIABLE: &str = "NANORUN_CACHE_GB";

const GB: u64 = 1_000_000_000;

/// Where nobody named a limit: this, or half of what would be free without the cache, whichever is less.
const DEFAULT: u64 = 20 * GB;

/// What stays free on the cache's disk: this, or a tenth of the disk, whichever is less.
const RESERVE: u64 = 5 * GB;

/// Where the limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitFrom {
    /// `NANORUN_CACHE_GB`.
    Environment,
    /// 20 GB.
    Default,
    /// Half of what would be free without the cache.
    Disk,
}

/// The limit that somebody named, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) named: Option<u64>,
}

impl Limit {
    /// What the environment says.
    ///
    /// # Errors
    /// Something else than a number of gigabytes.
    pub(super) fn from_env() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(value) if !value.trim().is_empty() => Self::parse(&value),
            _ => Ok(Self::default()),
        }
    }

    fn parse(value: &str) -> Result<Self> {
        match value.trim().parse::<f64>() {
            Ok(gb) if gb.is_finite() && gb >= 0.0 => Ok(Self { named: Some((gb * GB as f64) as u64) }),
            _ => Err(Error::input(format!("{VARIABLE} is `{value}`"))
                .key(VARIABLE)
                .expected("gigabytes as a number, such as 20 or 0.5; 0 keeps nothing")),
        }
    }

    /// Bytes that the cache may hold which holds `used` now, on a disk as it stands.
    pub(super) fn bytes(self, used: u64, disk: Option<Space>) -> (u64, LimitFrom) {
        let half = disk.map(|disk| disk.free.saturating_add(used) / 2);
        match (self.named, half) {
            (Some(named), _) => (named, LimitFrom::Environment),
            (None, Some(half)) if half < DEFAULT => (half, LimitFrom::Disk),
            _ => (DEFAULT, LimitFrom::Default),
        }
    }
}

/// Bytes of a disk that stay free.
pub(super) fn reserve(disk: Space) -> u64 {
    RESERVE.min(disk.total / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_is_named_or_fits_the_disk() {
        let disk = |free| Some(Space { free, total: 100 * GB, read_only: false });
        let named = |text: &str| Limit::parse(text).unwrap().bytes(0, disk(GB));
        assert_eq!(named("20"), (20 * GB, LimitFrom::Environment));
        assert_eq!(named(" 0.5 "), (GB / 2, LimitFrom::Environment));
        assert_eq!(named("0"), (0, LimitFrom::Environment));
        let usual = |used, free| Limit::default().bytes(used, disk(free));
        assert_eq!(usual(0, 60 * GB), (20 * GB, LimitFrom::Default));
        assert_eq!(usual(6 * GB, 10 * GB), (8 * GB, LimitFrom::Disk));
        assert_eq!(Limit::default().bytes(0, None), (20 * GB, LimitFrom::Default));
        for bad in ["20GB", "-1", "nan", "inf", "a lot"] {
            let error = Limit::parse(bad).unwrap_err();
            assert_eq!((error.class().exit_code(), error.key_path()), (2, Some(VARIABLE)), "{bad}");
        }
        assert_eq!(reserve(Space { free: 0, total: 20 * GB, read_only: false }), 2 * GB);
        assert_eq!(reserve(Space { free: 0, total: 2000 * GB, read_only: false }), 5 * GB);
    }
}
