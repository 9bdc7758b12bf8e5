//! Sizes in bytes as people read them.

/// `18.7 GiB`, `96 MiB`, `3 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    // What no machine has is not told to the gibibyte.
    if bytes >= 1 << 50 {
        return "more than 1024 TiB".to_owned();
    }
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some(&(unit, name)) => {
            let value = bytes as f64 / unit as f64;
            let digits = usize::from(unit >= 1 << 30 || value < 10.0 && unit >= 1 << 20);
            format!("{value:.digits$} {name}")
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_read_well() {
        let shown = [0, 900, 5000, 3 << 20, 96 << 20, 20_100_000_000, 5 << 41, u64::MAX].map(size);
        let read = [
            "0 bytes",
            "900 bytes",
            "5 KiB",
            "3.0 MiB",
            "96 MiB",
            "18.7 GiB",
            "10.0 TiB",
            "more than 1024 TiB",
        ];
        assert_eq!(shown, read);
    }
}
