//! Bars from left to right, in parts, with what they add up to at their ends.

use std::string::{String, ToString};
use std::vec::Vec;

use plotters::style::text_anchor::HPos;

use super::canvas::{LINE, Legend, WIDTH, rectangle, svg, text, text_width};
use super::palette::{Color, GRID, INK};

pub(super) struct Bars {
    /// What a row is, the first head of its numbers.
    pub(super) row: &'static str,
    /// The parts of a bar. A single one needs no legend.
    pub(super) parts: Vec<(Color, String)>,
    /// A bar: its name, its parts, what stands at its end.
    pub(super) rows: Vec<(String, Vec<f64>, String)>,
    /// How a part is written in the table of numbers.
    pub(super) number: fn(f64) -> String,
}

impl Bars {
    pub(super) fn draw(&self) -> String {
        let legend = match self.parts.as_slice() {
            [_] => Legend::new([]),
            parts => Legend::new(parts.iter().cloned()),
        };
        let names: Vec<String> = self.rows.iter().map(|(name, ..)| shortened(name)).collect();
        let widest = |texts: &mut dyn Iterator<Item = &String>| {
            texts.map(|text| text_width(text)).max().unwrap_or(0)
        };
        let left = widest(&mut names.iter()) + 16;
        let right = WIDTH - widest(&mut self.rows.iter().map(|(.., end)| end)) - 16;
        let longest = self.rows.iter().map(|(_, parts, _)| parts.iter().sum());
        let longest = longest.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let x = |value: f64| left + (f64::from(right - left) * value / longest).round() as i32;
        let top = legend.height + if legend.height > 0 { 12 } else { 0 };
        let height = top + LINE * self.rows.len() as i32 + 8;
        svg(height, |area| {
            legend.draw(area);
            rectangle(area, (left - 2, top), (left, height - 8), GRID);
            for (index, (name, (_, parts, end))) in names.iter().zip(&self.rows).enumerate() {
                let upper = top + LINE * index as i32 + 5;
                let (lower, middle) = (upper + LINE - 10, upper + LINE / 2 - 5);
                text(area, name, (left - 14, middle), HPos::Right, INK);
                let mut sum = 0.0;
                for ((color, _), part) in self.parts.iter().zip(parts) {
                    let from = x(sum);
                    sum += part;
                    if *part > 0.0 {
                        rectangle(area, (from, upper), (x(sum), lower), *color);
                    }
                }
                text(area, end, (x(sum) + 12, middle), HPos::Left, INK);
            }
        })
    }

    pub(super) fn numbers(&self) -> Vec<Vec<String>> {
        let parts = self.parts.iter().map(|(_, name)| name.clone());
        let head = std::iter::once(self.row.to_string()).chain(parts).collect();
        let rows = self.rows.iter().map(|(name, parts, _)| {
            let parts = parts.iter().map(|&part| (self.number)(part));
            std::iter::once(name.clone()).chain(parts).collect()
        });
        std::iter::once(head).chain(rows).collect()
    }
}

/// A name that leaves room for its bar: its end tells more than its middle.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 20;
    let count = name.chars().count();
    if count <= LONGEST {
        return name.to_string();
    }
    let end: String = name.chars().skip(count - (LONGEST - 1)).collect();
    format!("…{end}")
}
