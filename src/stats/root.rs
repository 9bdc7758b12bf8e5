//! Where a falling function takes a value.

/// The x >= 0 at which `f`, which falls from above `value` at 0, is down to `value`: to neighbouring floats.
pub(super) fn where_falls_to(value: f64, f: impl Fn(f64) -> f64) -> f64 {
    let mut high = 1.0;
    while f(high) > value && high < f64::MAX / 2.0 {
        high *= 2.0;
    }
    let mut low = 0.0;
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return middle;
        }
        if f(middle) > value {
            low = middle;
        } else {
            high = middle;
        }
    }
}
