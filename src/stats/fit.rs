//! Parabolas and power laws by least squares.

use super::summary::mean;

/// `y = curvature (x - at)^2 + value`: a parabola through points by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parabola {
    /// Where its slope is 0.
    pub at: f64,
    /// Its value there.
    pub value: f64,
    /// Half its second derivative: above 0 that is a minimum, below a maximum.
    pub curvature: f64,
}

/// `y = coefficient * x^exponent`, by least squares of logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerLaw {
    /// Factor.
    pub coefficient: f64,
    /// Exponent.
    pub exponent: f64,
}

impl Parabola {
    /// Through points (x, y) with at least three different x; none of fewer, or of points on a straight line.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let mut xs: Vec<f64> = points.iter().map(|(x, _)| *x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        if xs.len() < 3 {
            return None;
        }
        // Around their middle and in units of their extent, so that nothing cancels.
        let (first, last) = (*xs.first()?, *xs.last()?);
        let (middle, extent) = (f64::midpoint(first, last), last - first);
        let scaled: Vec<(f64, f64)> = points.iter().map(|(x, y)| ((x - middle) / extent, *y)).collect();
        let power = |degree: i32| scaled.iter().map(|(x, _)| x.powi(degree)).sum::<f64>();
        let moment = |degree: i32| scaled.iter().map(|(x, y)| x.powi(degree) * y).sum::<f64>();
        let rows = [
            [power(0), power(1), power(2), moment(0)],
            [power(1), power(2), power(3), moment(1)],
            [power(2), power(3), power(4), moment(2)],
        ];
        let [c, b, a] = solve(rows)?;
        let at = -b / (2.0 * a);
        let found =
            Self { at: middle + extent * at, value: c - b * b / (4.0 * a), curvature: a / (extent * extent) };
        (found.at.is_finite() && found.value.is_finite()).then_some(found)
    }

    /// Its value.
    pub fn y(&self, x: f64) -> f64 {
        self.curvature * (x - self.at) * (x - self.at) + self.value
    }
}

/// Three equations by elimination with row pivots.
fn solve(mut rows: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let pivot = (column..3).max_by(|&i, &j| rows[i][column].abs().total_cmp(&rows[j][column].abs()))?;
        rows.swap(column, pivot);
        let top = rows[column];
        if top[column] == 0.0 {
            return None;
        }
        for (at, row) in rows.iter_mut().enumerate() {
            if at != column {
                let factor = row[column] / top[column];
                row.iter_mut().zip(top).for_each(|(value, top)| *value -= factor * top);
            }
        }
    }
    Some([0, 1, 2].map(|at| rows[at][3] / rows[at][at]))
}

impl PowerLaw {
    /// Through points (x, y) above 0 with at least two different x.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.iter().any(|(x, y)| !(*x > 0.0 && *y > 0.0)) {
            return None;
        }
        let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (libm::log(*x), libm::log(*y))).collect();
        let exponent = super::summary::slope(&logs)?;
        let (xs, ys): (Vec<f64>, Vec<f64>) = logs.into_iter().unzip();
        let coefficient = libm::exp(mean(&ys)? - exponent * mean(&xs)?);
        Some(Self { coefficient, exponent })
    }

    /// Its value.
    pub fn y(&self, x: f64) -> f64 {
        self.coefficient * libm::pow(x, self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_lies_on_a_curve_gives_the_curve(
            at in -5.0..20.0_f64, value in 0.1..5.0_f64, curvature in 0.01..3.0_f64,
            coefficient in 0.01..100.0_f64, exponent in -1.0..1.0_f64,
        ) {
            let sign = if value > 2.0 { -1.0 } else { 1.0 };
            let parabola = Parabola { at, value, curvature: sign * curvature };
            let points: Vec<(f64, f64)> =
                [-1.0, 0.2, 1.5, 4.0].into_iter().map(|x| (at + x, parabola.y(at + x))).collect();
            let found = Parabola::through(&points).unwrap();
            prop_assert!((found.at - at).abs() < 1e-8 && (found.value - value).abs() < 1e-8, "{found:?}");
            prop_assert!((found.curvature - sign * curvature).abs() < 1e-8);
            let law = PowerLaw { coefficient, exponent };
            let points: Vec<(f64, f64)> = [1.0, 7.0, 300.0].into_iter().map(|x| (x, law.y(x))).collect();
            let found = PowerLaw::through(&points).unwrap();
            prop_assert!((found.exponent - exponent).abs() < 1e-9);
            prop_assert!((found.coefficient / coefficient - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn what_tells_no_curve() {
        assert_eq!(Parabola::through(&[(0.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(PowerLaw::through(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(PowerLaw::through(&[(1.0, 1.0), (2.0, -2.0)]), None);
    }
}
