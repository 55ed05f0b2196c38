//! Packed layers in f64: plain loops over the unpacked weight, and how far f32 may be from them.

use burn::module::Param;
use burn::nn::BatchNorm;
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::Arithmetic;
use multibit::cpu::{Conv2dOptions, Levels, conv2d_output_shape};
use multibit::{Grouping, MAX_BITS, PackedWeight};

use crate::support::{Random, State, narrow, random_groups, widen};

/// A weight whose groups have 0 to 8 bits in turn.
pub fn weight(random: &mut Random, shape: &[usize], grouping: Grouping) -> PackedWeight {
    let len = grouping.len();
    let widths: Vec<usize> = (0..grouping.groups(shape))
        .map(|group| group % (MAX_BITS + 1))
        .collect();
    let state = State::new(&random_groups(random, len, &widths), len, MAX_BITS);
    let state = state.state;
    let (codes, coordinates, widths) = (&state.codes, &state.coordinates, &state.widths);
    PackedWeight::pack(shape, grouping, MAX_BITS, codes, coordinates, widths).unwrap()
}

/// A weight in f64, as that of a 2-D convolution.
pub struct Dense {
    shape: [usize; 4],
    pub values: Vec<f64>,
    /// Of each weight the sum of its group's coordinates: what its bits are before they cancel.
    pub magnitudes: Vec<f64>,
    /// How much of each weight int8 arithmetic may round off: what `Mode::Int8` calls ε, of coordinates in
    /// fours.
    roundings: Vec<f64>,
}

impl Dense {
    pub fn new(weight: &PackedWeight) -> Self {
        let (grouping, shape) = (weight.grouping(), weight.shape());
        let (_, coordinates, _) = weight.to_training_form(MAX_BITS);
        let of_groups = |number: fn(&[f64]) -> f64| {
            let numbers = coordinates
                .chunks_exact(MAX_BITS)
                .flat_map(|slots| std::iter::repeat_n(number(&widen(slots)), grouping.len()));
            let grouped: Vec<f64> = numbers.collect();
            let mut all = vec![0.0; grouped.len()];
            grouping.scatter(shape, &grouped, &mut all);
            all
        };
        let magnitudes = of_groups(|slots| slots.iter().sum());
        let roundings = of_groups(|slots| {
            let fours = slots.chunks(4).map(|four| {
                let bases = four.iter().filter(|&&coordinate| coordinate != 0.0).count();
                let share = [0.0, 0.0, 1.0 / 114.0, 1.0 / 57.0, 1.0 / 38.0][bases];
                share * four.iter().sum::<f64>()
            });
            fours.sum()
        });
        let values = widen(&weight.unpack());
        let turned = |x: Vec<f64>| match *shape {
            // A linear layer's inputs are its first axis.
            [d_in, d_out] => (0..x.len())
                .map(|i| x[i % d_in * d_out + i / d_in])
                .collect(),
            _ => x,
        };
        Self {
            shape: match *shape {
                [d_in, d_out] => [d_out, d_in, 1, 1],
                [out, channels, width] => [out, channels, 1, width],
                _ => shape.try_into().unwrap(),
            },
            values: turned(values),
            magnitudes: turned(magnitudes),
            roundings: turned(roundings),
        }
    }
}

/// From so many rows on, a linear layer in int8 arithmetic rounds single inputs, and coordinates.
const INT8_ROWS: usize = 8;

/// What a layer is given, and what its arithmetic makes of that.
pub struct Input {
    shape: [usize; 4],
    pub given: Vec<f32>,
    pub seen: Vec<f64>,
    /// The sums of magnitudes that each input stands for.
    pub magnitudes: Vec<f64>,
    /// Whether the weight's coordinates are rounded too.
    rounds_weights: bool,
}

/// The levels of inputs in bitwise arithmetic.
pub fn levels() -> Levels {
    Levels::new(0.4, &[0.5, 0.2, 0.1]).unwrap()
}

impl Input {
    /// Of int8 arithmetic, values that are not rounded: multiples of a scale that the first values of
    /// each image, or of each row of a linear layer, decide on.
    pub fn new(random: &mut Random, arithmetic: Arithmetic, shape: [usize; 4]) -> Self {
        let len = shape.iter().product();
        let mut given = narrow(&random.normals(len, 1.0));
        if arithmetic == Arithmetic::Int8 {
            // A linear layer of few rows rounds sums of four, which must not be above 127 either.
            let [rows, _, height, width] = shape;
            let first: &[f32] = match height * width {
                1 if rows < INT8_ROWS => &[31.0, -32.0, 32.0, -32.0],
                _ => &[-127.0],
            };
            for (index, x) in given.iter_mut().enumerate() {
                let place = index % (len / shape[0]);
                let whole = |x: f32| (x * 10.0).clamp(-31.0, 31.0).round();
                *x = first.get(place).copied().unwrap_or(whole(*x)) / 64.0;
            }
        }
        let seen = |x: &f32| match arithmetic {
            Arithmetic::Bitwise => levels().quantize(*x),
            _ => *x,
        };
        let seen = widen(&given.iter().map(seen).collect::<Vec<f32>>());
        let magnitude = |x: &f64| match arithmetic {
            Arithmetic::Bitwise => 0.4 + 0.8,
            _ => x.abs(),
        };
        Self {
            shape,
            magnitudes: seen.iter().map(magnitude).collect(),
            // Linear layers of few rows round none, see `Mode::Int8`.
            rounds_weights: arithmetic == Arithmetic::Int8
                && (shape[2] * shape[3] > 1 || shape[0] >= INT8_ROWS),
            given,
            seen,
        }
    }

