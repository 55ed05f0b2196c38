//! Batch norm in training.

use alloc::vec;
use alloc::vec::Vec;

use super::generic::{GradMoments, Moments, Planewise};
use super::threads::{self, Shared};
use super::{Isa, assert_len};
use crate::math::sqrt;

/// Batch norm of values `[batch, channels, len]`, each channel by the statistics of the batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm {
    /// Images.
    pub batch: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Values of a channel of an image.
    pub len: usize,
    /// `ε`, added to variances.
    pub epsilon: f64,
}

/// What a batch tells of its channels, `[channels]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Means.
    pub mean: Vec<f32>,
    /// Means of squared differences.
    pub variance: Vec<f32>,
}

/// Gradients with regard to the terms of a batch norm, `[channels]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TermGrads {
    /// Of `γ`.
    pub gamma: Vec<f32>,
    /// Of `β`.
    pub beta: Vec<f32>,
}

impl BatchNorm {
    /// `γ·(x − mean)/√(variance + ε) + β`, with mean and variance of each channel, which it returns.
    ///
    /// Sums of a channel of an image are in f32, sums of those in f64.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels, len]`
    /// - `gamma`, `beta`: `[channels]`
    /// - `output`: `[batch, channels, len]`, written whole
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn forward(
        &self,
        isa: Isa,
        input: &[f32],
        [gamma, beta]: [&[f32]; 2],
        output: &mut [f32],
    ) -> Statistics {
        self.check("input", input);
        self.check("output", output);
        self.check_terms([("gamma", gamma), ("beta", beta)]);
        let moments = self.each_channel(|channel| {
            let mut moments = [0.0; 2];
            isa.run(Moments {
                planes: input,
                first: channel,
                step: self.channels,
                len: self.len,
                moments: &mut moments,
            });
            moments
        });
        let [mean, variance] = [0, 1].map(|of| moments.iter().map(|m| m[of] as f32).collect());
        let statistics = Statistics { mean, variance };
        let factors = moments.iter().zip(gamma).zip(beta);
        let factors: Vec<[f32; 3]> = factors
            .map(|((&[mean, variance], &gamma), &beta)| {
                let factor = f64::from(gamma) / sqrt((variance + self.epsilon) as f32) as f64;
                [factor as f32, 0.0, (f64::from(beta) - mean * factor) as f32]
            })
            .collect();
        self.planewise(isa, [input, input], &factors, output);
        statistics
    }

    /// Gradients of a loss with regard to input, `γ` and `β`, of that with regard to the output.
    ///
    /// # Shapes
    /// - `input`, `grad`: `[batch, channels, len]`
    /// - `gamma`: `[channels]`
    /// - `input_grad`: `[batch, channels, len]`, written whole
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn backward(
        &self,
        isa: Isa,
        [input, grad]: [&[f32]; 2],
        gamma: &[f32],
        statistics: &Statistics,
        input_grad: &mut [f32],
    ) -> TermGrads {
        self.check("input", input);
        self.check("grad", grad);
        self.check("input_grad", input_grad);
        let Statistics { mean, variance } = statistics;
        self.check_terms([("gamma", gamma), ("mean", mean)]);
        self.check_terms([("gamma", gamma), ("variance", variance)]);
        // Σ g and Σ g·(x − mean).
        let sums = self.each_channel(|channel| {
            let mut sums = [0.0; 2];
            isa.run(GradMoments {
                planes: [input, grad],
                first: channel,
                step: self.channels,
                len: self.len,
                center: mean[channel],
                sums: &mut sums,
            });
            sums
        });
        let deviations = variance.iter().map(|&v| {
            let variance = f64::from(v) + self.epsilon;
            f64::from(sqrt(variance as f32))
        });
        let deviations: Vec<f64> = deviations.collect();
        let count = (self.batch * self.len) as f64;
        let factors = (0..self.channels).map(|channel| {
            let ([sum, along], deviation) = (sums[channel], deviations[channel]);
            let factor = f64::from(gamma[channel]) / deviation;
            // factor·(g − mean g − (x − mean)·mean(g·(x − mean))/deviation²)
            let slope = -factor * along / count / (deviation * deviation);
            let shift = -factor * sum / count - slope * f64::from(mean[channel]);
            [slope as f32, factor as f32, shift as f32]
        });
        let factors: Vec<[f32; 3]> = factors.collect();
        self.planewise(isa, [input, grad], &factors, input_grad);
        let of_gamma = sums
            .iter()
            .zip(&deviations)
            .map(|([_, along], d)| along / d);
        TermGrads {
            gamma: of_gamma.map(|grad| grad as f32).collect(),
            beta: sums.iter().map(|[sum, _]| *sum as f32).collect(),
        }
    }

    /// Two numbers of each channel.
    fn each_channel(&self, numbers: impl Fn(usize) -> [f64; 2] + Sync + Send) -> Vec<[f64; 2]> {
        let mut found = vec![[0.0; 2]; self.channels];
        let shared = Shared::new(&mut found);
        threads::for_each(self.channels, self.cost(), |channel| {
            // SAFETY: each task has a place of its own.
            let place = unsafe { shared.part(channel, 1) };
            place[0] = numbers(channel);
        });
        found
    }

    /// `a·x + b·y + c` with factors `[a, b, c]` of each channel.
    fn planewise(&self, isa: Isa, from: [&[f32]; 2], factors: &[[f32; 3]], to: &mut [f32]) {
        let image = self.channels * self.len;
        let to = Shared::new(to);
        threads::for_each(self.batch, self.cost(), |number| {
            isa.run(Planewise {
                from: from.map(|values| &values[number * image..][..image]),
                factors,
                len: self.len,
                // SAFETY: each task has an image of its own.
                to: unsafe { to.part(number * image, image) },
            });
        });
    }

    fn cost(&self) -> usize {
        self.batch * self.channels * self.len / 4
    }

    fn check(&self, name: &'static str, values: &[f32]) {
        let axes = [
            ("batch", self.batch),
            ("channels", self.channels),
            ("len", self.len),
        ];
        assert_len("batch_norm", name, values.len(), &axes);
    }

    fn check_terms(&self, terms: [(&'static str, &[f32]); 2]) {
        for (name, term) in terms {
            assert_len(
                "batch_norm",
                name,
                term.len(),
                &[("channels", self.channels)],
            );
        }
    }
}
