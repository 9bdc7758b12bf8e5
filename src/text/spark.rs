//! Curves in a line of text.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What stands for a value that is no finite number.
const STRANGE: char = '×';

/// The values as `width` characters at most, low to high between the least and the largest of them: each is the mean of
/// its stretch. A stretch with a value that is no finite number shows as `×`.
pub(crate) fn sparkline(values: &[f64], width: usize) -> String {
    sparkline_between(values, width, extent(values))
}

/// The same between two bounds, so that several curves can be compared.
pub(crate) fn sparkline_between(values: &[f64], width: usize, bounds: Option<(f64, f64)>) -> String {
    let (low, high) = bounds.unwrap_or((0.0, 0.0));
    let count = values.len().min(width);
    let stretch = |at: usize| {
        let from = values.len() * at / count;
        let to = (values.len() * (at + 1) / count).max(from + 1);
        values.get(from..to).unwrap_or_default()
    };
    let bar = |at: usize| {
        let part = stretch(at);
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        if !mean.is_finite() {
            return STRANGE;
        }
        let share = if high > low { ((mean - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
        BARS[((share * 8.0) as usize).min(7)]
    };
    (0..count).map(bar).collect()
}

/// The least and the largest finite value.
pub(crate) fn extent(values: &[f64]) -> Option<(f64, f64)> {
    values.iter().copied().filter(|value| value.is_finite()).fold(None, |bounds, value| match bounds {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_looks_like_one() {
        assert_eq!(sparkline(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 8), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4).chars().count(), 4);
        assert_eq!(sparkline(&[1.0, 1.0], 8), "▁▁");
        assert_eq!(sparkline(&[], 8), "");
        assert_eq!(sparkline(&[1.0], 0), "");
        assert_eq!(sparkline(&[1.0, f64::NAN, 2.0], 8), "▁×█");
        assert_eq!(sparkline(&[f64::NAN, f64::INFINITY], 8), "××");
        assert_eq!(sparkline_between(&[1.0, 2.0], 8, Some((0.0, 4.0))), "▃▅");
    }
}