    /// The values in three layouts of memory.
    pub fn layouts<const D: usize>(
        &self,
        shape: [usize; D],
        device: &Device,
    ) -> [(&'static str, Tensor<D>); 3] {
        let plain = Tensor::from_data(TensorData::new(self.given.clone(), shape), device);
        let axes: [usize; D] = core::array::from_fn(|axis| D - 1 - axis);
        let reversed = plain.clone().permute(axes).into_data();
        let permuted = Tensor::from_data(reversed, device).permute(axes);
        let inner = shape.map(|size| 1..size + 1);
        let around = Tensor::full(shape.map(|size| size + 2), f32::NAN, device);
        let cut = around
            .slice_assign(inner.clone(), plain.clone())
            .slice(inner);
        [("plain", plain), ("permuted", permuted), ("cut", cut)]
    }

    /// The layer's sums, `scale·Σ + offset` of each output, in f64.
    pub fn sums(&self, weight: &PackedWeight, options: &Conv2dOptions, affine: &Affine) -> Sums {
        let dense = Dense::new(weight);
        let [_, group_in, kernel_height, kernel_width] = dense.shape;
        let shape = conv2d_output_shape(self.shape, &dense.shape, options);
        let [batch, out, out_height, out_width] = shape;
        let [_, channels, height, width] = self.shape;
        let mut sums = Sums::default();
        let place = |axis: usize, out: usize, kernel: usize, size: usize| {
            let padded = out * options.stride[axis] + kernel * options.dilation[axis];
            let place = padded.checked_sub(options.padding[axis].0);
            place.filter(|place| *place < size)
        };
        for index in 0..batch * out * out_height * out_width {
            let (column, row) = (index % out_width, index / out_width % out_height);
            let o = index / (out_width * out_height) % out;
            let image = index / (out_width * out_height * out);
            let first = o / (out / options.groups) * group_in;
            let [mut sum, mut magnitude, mut rounding] = [0.0; 3];
            for k in 0..group_in * kernel_height * kernel_width {
                let (kernel_column, kernel_row) =
                    (k % kernel_width, k / kernel_width % kernel_height);
                let channel = first + k / (kernel_width * kernel_height);
                let y = place(0, row, kernel_row, height);
                let x = place(1, column, kernel_column, width);
                if let (Some(y), Some(x)) = (y, x) {
                    let from = ((image * channels + channel) * height + y) * width + x;
                    let w = o * group_in * kernel_height * kernel_width + k;
                    sum += self.seen[from] * dense.values[w];
                    magnitude += self.magnitudes[from] * dense.magnitudes[w];
                    if self.rounds_weights {
                        rounding += self.magnitudes[from] * dense.roundings[w];
                    }
                }
            }
            let (scale, offset) = (affine.scale[o], affine.offset[o]);
            sums.values.push(scale * sum + offset);
            sums.magnitudes
                .push(scale.abs() * magnitude + affine.offset_magnitudes[o]);
            sums.roundings.push(scale.abs() * rounding);
        }
        sums
    }
}

/// Outputs in f64, and the sums of the magnitudes of all terms.
#[derive(Default)]
pub struct Sums {
    pub values: Vec<f64>,
    pub magnitudes: Vec<f64>,
    /// What rounding the weight may add to each.
    roundings: Vec<f64>,
}

/// Some sixteen roundings of the sum of all magnitudes: in sums of some hundred terms in f32, in any
/// order, most of the others cancel. (Measured on Flex, NdArray and wgpu: at most two.)
pub fn room(magnitude: f64) -> f64 {
    1e-6 * magnitude
}

impl Sums {
    /// How far an output may be from its value.
    pub fn room(&self, index: usize) -> f64 {
        room(self.magnitudes[index]) + self.roundings[index]
    }

    pub fn check<const D: usize>(&self, found: Tensor<D>, what: &str) {
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        assert_eq!(found.len(), self.values.len(), "{what}");
        for (i, &found) in widen(&found).iter().enumerate() {
            let (expected, room) = (self.values[i], self.room(i));
            assert!(
                (found - expected).abs() <= room,
                "{what}: {found} at {i} is not {expected} up to {room:e}"
            );
        }
    }
}

/// Scale and offset of each output in f64, and the magnitudes of what the offset is made from.
pub struct Affine {
    scale: Vec<f64>,
    offset: Vec<f64>,
    offset_magnitudes: Vec<f64>,
}

impl Affine {
    pub fn bias(bias: &Option<Param<Tensor<1>>>) -> Self {
        let bias = numbers(bias.as_ref().unwrap().val());
        Self {
            scale: vec![1.0; bias.len()],
            offset_magnitudes: bias.iter().map(|b| b.abs()).collect(),
            offset: bias,
        }
    }

    /// A bias, then batch norm.
    pub fn norm(bias: &Option<Param<Tensor<1>>>, norm: &BatchNorm) -> Self {
        let mut affine = Self::bias(bias);
        let [gamma, beta] = [&norm.gamma, &norm.beta].map(|x| numbers(x.val()));
        let [mean, var] = [&norm.running_mean, &norm.running_var].map(|x| numbers(x.value()));
        for o in 0..gamma.len() {
            let scale = gamma[o] / (var[o] + norm.epsilon).sqrt();
            let bias = affine.offset[o];
            affine.scale[o] = scale;
            affine.offset[o] = (bias - mean[o]) * scale + beta[o];
            affine.offset_magnitudes[o] =
                (bias.abs() + mean[o].abs()) * scale.abs() + beta[o].abs();
        }
        affine
    }
}

pub fn numbers(tensor: Tensor<1>) -> Vec<f64> {
    widen(&tensor.into_data().try_into_vec::<f32>().unwrap())
}
