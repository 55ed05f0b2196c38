//! Files with chains, made of random weights.

use std::borrow::Cow;

use multibit::cpu::{Arithmetic, Levels};
use multibit::file::{
    About, Coding, Contents, Input, Layer, Norm, NumberType, Numbers, Op, Step, container,
};
use multibit::{Grouping, PackedWeight};

use super::{Random, packed};

/// A model under construction.
pub struct Model {
    pub random: Random,
    weights: Vec<(String, PackedWeight, Option<Arithmetic>)>,
    tensors: Vec<(String, Vec<f32>)>,
    input: Input,
    labels: Vec<String>,
    chain: Vec<Step<usize>>,
}

impl Model {
    pub fn new(seed: u64, input: impl Into<Vec<usize>>) -> Self {
        Self {
            random: Random::new(seed),
            weights: Vec::new(),
            tensors: Vec::new(),
            input: Input::new(input),
            labels: Vec::new(),
            chain: Vec::new(),
        }
    }

    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    pub fn labels(mut self, labels: &[&str]) -> Self {
        self.labels = labels.iter().map(|label| label.to_string()).collect();
        self
    }

    pub fn tensor(&mut self, numbers: Vec<f32>) -> usize {
        self.tensors
            .push((format!("tensor{}", self.tensors.len()), numbers));
        self.tensors.len() - 1
    }

    /// A layer with a weight, a bias and batch norm, at choice.
    pub fn layer(
        &mut self,
        shape: &[usize],
        grouping: Grouping,
        widest: usize,
        arithmetic: Arithmetic,
        [bias, norm]: [bool; 2],
    ) -> Layer<usize> {
        let outputs = shape[grouping.axes()[0]];
        let weight = packed(&mut self.random, shape, grouping, widest);
        let entry = (arithmetic != Arithmetic::Exact).then_some(arithmetic);
        self.weights
            .push((format!("weight{}", self.weights.len()), weight, entry));
        let weight = self.weights.len() - 1;
        let bias = bias.then(|| {
            let numbers = self.random.normals(outputs, 1.0);
            self.tensor(numbers)
        });
        let norm = norm.then(|| {
            let [gamma, beta, mean] = [0; 3].map(|_| {
                let numbers = self.random.normals(outputs, 1.0);
                self.tensor(numbers)
            });
            let variance = (0..outputs).map(|_| 0.1 + self.random.unit()).collect();
            Norm {
                gamma,
                beta,
                mean,
                variance: self.tensor(variance),
                epsilon: 1e-5,
            }
        });
        Layer {
            weight,
            bias,
            norm,
            arithmetic: None,
        }
    }

    pub fn levels(&mut self, levels: &Levels) {
        let mut state = vec![levels.bits() as f32, levels.reference()];
        state.extend(levels.coordinates());
        state.resize(6, 0.0);
        let state = self.tensor(state);
        self.step(Op::Levels(state));
    }

    pub fn step(&mut self, op: Op<usize>) {
        self.chain.push(Step { input: None, op });
    }

    pub fn step_of(&mut self, value: usize, op: Op<usize>) {
        let input = (value != self.chain.len()).then_some(value);
        self.chain.push(Step { input, op });
    }

    /// The last value.
    pub fn value(&self) -> usize {
        self.chain.len()
    }

    pub fn file(&self, coding: Coding) -> Vec<u8> {
        let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let shapes: Vec<[usize; 1]> = self.tensors.iter().map(|(_, x)| [x.len()]).collect();
        let contents = Contents {
            weights: self
                .weights
                .iter()
                .map(|(path, weight, arithmetic)| (path.as_str(), weight, *arithmetic))
                .collect(),
            tensors: self
                .tensors
                .iter()
                .zip(&shapes)
                .map(|((path, numbers), shape)| Numbers {
                    path,
                    shape,
                    number_type: NumberType::F32,
                    bytes: Cow::Owned(bytes(numbers)),
                })
                .collect(),
            config: vec![("key", "value")],
            about: About {
                name: "a model".into(),
                input: Some(self.input.clone()),
                labels: self
                    .labels
                    .iter()
                    .map(|label| label.as_str().into())
                    .collect(),
                chain: self.chain.clone(),
            },
            ..Contents::default()
        };
        container(&contents.body(coding).unwrap())
    }
}
