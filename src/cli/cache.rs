//! `nanorun cache`: what is kept beside the results, and clearing it.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::data::{Cache, CacheFacts, KindFacts, LimitFrom, Selection};
use crate::error::{Class, Result};
use crate::text::Table;

use super::args::{CacheAction, CacheArgs, ClearArgs};
use super::output::Output;

/// Shows the cache, or clears it.
pub(super) fn cache(args: &CacheArgs) -> Result<Option<Class>> {
    let cache = Cache::from_env()?;
    match &args.action {
        None => show(&cache, args.json),
        Some(CacheAction::Clear(clear)) => self::clear(&cache, clear),
    }
    Ok(None)
}

const NONE: &str = "none: neither NANORUN_CACHE nor HOME is set, so tokens are made anew every time";

fn show(cache: &Cache, as_json: bool) {
    let output = Output::new(false);
    let facts = cache.facts();
    if as_json {
        output.result(&facts.as_ref().map_or(json!({ "path": null }), json_of).to_string());
        return;
    }
    output.result(&facts.as_ref().map_or_else(|| NONE.to_owned(), table));
}

fn json_of(facts: &CacheFacts) -> Value {
    let seconds = |age: Option<Duration>| age.map(|age| age.as_secs());
    let kind = |kind: &KindFacts| {
        json!({
            "kind": kind.kind,
            "entries": kind.entries,
            "bytes": kind.bytes,
            "newest_seconds": seconds(kind.newest),
            "oldest_seconds": seconds(kind.oldest),
        })
    };
    json!({
        "path": facts.root,
        "bytes": facts.bytes(),
        "limit_bytes": facts.limit,
        "limit_from": match facts.limit_from {
            LimitFrom::Environment => "NANORUN_CACHE_GB",
            LimitFrom::Default => "default",
            LimitFrom::Disk => "disk",
        },
        "free_bytes": facts.free,
        "reserve_bytes": facts.reserve,
        "kinds": facts.kinds.iter().map(kind).collect::<Vec<_>>(),
        "removable": kind(&facts.removable),
    })
}

fn table(facts: &CacheFacts) -> String {
    let from = match facts.limit_from {
        LimitFrom::Environment => "by NANORUN_CACHE_GB",
        LimitFrom::Default => "NANORUN_CACHE_GB sets another",
        LimitFrom::Disk => "half of what its disk has for it; NANORUN_CACHE_GB sets another",
    };
    let mut text = format!("cache       {}\n", facts.root.display());
    let _ = writeln!(text, "holds       {} of at most {} ({from})", size(facts.bytes()), size(facts.limit));
    if let (Some(free), Some(reserve)) = (facts.free, facts.reserve) {
        let _ = writeln!(text, "disk        {} free, of which it leaves {}", size(free), size(reserve));
    }
    let mut table = Table::new(["kind", ">entries", ">size", "last used"]);
    for kind in facts.kinds.iter().chain([&facts.removable]) {
        let used = match (kind.newest, kind.oldest) {
            (Some(newest), Some(oldest)) => format!("{} to {} ago", age(newest), age(oldest)),
            _ => String::new(),
        };
        table.push(vec![kind.kind.to_string(), kind.entries.to_string(), size(kind.bytes), used]);
    }
    let _ = write!(text, "\n{table}");
    if facts.removable.entries > 0 {
        text.push_str(
            "\n`old` is what earlier versions and killed processes left; nothing reads it, and it makes way first:\n\
             nanorun cache clear --kind old --yes\n",
        );
    }
    text
}

fn clear(cache: &Cache, args: &ClearArgs) {
    let output = Output::new(false);
    let selection = Selection { kind: args.kind.clone(), older_than: args.older_than };
    let (entries, bytes) = cache.clear(&selection, args.yes);
    if args.json {
        output.result(
            &json!({ "path": cache.root(), "removed": args.yes, "entries": entries, "bytes": bytes })
                .to_string(),
        );
        return;
    }
    let Some(root) = cache.root() else {
        output.result(NONE);
        return;
    };
    let what = format!("{entries} entries, {}, in {}", size(bytes), root.display());
    if args.yes {
        output.result(&format!("removed {what}"));
    } else {
        output.result(&format!("would remove {what}"));
        output.note("with --yes they go; what is needed again is made again");
    }
}

/// A length of time such as `30m`, `12h` or `7d`.
pub(super) fn parse_age(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || "expected a number with s, m, h, d or w, such as 12h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        'w' => 7 * 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        _ if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        _ if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 2 * 60 * 60 => format!("{} min", seconds / 60),
        seconds if seconds < 48 * 60 * 60 => format!("{} h", seconds / 3600),
        seconds if seconds < 10_000 * 24 * 60 * 60 => format!("{} days", seconds / 86_400),
        _ => "long".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_people_write_them() {
        let seconds = |text| parse_age(text).map(|age| age.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("12h"), Ok(43_200));
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(seconds("0w"), Ok(0));
        for bad in ["", "7", "d", "-1d", "1.5h", "7 d", "7y", "99999999999999999999d", "7é"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
