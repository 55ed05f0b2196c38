//! Right and wrong predictions.

use std::io::IsTerminal;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};

use crate::data::{Images, stream};
use crate::{Batch, Failure, Network};

/// Counts of right predictions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub images: usize,
    top1: usize,
    top5: usize,
}

impl Tally {
    /// Counts a batch, of scores `[images * classes]`.
    pub fn add(&mut self, scores: &[f32], labels: &[i32]) {
        let classes = scores.len() / labels.len();
        for (scores, &label) in scores.chunks_exact(classes).zip(labels) {
            let rank = rank(scores, label as usize);
            self.images += 1;
            self.top1 += usize::from(rank == 0);
            self.top5 += usize::from(rank < 5);
        }
    }

    /// Share of images whose class has the highest score, in percent.
    pub fn top1(&self) -> f64 {
        self.percent(self.top1)
    }

    /// Share of images whose class has one of the five highest scores, in percent.
    pub fn top5(&self) -> f64 {
        self.percent(self.top5)
    }

    fn percent(&self, right: usize) -> f64 {
        100.0 * right as f64 / self.images.max(1) as f64
    }
}

/// Classes before this one: with higher scores, or equal ones and a lower number.
fn rank(scores: &[f32], label: usize) -> usize {
    let Some(&own) = scores.get(label).filter(|own| !own.is_nan()) else {
        return scores.len();
    };
    let before = |&(class, &score): &(usize, &f32)| score > own || (score == own && class < label);
    scores.iter().enumerate().filter(before).count()
}

/// Images of a batch for which two networks predict different classes.
pub fn differences(a: &[f32], b: &[f32], classes: usize) -> usize {
    let pairs = a.chunks_exact(classes).zip(b.chunks_exact(classes));
    pairs.filter(|(a, b)| best(a) != best(b)).count()
}

/// The class with the highest score; of equal ones the first.
fn best(scores: &[f32]) -> usize {
    let classes = 1..scores.len();
    classes.fold(0, |best, class| {
        if scores[class] > scores[best] {
            class
        } else {
            best
        }
    })
}

/// Shows all images of a split to `see`, in batches, with the input on the device.
pub fn visit<N: Network>(
    images: &Arc<dyn Images>,
    device: &Device,
    show: bool,
    mut see: impl FnMut(&Batch, Tensor<4>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let count = images.count();
    let starts = (0..count).step_by(N::EVAL_BATCH);
    let requests = starts.map(move |start| {
        let end = (start + N::EVAL_BATCH).min(count);
        ((start as u32..end as u32).collect(), None)
    });
    let terminal = show && std::io::stderr().is_terminal();
    let bar = terminal.then(|| {
        let style = ProgressStyle::with_template("evaluation {bar:24} {pos}/{len} ETA {eta}");
        ProgressBar::new(count as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    for batch in stream(images.clone(), requests) {
        let batch = batch?;
        let (input, _) = batch.tensors(0..batch.labels.len(), device);
        see(&batch, input)?;
        if let Some(bar) = &bar {
            bar.inc(N::EVAL_BATCH as u64);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}

/// Scores of a batch, `[images * classes]`.
pub fn scores<N: Network>(model: &N, input: Tensor<4>) -> Vec<f32> {
    let data = model.forward(input).into_data();
    data.try_into_vec().expect("scores are f32")
}

/// Evaluates one network on a split.
pub fn evaluate<N: Network>(
    model: &N,
    images: &Arc<dyn Images>,
    device: &Device,
    show: bool,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    visit::<N>(images, device, show, |batch, input| {
        tally.add(&scores(model, input), &batch.labels);
        Ok(())
    })?;
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_ties_for_the_first() {
        let mut tally = Tally::default();
        let scores = [0.0, 3.0, 3.0, 2.0, 1.0, 0.5, -1.0];
        for label in 0..7 {
            tally.add(&scores, &[label]);
        }
        assert_eq!((tally.images, tally.top1, tally.top5), (7, 1, 5));
        tally.add(&[f32::NAN; 7], &[0]);
        assert_eq!((tally.images, tally.top1, tally.top5), (8, 1, 5));
        assert_eq!(
            differences(&[0.0, 1.0, 1.0, 0.0], &[0.0, 1.0, 0.0, 0.0], 2),
            0
        );
    }
}
