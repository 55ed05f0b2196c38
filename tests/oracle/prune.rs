//! The ranking of the pruning step across layers.

use crate::Group;

/// Coordinates to drop, as `(layer, group, basis)`: every layer preselects its `top[layer]` smallest
/// `Δ`, the preselected of all layers are ranked together, the `count` smallest go.
pub fn select(deltas: &[Vec<Vec<f64>>], top: &[usize], count: usize) -> Vec<(usize, usize, usize)> {
    let mut preselected = Vec::new();
    for (layer, (groups, top)) in deltas.iter().zip(top).enumerate() {
        let mut live: Vec<(f64, (usize, usize, usize))> = Vec::new();
        for (group, deltas) in groups.iter().enumerate() {
            live.extend(
                deltas
                    .iter()
                    .enumerate()
                    .map(|(i, &delta)| (delta, (layer, group, i))),
            );
        }
        live.sort_by(|a, b| a.0.total_cmp(&b.0));
        preselected.extend(live.into_iter().take(*top));
    }
    preselected.sort_by(|a, b| a.0.total_cmp(&b.0));
    preselected
        .into_iter()
        .take(count)
        .map(|(_, id)| id)
        .collect()
}

/// Drops the coordinates of one group, by index.
pub fn drop(group: &mut Group, indices: &[usize]) {
    let keep = |i: usize| !indices.contains(&i);
    let kept = |x: &[f64]| -> Vec<f64> {
        x.iter()
            .enumerate()
            .filter(|(i, _)| keep(*i))
            .map(|(_, x)| *x)
            .collect()
    };
    group.alpha = kept(&group.alpha);
    group.m_alpha = kept(&group.m_alpha);
    group.v_alpha = kept(&group.v_alpha);
    group.v_max_alpha = kept(&group.v_max_alpha);
    let bases = std::mem::take(&mut group.bases).into_iter().enumerate();
    group.bases = bases
        .filter(|(i, _)| keep(*i))
        .map(|(_, basis)| basis)
        .collect();
}
