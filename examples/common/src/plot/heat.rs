//! What bits of each weight are worth, as cells.

use burn_alq::analysis::{Sensitivity, WeightLoss};
use plotters::style::text_anchor::HPos;

use super::canvas::{LINE, WIDTH, rectangle, svg, text, text_width};
use super::palette::{INK, MUTED, PAPER, PRUNED, STEPS, ramp};
use super::{Figure, layer_name, row, short};

/// The measured and the predicted increase of the loss for each weight at each bitwidth.
pub fn sensitivity(sensitivity: &Sensitivity) -> [Figure; 2] {
    let weights = sensitivity.weights.iter();
    let values = weights.flat_map(|weight| [weight.measured, weight.predicted]);
    let scale = Scale {
        most: values.fold(f64::MIN_POSITIVE, f64::max),
    };
    let correlation = sensitivity.rank_correlation();
    [
        Heat {
            name: "measured",
            title: "Measured increase of the loss",
            caption: format!(
                "One weight at so many bits, everything else in float; mean of {} batches, the float \
                 loss is {}. Logarithmic colours.",
                sensitivity.batches,
                short(sensitivity.loss)
            ),
            of: |weight| weight.measured,
        },
        Heat {
            name: "predicted",
            title: "Predicted increase of the loss",
            caption: format!(
                "By the local model. Rank correlation with what was measured: {correlation:.2}."
            ),
            of: |weight| weight.predicted,
        },
    ]
    .map(|heat| heat.draw(sensitivity, &scale))
}

/// Logarithmic, the same for both figures; what lowers the loss, or raises it by less than a
/// thousandth of the most, has the weakest colour.
struct Scale {
    most: f64,
}

impl Scale {
    const DECADES: f64 = 3.0;

    fn step(&self, value: f64) -> usize {
        let decades = (value.max(f64::MIN_POSITIVE) / self.most).log10();
        let share = (1.0 + decades / Self::DECADES).clamp(0.0, 1.0);
        (share * (STEPS - 1) as f64).round() as usize
    }
}

struct Heat {
    name: &'static str,
    title: &'static str,
    caption: String,
    of: fn(&WeightLoss) -> f64,
}

impl Heat {
    fn draw(self, sensitivity: &Sensitivity, scale: &Scale) -> Figure {
        let layers = sensitivity.weights.chunk_by(|a, b| a.path == b.path);
        let layers: Vec<&[WeightLoss]> = layers.collect();
        let bits = sensitivity.weights.iter().map(|weight| weight.bits);
        let most = bits.max().unwrap_or(0);
        let head = (0..=most).rev().map(|bits| bits.to_string());
        let mut numbers = vec![row("weight", head)];
        for weights in &layers {
            let value = |bits: usize| {
                let weight = weights.iter().find(|weight| weight.bits == bits);
                weight.map_or(String::new(), |weight| short((self.of)(weight)))
            };
            numbers.push(row(
                layer_name(&weights[0].path),
                (0..=most).rev().map(value),
            ));
        }
        Figure {
            name: self.name.into(),
            title: self.title.into(),
            svg: self.svg(&layers, most, scale),
            caption: self.caption,
            numbers,
        }
    }

    fn svg(&self, layers: &[&[WeightLoss]], most: usize, scale: &Scale) -> String {
        let name = |weights: &[WeightLoss]| layer_name(&weights[0].path).to_string();
        let widths = layers.iter().map(|weights| text_width(&name(weights)));
        let left = widths.max().unwrap_or(0) + 16;
        let width = (WIDTH - left) / (most as i32 + 1);
        let height = LINE + 8;
        let top = 2 * LINE;
        svg(top + height * layers.len() as i32 + 4, |area| {
            let at = (left, LINE / 2);
            text(area, "bits of a weight →", at, HPos::Left, MUTED);
            for bits in 0..=most {
                let x = left + width * (most - bits) as i32 + width / 2;
                let at = (x, top - LINE / 2);
                text(area, &bits.to_string(), at, HPos::Center, MUTED);
            }
            for (index, weights) in layers.iter().enumerate() {
                let y = top + height * index as i32;
                let at = (left - 14, y + height / 2);
                text(area, &name(weights), at, HPos::Right, INK);
                for weight in *weights {
                    let x = left + width * (most - weight.bits) as i32;
                    let value = (self.of)(weight);
                    let step = scale.step(value);
                    let cell = if value > 0.0 { ramp(step) } else { PRUNED };
                    let dark = value > 0.0 && step > STEPS / 3;
                    let ink = if dark { PAPER } else { INK };
                    rectangle(area, (x, y), (x + width - 3, y + height - 3), cell);
                    let at = (x + width / 2 - 1, y + height / 2 - 1);
                    text(area, &tiny(value), at, HPos::Center, ink);
                }
            }
        })
    }
}

/// A number in few characters.
fn tiny(value: f64) -> String {
    match value.abs() {
        nothing if nothing < 1e-6 => "0".into(),
        small if small < 0.0005 => format!("{value:.0e}"),
        small if small < 0.1 => format!("{value:.3}"),
        some if some < 10.0 => format!("{value:.2}"),
        many if many < 10_000.0 => format!("{value:.0}"),
        _ => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bits: usize, measured: f64, predicted: f64) -> WeightLoss {
        WeightLoss {
            path: "fc.weight".into(),
            grouping: "channelwise".into(),
            bits,
            bytes: 10 * bits,
            predicted,
            measured,
        }
    }

    #[test]
    fn cells_hold_their_numbers() {
        let sensitivity = Sensitivity {
            loss: 0.5,
            batches: 3,
            weights: Vec::from([at(2, -1e-5, 0.01), at(1, 0.02, 0.2), at(0, 2.25, 8.0)]),
        };
        let [measured, predicted] = super::sensitivity(&sensitivity);
        assert_eq!(measured.numbers[0], ["weight", "2", "1", "0"]);
        assert_eq!(measured.numbers[1], ["fc", "-0.00001", "0.02", "2.25"]);
        assert_eq!(predicted.numbers[1], ["fc", "0.01", "0.2", "8"]);
        for (figure, shown) in [
            (&measured, ["-1e-5", "0.020", "2.25"]),
            (&predicted, ["0.010", "0.20", "8.00"]),
        ] {
            // Plotters puts text on lines of its own.
            let lines: Vec<&str> = figure.svg.lines().map(str::trim).collect();
            assert!(
                shown.iter().all(|text| lines.contains(text)),
                "{}",
                figure.svg
            );
        }
        assert!(predicted.caption.contains("1.00"), "{}", predicted.caption);
    }

    #[test]
    fn colours_are_logarithmic_and_end() {
        let scale = Scale { most: 10.0 };
        assert_eq!([10.0, 20.0].map(|value| scale.step(value)), [STEPS - 1; 2]);
        assert_eq!(
            [0.01, 1e-9, 0.0, -1.0].map(|value| scale.step(value)),
            [0; 4]
        );
        assert!(scale.step(0.1) < scale.step(1.0) && scale.step(1.0) < STEPS - 1);
    }
}
