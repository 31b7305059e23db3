//! The upper tail of the normal distribution on the scale of phi: -log10 P(X > y), accurate where it matters, far out in the tail,
//! where subtracting from 1 would leave nothing.
//!
//! Pure arithmetic, no state. The main path enters at [`phi`] and its inverse [`deviations`].
//! Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.11 (series) and 26.2.14 (continued fraction).

use std::f64::consts::{LN_10, PI};

/// From here on the continued fraction is used; both are accurate to 1e-12 at this point.
const FAR: f64 = 2.0;

/// -log10 of the probability that a standard normal variable exceeds `y`; grows strictly with `y`.
pub(super) fn phi(y: f64) -> f64 {
    let ln_tail = if y >= FAR {
        ln_density(y) - fraction(y).ln()
    } else if y > -FAR {
        (0.5 - series(y)).ln()
    } else {
        (-(ln_density(y).exp() / fraction(-y))).ln_1p()
    };
    -ln_tail / LN_10
}

/// The `y` at which [`phi`] reaches `threshold`: how many standard deviations after the mean. `threshold` is taken within 0.01 to 300.
pub(super) fn deviations(threshold: f64) -> f64 {
    // A NaN ends at the lower end: no comparison with it holds.
    let threshold = threshold.clamp(0.01, 300.0);
    let (mut low, mut high) = (-3.0, 40.0);
    while high - low > 1e-9 {
        let middle = f64::midpoint(low, high);
        if phi(middle) < threshold { low = middle } else { high = middle }
    }
    high
}

fn ln_density(y: f64) -> f64 {
    -0.5 * y * y - 0.5 * (2.0 * PI).ln()
}

/// P(0 < X < y) = density(y) (y + y^3/3 + y^5/15 + ...), for small |y|.
fn series(y: f64) -> f64 {
    let (mut term, mut sum) = (y, y);
    let mut odd = 3.0;
    while term.abs() > 1e-17 {
        term *= y * y / odd;
        sum += term;
        odd += 2.0;
    }
    ln_density(y).exp() * sum
}

/// density(y) / P(X > y) = y + 1/(y + 2/(y + 3/(y + ...))), for y > 0.
fn fraction(y: f64) -> f64 {
    (1..=60).rev().fold(y, |rest, k| y + f64::from(k) / rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_tables() {
        // Tail probabilities from Abramowitz and Stegun, tables 26.1 and 26.2 (the last two as -log10).
        let close = |y: f64, tail: f64| assert!((phi(y) + tail.log10()).abs() < 1e-6, "phi({y}) = {}", phi(y));
        close(-3.0, 0.998_650_102);
        close(-1.0, 0.841_344_746);
        close(0.0, 0.5);
        close(1.0, 0.158_655_254);
        close(2.0, 0.022_750_132);
        close(3.0, 0.001_349_898);
        assert!((phi(5.0) - 6.54265).abs() < 1e-4);
        assert!((phi(10.0) - 23.11805).abs() < 1e-4);
    }

    #[test]
    fn grows_with_no_step_where_the_formulas_meet() {
        let points: Vec<f64> = (-4000..10_000).map(|k| phi(f64::from(k) / 1000.0)).collect();
        assert!(points.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((phi(FAR) - phi(FAR - 1e-12)).abs() < 1e-10);
        assert!((phi(-FAR) - phi(1e-12 - FAR)).abs() < 1e-10);
    }

    #[test]
    fn the_inverse_inverts() {
        for threshold in [0.05, 0.3, 1.0, 3.0, 8.0, 12.0, 100.0, 299.0] {
            assert!((phi(deviations(threshold)) - threshold).abs() < 1e-6, "at {threshold}");
        }
        assert!(deviations(f64::NAN) < deviations(0.02));
        assert!(deviations(1e9) <= 40.0);
    }
}
