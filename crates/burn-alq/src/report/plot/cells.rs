//! The map of a convolution's groups.

use std::string::{String, ToString};
use std::vec::Vec;

use plotters::style::text_anchor::HPos;

use super::canvas::{LINE, Legend, TEXT, WIDTH, rectangle, svg, text, text_width};
use super::palette::{MUTED, bitwidth};
use super::{Figure, grouped};
use crate::report::KernelMap;

/// Which outputs keep which inputs (or kernel positions), and in how many bits; `widest` is the
/// bitwidth that gets the strongest colour, the same for all maps of a model.
///
/// A row is an output, unless outputs have so few groups that the map would be a strip; then the
/// outputs run from left to right.
pub fn kernel_map(map: &KernelMap, widest: usize) -> Figure {
    let layer = super::layer_name(&map.path);
    let [outputs, groups] = map.block;
    let mut caption = format!(
        "Bitwidth of each group, {} outputs × {} {}s.",
        map.outputs, map.groups, map.column
    );
    if outputs * groups > 1 {
        caption += &format!(
            " Scaled down: a cell is the mean of {outputs} outputs × {groups} {}s.",
            map.column
        );
    }
    let columns = (0..).step_by(groups).take(map.bits[0].len());
    let head = columns.map(|first| format!("{} {first}", map.column));
    let mut numbers: Vec<Vec<String>> =
        Vec::from([std::iter::once("output".to_string()).chain(head).collect()]);
    for (index, row) in map.bits.iter().enumerate() {
        let first = (index * outputs).to_string();
        let bits = row.iter().map(|&bits| super::short(bits));
        numbers.push(std::iter::once(first).chain(bits).collect());
    }
    Figure {
        name: format!("map-{layer}"),
        title: format!("Kernels of {layer} by bitwidth"),
        caption,
        svg: draw(map, widest),
        numbers,
    }
}

fn draw(map: &KernelMap, widest: usize) -> String {
    let strip = map.bits.len() > 8 * map.bits[0].len();
    let by_output = ("output", map.bits.len(), map.block[0], map.outputs);
    let by_group = (
        map.column.as_str(),
        map.bits[0].len(),
        map.block[1],
        map.groups,
    );
    let (down, across) = match strip {
        true => (by_group, by_output),
        false => (by_output, by_group),
    };
    let bits = |row: usize, column: usize| match strip {
        true => map.bits[column][row],
        false => map.bits[row][column],
    };
    let legend = Legend::new((0..=widest).map(|bits| {
        let name = match bits {
            0 => "0 bits (pruned)".to_string(),
            bits => bits.to_string(),
        };
        (bitwidth(bits as f64, widest), name)
    }));
    let top = legend.height + 2 * LINE;
    let left = LINE + text_width(&down.3.to_string()) + 10;
    let height = (900 / down.1 as i32).clamp(8, 44);
    // Wider than high where there is room, but not so much that cells look like bars.
    let width = ((WIDTH - left) / across.1 as i32).clamp(8, 3 * height);
    let bottom = top + height * down.1 as i32;
    svg(bottom + 4, |area| {
        legend.draw(area);
        let names = format!("{} ↓   {} →", down.0, across.0);
        text(area, &names, (0, top - LINE * 3 / 2), HPos::Left, MUTED);
        for tick in ticks(across.1, width, text_width(&across.3.to_string()) + 20) {
            let x = left + tick as i32 * width + width / 2;
            let label = grouped(tick * across.2);
            text(area, &label, (x, top - LINE / 2), HPos::Center, MUTED);
        }
        for tick in ticks(down.1, height, TEXT + 4) {
            let y = top + tick as i32 * height + height / 2;
            let label = grouped(tick * down.2);
            text(area, &label, (left - 12, y), HPos::Right, MUTED);
        }
        // Cells of one colour side by side are one rectangle, with no gap that would show a grid.
        let gap = if width.min(height) >= 16 { 2 } else { 0 };
        for row in 0..down.1 {
            let mut column = 0;
            while column < across.1 {
                let color = bitwidth(bits(row, column), widest);
                let same = |&next: &usize| bitwidth(bits(row, next), widest) == color;
                let end = match gap {
                    0 => column + (column..across.1).take_while(same).count(),
                    _ => column + 1,
                };
                let x = |column: usize| left + width * column as i32;
                let y = top + height * row as i32;
                let to = (x(end) - gap, y + height - gap);
                rectangle(area, (x(column), y), to, color);
                column = end;
            }
        }
    })
}

/// Cells to number: `apart` from each other, or more.
fn ticks(cells: usize, size: i32, apart: i32) -> impl Iterator<Item = usize> {
    let steps = [1, 2, 5, 10, 20, 50];
    let step = steps.into_iter().find(|&step| step as i32 * size >= apart);
    (0..cells).step_by(step.unwrap_or(cells))
}
