//! Two sets of times: their quantiles, and whether they differ by more than chance.
//!
//! Kolmogorov-Smirnov, because it assumes nothing of the shape of the times: the greatest
//! difference between the two empirical distributions, against what samples of one and the same
//! source exceed once in a hundred times.

/// sqrt(-ln(0.01 / 2) / 2): the critical value for large samples.
const ONE_PERCENT: f64 = 1.628;

/// What two sets of times show.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Milliseconds at 1, 50 and 99 percent: of the one, and of the other.
    pub(crate) one: [f64; 3],
    pub(crate) other: [f64; 3],
    /// The greatest difference of the distributions, and its 1 % threshold.
    pub(crate) distance: f64,
    pub(crate) threshold: f64,
    /// The smallest constant delay of one set, in milliseconds, at which the test would have
    /// told them apart: how sharp its eye is.
    pub(crate) visible: f64,
    pub(crate) samples: usize,
}

impl Compared {
    pub(crate) fn of(mut one: Vec<f64>, mut other: Vec<f64>) -> Self {
        one.sort_by(f64::total_cmp);
        other.sort_by(f64::total_cmp);
        let threshold = threshold(one.len(), other.len());
        Self {
            one: [0.01, 0.5, 0.99].map(|share| quantile(&one, share)),
            other: [0.01, 0.5, 0.99].map(|share| quantile(&other, share)),
            distance: distance(&one, &other),
            threshold,
            visible: visible(&one, &other, threshold),
            samples: one.len() + other.len(),
        }
    }
}

/// Of sorted values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted[at.min(sorted.len() - 1)]
}

fn threshold(one: usize, other: usize) -> f64 {
    let (one, other) = (one as f64, other as f64);
    ONE_PERCENT * ((one + other) / (one * other)).sqrt()
}

/// The two-sample statistic D of sorted values.
fn distance(one: &[f64], other: &[f64]) -> f64 {
    let (mut i, mut j, mut greatest) = (0, 0, 0.0_f64);
    while i < one.len() && j < other.len() {
        let at = one[i].min(other[j]);
        while i < one.len() && one[i] <= at {
            i += 1;
        }
        while j < other.len() && other[j] <= at {
            j += 1;
        }
        let difference = i as f64 / one.len() as f64 - j as f64 / other.len() as f64;
        greatest = greatest.max(difference.abs());
    }
    greatest
}

fn visible(one: &[f64], other: &[f64], threshold: f64) -> f64 {
    let mut delay = 0.01;
    while delay < 1000.0 {
        let delayed: Vec<f64> = one.iter().map(|value| value + delay).collect();
        if distance(&delayed, other) > threshold {
            break;
        }
        delay *= 1.1;
    }
    delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_samples_have_no_distance_and_separate_ones_the_greatest() {
        let one: Vec<f64> = (0..100).map(f64::from).collect();
        let far: Vec<f64> = (200..300).map(f64::from).collect();
        assert!(distance(&one, &one).abs() < 1e-9);
        assert!((distance(&one, &far) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_shifted_half_is_half_a_distance() {
        let distance = distance(&[1.0, 2.0, 3.0, 4.0], &[3.0, 4.0, 5.0, 6.0]);
        assert!((distance - 0.5).abs() < 1e-9);
    }

    /// Table value for two samples of 5,000: 0.0326.
    #[test]
    fn the_threshold_is_that_of_the_tables() {
        assert!((threshold(5000, 5000) - 0.0326).abs() < 1e-3);
    }

    #[test]
    fn a_delay_of_the_whole_range_is_seen() {
        let one: Vec<f64> = (0..1000).map(|n| f64::from(n) / 100.0).collect();
        let seen = Compared::of(one.clone(), one);
        assert!(seen.visible > 0.5 && seen.visible < 2.0, "{seen:?}");
    }
}
