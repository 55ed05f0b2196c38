//! The quadratic model of the loss that every step lowers.

/// The modelled change of the loss when the weights go from `centre` to `candidate`,
/// `f = pᵀ(ŵ'−ŵ) + ½ (ŵ'−ŵ)ᵀ H (ŵ'−ŵ)` with `H = diag(h)`, in f64.
///
/// Qu et al., CVPR 2020.
///
/// # Shapes
/// - all the same
///
/// # Panics
/// If the slices differ in length.
pub fn local_model(centre: &[f32], p: &[f32], h: &[f32], candidate: &[f32]) -> f64 {
    let n = centre.len();
    assert_eq!(p.len(), n, "`p` and `centre` differ in length");
    assert_eq!(h.len(), n, "`h` and `centre` differ in length");
    assert_eq!(
        candidate.len(),
        n,
        "`candidate` and `centre` differ in length"
    );
    let mut model = 0.0;
    for j in 0..n {
        let move_ = f64::from(candidate[j]) - f64::from(centre[j]);
        model += f64::from(p[j]) * move_ + 0.5 * f64::from(h[j]) * move_ * move_;
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_model() {
        // Moves of 2, -1 and 0: 3·2 + ½·1·4 and 5·(−1) + ½·4·1.
        let found = local_model(
            &[1.0, 1.0, 7.0],
            &[3.0, 5.0, 9.0],
            &[1.0, 4.0, 9.0],
            &[3.0, 0.0, 7.0],
        );
        assert_eq!(found, 8.0 - 3.0);
    }
}
