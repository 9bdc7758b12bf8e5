//! Holm's correction for several tests.
//!
//! S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).

/// The adjusted p of each of several tests: at most `alpha` exactly where Holm's procedure rejects at `alpha`, whatever
/// the tests have to do with each other.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    let at = |index: usize| p.get(index).copied().unwrap_or(f64::NAN);
    order.sort_by(|&a, &b| at(a).total_cmp(&at(b)));
    let mut adjusted = vec![f64::NAN; p.len()];
    let mut most = 0.0_f64;
    for (place, &index) in order.iter().enumerate() {
        // One that is not rejected keeps all larger ones from it.
        most = most.max((p.len() - place) as f64 * at(index)).min(1.0);
        if let Some(slot) = adjusted.get_mut(index) {
            *slot = most;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::holm;

    /// The example of R's `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")`.
    #[test]
    fn adjusted_as_r_has_it() {
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        }
        assert_eq!(holm(&[]), Vec::<f64>::new());
        assert_eq!(holm(&[0.7]), [0.7]);
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
