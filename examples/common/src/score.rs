//! Right and wrong predictions.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};
use indicatif::ProgressBar;

use crate::data::{Images, stream};
use crate::{Failure, Network};

/// Counts of a few kinds, summed on the device: reading them waits for it.
#[derive(Default)]
pub struct Counts(Option<Tensor<1, Int>>);

impl Counts {
    pub fn add(&mut self, counts: Vec<Tensor<1, Int>>) {
        let counts = Tensor::cat(counts, 0);
        self.0 = Some(match self.0.take() {
            Some(sum) => sum + counts,
            None => counts,
        });
    }

    /// One sum a kind.
    pub fn read<const N: usize>(self) -> [usize; N] {
        let Some(sum) = self.0 else { return [0; N] };
        let data = sum.into_data_as::<i32>();
        let sums: Vec<i32> = data.try_into_vec().expect("converted to i32");
        std::array::from_fn(|kind| sums[kind] as usize)
    }
}

/// Counts right predictions.
#[derive(Default)]
pub struct Tally {
    images: usize,
    right: Counts,
}

impl Tally {
    /// Counts a batch, of scores `[images, classes]` and labels `[images]`.
    pub fn add(&mut self, scores: Tensor<2>, labels: Tensor<1, Int>) {
        self.images += labels.dims()[0];
        let rank = rank(scores, labels);
        let right = [1, 5].map(|end| rank.clone().lower_elem(end).int().sum());
        self.right.add(right.into());
    }

    /// What was counted.
    pub fn read(self) -> Accuracy {
        let images = self.images;
        let percent = |right| 100.0 * right as f64 / images.max(1) as f64;
        let [top1, top5] = self.right.read().map(percent);
        Accuracy { images, top1, top5 }
    }
}

/// How near a network's predictions are to another's.
#[derive(Default)]
pub struct Agreement {
    images: usize,
    same: usize,
    divergence: f64,
}

impl Agreement {
    /// Adds a batch, of the scores `[images, classes]` of the float network and of another one.
    pub fn add(&mut self, float: Tensor<2>, other: Tensor<2>) {
        let [images, classes] = float.dims();
        self.images += images;
        let best = [&float, &other].map(|scores| scores.clone().argmax(1));
        let [float_best, other_best] = best;
        let mut same = Counts::default();
        same.add(vec![float_best.equal(other_best).int().sum()]);
        let [same] = same.read();
        self.same += same;
        let [p, q] = [float, other].map(|scores| {
            let data = log_softmax(scores, 1).into_data_as::<f32>();
            let logs: Vec<f32> = data.try_into_vec().expect("converted to f32");
            assert_eq!(logs.len(), images * classes, "scores of other shapes");
            logs
        });
        let pairs = p.into_iter().zip(q);
        self.divergence += pairs
            .map(|(p, q)| f64::from(p).exp() * f64::from(p - q))
            .sum::<f64>();
    }

    /// The share of images whose highest score is of the same class, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.same as f64 / self.images.max(1) as f64
    }

    /// The mean Kullback-Leibler divergence `Σ p ln(p / q)` of the other network's probabilities `q` from
    /// the float network's `p`, in nats.
    pub fn divergence(&self) -> f64 {
        self.divergence / self.images.max(1) as f64
    }
}

/// Shares of images in percent.
#[derive(Debug, Clone, Copy)]
pub struct Accuracy {
    pub images: usize,
    /// The share whose class has the highest score.
    pub top1: f64,
    /// The share whose class has one of the five highest scores.
    pub top5: f64,
}

/// Classes before an image's own: with higher scores, or equal ones and a lower number. All of them
/// where its own score is NaN.
fn rank(scores: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<2, Int> {
    let [images, classes] = scores.dims();
    let labels = labels.reshape([images, 1]);
    let own = scores.clone().gather(1, labels.clone());
    let lower = Tensor::<1, Int>::arange(0..classes as i64, &scores.device())
        .reshape([1, classes])
        .expand([images, classes])
        .lower(labels.expand([images, classes]));
    let unknown = own.clone().is_nan().expand([images, classes]);
    let own = own.expand([images, classes]);
    let tied = scores.clone().equal(own.clone()).bool_and(lower);
    let before = scores.greater(own).bool_or(tied).bool_or(unknown);
    before.int().sum_dim(1)
}

/// Shows all images of a split to `see`, in batches, with their labels, on the device.
pub fn visit<N: Network>(
    images: &Arc<dyn Images>,
    device: &Device,
    bar: &ProgressBar,
    mut see: impl FnMut(Tensor<4>, Tensor<1, Int>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let count = images.count();
    let starts = (0..count).step_by(N::EVAL_BATCH);
    let requests = starts.map(move |start| {
        let end = (start + N::EVAL_BATCH).min(count);
        ((start as u32..end as u32).collect(), None)
    });
    for batch in stream(images.clone(), requests) {
        let batch = batch?;
        let (input, labels) = batch.tensors(0..batch.labels.len(), device);
        see(input, labels)?;
        bar.inc(N::EVAL_BATCH as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Evaluates one network on a split.
pub fn evaluate<N: Network>(
    model: &N,
    images: &Arc<dyn Images>,
    device: &Device,
    bar: &ProgressBar,
) -> Result<Accuracy, Failure> {
    let mut tally = Tally::default();
    visit::<N>(images, device, bar, |input, labels| {
        tally.add(model.forward(input), labels);
        Ok(())
    })?;
    Ok(tally.read())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_classes_and_compares_probabilities() {
        let device = Device::default();
        let scores = |a: [[f32; 2]; 2]| Tensor::from_floats(a, &device);
        // Probabilities 3/4 and 1/4 against the reverse, and the same ones with another sum of scores.
        let (ln3, mut found) = (3f32.ln(), Agreement::default());
        found.add(
            scores([[ln3, 0.0], [ln3, 0.0]]),
            scores([[0.0, ln3], [ln3 + 7.0, 7.0]]),
        );
        assert_eq!(found.percent(), 50.0);
        let expected = 0.5 * (0.75 - 0.25) * f64::from(ln3);
        // Rounding of logarithms in f32.
        assert!((found.divergence() - expected).abs() < 1e-6);
    }

    #[test]
    fn ranks_count_ties_for_the_first() {
        let device = Device::default();
        let mut tally = Tally::default();
        let scores = Tensor::from_floats([[0.0, 3.0, 3.0, 2.0, 1.0, 0.5, -1.0]], &device);
        for label in 0..7 {
            tally.add(scores.clone(), Tensor::from_ints([label], &device));
        }
        let nan = Tensor::full([1, 7], f32::NAN, &device);
        tally.add(nan, Tensor::from_ints([0], &device));
        let found = tally.read();
        assert_eq!(found.images, 8);
        assert_eq!([found.top1, found.top5], [100.0 / 8.0, 500.0 / 8.0]);
    }
}
