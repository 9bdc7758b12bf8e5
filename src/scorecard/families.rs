//! Holm's correction over families of arms: those that share a control, by one metric.

/// An arm of a family and what its test says.
#[derive(Debug, Clone)]
pub(super) struct Tested {
    /// Which verdict it is of.
    pub(super) place: usize,
    /// Which family it belongs to.
    pub(super) family: String,
    /// Its p, adjusted for the arms of its family.
    pub(super) p: f64,
}

/// The p of each, adjusted for the families as well. A family hands its share of what may go wrong on to the others once
/// all its arms are told from their control; until then each family has an even share (Holm's procedure with families in
/// the place of tests). So the families that are still open are at least as many as those in which something is equal, and
/// none of them errs more often than its share.
///
/// Intervals take no part in it: a family that was decided could still have erred, so none of the width of its interval
/// can be handed on, and those that decide share evenly.
pub(super) fn adjust(tested: &[Tested]) -> Vec<(usize, f64)> {
    let mut families: Vec<(&str, f64)> = Vec::new();
    for one in tested {
        match families.iter_mut().find(|(family, _)| *family == one.family) {
            Some((_, worst)) => *worst = worst.max(one.p),
            None => families.push((&one.family, one.p)),
        }
    }
    // Those that are told as a whole first.
    families.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let count = families.len();
    // At each stage, the largest p by which all stages before it were passed, and how many families are left.
    let mut stages = vec![(0.0_f64, count as f64)];
    for (at, (_, worst)) in families.iter().enumerate().take(count.saturating_sub(1)) {
        let (passed, left) = stages.last().copied().unwrap_or((0.0, 1.0));
        stages.push((passed.max(left * worst), (count - at - 1) as f64));
    }
    tested
        .iter()
        .map(|one| {
            let place = families.iter().position(|(family, _)| *family == one.family).unwrap_or(0);
            let at_each = stages.iter().take(place + 1).map(|(passed, left)| passed.max(left * one.p));
            (one.place, at_each.fold(1.0, f64::min))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjusted(ps: &[(&str, f64)]) -> Vec<f64> {
        let tested: Vec<Tested> = ps
            .iter()
            .enumerate()
            .map(|(place, (family, p))| Tested { place, family: (*family).to_owned(), p: *p })
            .collect();
        adjust(&tested).into_iter().map(|(_, p)| (p * 1e9).round() / 1e9).collect()
    }

    #[test]
    fn one_arm_a_family_is_holm() {
        let ps = [0.01, 0.04, 0.03, 0.005];
        let named: Vec<(&str, f64)> = ["a", "b", "c", "d"].into_iter().zip(ps).collect();
        let expected: Vec<f64> =
            crate::stats::holm(&ps).into_iter().map(|p| (p * 1e9).round() / 1e9).collect();
        assert_eq!(adjusted(&named), expected);
        assert_eq!(adjusted(&[("a", 0.3)]), [0.3]);
        assert_eq!(adjusted(&[]), Vec::<f64>::new());
    }

    /// A family of which one arm is not told hands nothing on.
    #[test]
    fn a_family_hands_on_what_it_has_once_it_is_told_as_a_whole() {
        assert_eq!(adjusted(&[("a", 0.001), ("a", 0.002), ("b", 0.04)]), [0.002, 0.004, 0.04]);
        assert_eq!(adjusted(&[("a", 0.001), ("a", 0.9), ("b", 0.04)]), [0.002, 0.9, 0.08]);
    }
}
