//! How near embeddings are to each other.

use example_common::Failure;

use crate::encoder::Embeddings;

/// The cosine of the angle between two embeddings.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Cosines of many pairs.
#[derive(Debug, PartialEq)]
pub struct Cosines {
    pub mean: f64,
    /// The 5th percentile, by the nearest rank.
    pub p5: f64,
    pub least: f64,
}

impl Cosines {
    /// Of the embeddings of the same sentences by two models.
    pub fn between(a: &Embeddings, b: &Embeddings) -> Self {
        Self::of(a.iter().zip(b.iter()).map(|(a, b)| cosine(a, b)).collect())
    }

    /// # Panics
    /// If there are none.
    fn of(mut cosines: Vec<f64>) -> Self {
        cosines.sort_by(f64::total_cmp);
        let count = cosines.len();
        Self {
            mean: cosines.iter().sum::<f64>() / count as f64,
            p5: cosines[(count * 5).div_ceil(100) - 1],
            least: cosines[0],
        }
    }
}

/// Spearman's rank correlation: Pearson's of the ranks, of which equal values share the mean.
///
/// # Errors
/// If all values of a side are equal, or there are fewer than two.
pub fn spearman(a: &[f64], b: &[f64]) -> Result<f64, Failure> {
    let [a, b] = [a, b].map(ranks);
    // The mean of the ranks, of both sides.
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    if scale > 0.0 {
        Ok(product(&a, &b) / scale)
    } else {
        Err("a rank correlation needs different scores".into())
    }
}

/// Ranks from 1 on.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &place in equal {
            ranks[place] = start as f64 + (equal.len() as f64 + 1.0) / 2.0;
        }
        start += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_so_many_do_not_exceed() {
        let of = |count: usize| Cosines::of((1..=count).rev().map(|n| n as f64).collect());
        let found = of(100);
        assert_eq!((found.mean, found.p5, found.least), (50.5, 5.0, 1.0));
        assert_eq!(of(1).p5, 1.0);
        assert_eq!(of(21).p5, 2.0);
    }

    #[test]
    fn correlation_is_of_ranks() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12);
        let rising = [1.0, 2.0, 3.0, 4.0];
        close(spearman(&rising, &[0.1, 0.2, 0.9, 0.95]).unwrap(), 1.0);
        close(spearman(&rising, &[4.0, 3.0, 2.0, -9.0]).unwrap(), -1.0);
        // By SciPy's spearmanr.
        let tied = spearman(&rising, &[1.0, 3.0, 3.0, 2.0]).unwrap();
        close(tied, 0.316_227_766_016_837_94);
        assert!(spearman(&rising, &[2.0; 4]).is_err());
        assert!(spearman(&[], &[]).is_err());
    }

    #[test]
    fn a_cosine_is_of_the_angle() {
        assert!((cosine(&[1.0, 0.0], &[2.0, 2.0]) - 0.5f64.sqrt()).abs() < 1e-12);
    }
}
