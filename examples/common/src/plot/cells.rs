//! The map of a convolution's groups.

use burn_alq::report::KernelMap;
use plotters::style::text_anchor::HPos;

use super::canvas::{LINE, Legend, TEXT, WIDTH, rectangle, svg, text, text_width};
use super::palette::{MUTED, bitwidth};
use super::{Figure, grouped, layer_name, row, short};

/// Which outputs keep which inputs (or kernel positions), and in how many bits; `widest` is the
/// bitwidth that gets the strongest colour, the same for all maps of a model.
///
/// A row is an output, unless outputs have so few groups that the map would be a strip; then the
/// outputs run from left to right.
pub fn kernel_map(map: &KernelMap, widest: usize) -> Figure {
    let layer = layer_name(&map.path);
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
    let mut numbers = vec![row("output", head)];
    for (index, bits) in map.bits.iter().enumerate() {
        let first = (index * outputs).to_string();
        numbers.push(row(&first, bits.iter().map(|&bits| short(bits))));
    }
    Figure {
        name: format!("map-{layer}"),
        title: format!("Kernels of {layer} by bitwidth"),
        caption,
        svg: draw(map, widest),
        numbers,
    }
}

/// An axis of a map.
#[derive(Clone, Copy)]
struct Side<'a> {
    name: &'a str,
    cells: usize,
    /// Outputs or groups in a cell, and all of them.
    block: usize,
    all: usize,
}

fn draw(map: &KernelMap, widest: usize) -> String {
    let side = |axis: usize, name, cells, all| Side {
        name,
        cells,
        block: map.block[axis],
        all,
    };
    let outputs = side(0, "output", map.bits.len(), map.outputs);
    let groups = side(1, &map.column, map.bits[0].len(), map.groups);
    let strip = outputs.cells > 8 * groups.cells;
    let (down, across) = if strip {
        (groups, outputs)
    } else {
        (outputs, groups)
    };
    let color = |row: usize, column: usize| {
        let bits = if strip {
            map.bits[column][row]
        } else {
            map.bits[row][column]
        };
        bitwidth(bits, widest)
    };
    let legend = Legend::new((0..=widest).map(|bits| {
        let name = match bits {
            0 => "0 bits (pruned)".to_string(),
            bits => bits.to_string(),
        };
        (bitwidth(bits as f64, widest), name)
    }));
    let top = legend.height + 2 * LINE;
    let left = LINE + text_width(&down.all.to_string()) + 10;
    let height = (900 / down.cells as i32).clamp(8, 44);
    // Wider than high where there is room, but not so much that cells look like bars.
    let width = ((WIDTH - left) / across.cells as i32).clamp(8, 3 * height);
    let bottom = top + height * down.cells as i32;
    svg(bottom + 4, |area| {
        legend.draw(area);
        let names = format!("{} ↓   {} →", down.name, across.name);
        text(area, &names, (0, top - LINE * 3 / 2), HPos::Left, MUTED);
        for tick in ticks(
            across.cells,
            width,
            text_width(&across.all.to_string()) + 20,
        ) {
            let x = left + tick as i32 * width + width / 2;
            let label = grouped(tick * across.block);
            text(area, &label, (x, top - LINE / 2), HPos::Center, MUTED);
        }
        for tick in ticks(down.cells, height, TEXT + 4) {
            let y = top + tick as i32 * height + height / 2;
            let label = grouped(tick * down.block);
            text(area, &label, (left - 12, y), HPos::Right, MUTED);
        }
        // Cells of one colour side by side are one rectangle, with no gap that would show a grid.
        let gap = if width.min(height) >= 16 { 2 } else { 0 };
        for row in 0..down.cells {
            let mut column = 0;
            while column < across.cells {
                let cell = color(row, column);
                let same = |&next: &usize| color(row, next) == cell;
                let alike = (column..across.cells).take_while(same).count();
                let end = column + if gap == 0 { alike } else { 1 };
                let x = |column: usize| left + width * column as i32;
                let y = top + height * row as i32;
                let to = (x(end) - gap, y + height - gap);
                rectangle(area, (x(column), y), to, cell);
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
