//! The network as Burn's Learner trains it.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn_train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use lenet5_mnist::LeNet5;

use example_common::Network as _;

use crate::data::Part;

/// LeNet5 that learns to classify.
#[derive(Module, Debug)]
pub struct Classifier {
    pub network: LeNet5,
}

impl Classifier {
    fn compare(&self, part: Part) -> ClassificationOutput {
        let scores = self.network.forward(part.images);
        let loss = CrossEntropyLossConfig::new().init(&scores.device());
        let loss = loss.forward(scores.clone(), part.labels.clone());
        ClassificationOutput::new(loss, scores, part.labels)
    }
}

impl TrainStep for Classifier {
    type Input = Part;
    type Output = ClassificationOutput;

    /// Gradients of the part's share in the loss of the batch: those of all parts add up to those of the
    /// batch.
    fn step(&self, part: Part) -> TrainOutput<ClassificationOutput> {
        let share = part.share;
        let item = self.compare(part);
        let loss = item.loss.clone() * share;
        TrainOutput::new(self, loss.backward(), item)
    }
}

impl InferenceStep for Classifier {
    type Input = Part;
    type Output = ClassificationOutput;

    fn step(&self, part: Part) -> ClassificationOutput {
        self.compare(part)
    }
}
