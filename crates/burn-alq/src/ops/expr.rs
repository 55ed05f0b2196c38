//! Arithmetic notation for tensor primitives, so that the default bodies read as their equations.

use core::ops::{Add, Div, Mul, Sub};

use burn_core::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::{BoolDType, DType, FloatDType, IntDType, Shape, Slice};

/// A float tensor with broadcasting operators.
#[derive(Clone)]
pub(super) struct F<B: Backend>(pub FloatTensor<B>);

/// Small integers in another type.
///
/// By way of floats, which hold them exactly: a server of Burn 0.22.1 ends its session at a cast from
/// integers to integers.
pub(super) fn cast_small<B: Backend>(tensor: IntTensor<B>, dtype: IntDType) -> IntTensor<B> {
    if tensor.dtype() == DType::from(dtype) {
        return tensor;
    }
    B::float_into_int(B::int_into_float(tensor, FloatDType::F32), dtype)
}

/// A 32-bit integer tensor.
#[derive(Clone)]
pub(super) struct I<B: Backend>(pub IntTensor<B>);

macro_rules! operator {
    ($trait:ident, $method:ident, $op:ident, $scalar_op:ident) => {
        impl<B: Backend> $trait for F<B> {
            type Output = F<B>;
            fn $method(self, rhs: Self) -> Self {
                F(B::$op(self.0, rhs.0))
            }
        }
        impl<B: Backend> $trait<f64> for F<B> {
            type Output = F<B>;
            fn $method(self, rhs: f64) -> Self {
                F(B::$scalar_op(self.0, rhs.into()))
            }
        }
    };
}

operator!(Add, add, float_add, float_add_scalar);
operator!(Sub, sub, float_sub, float_sub_scalar);
operator!(Mul, mul, float_mul, float_mul_scalar);
operator!(Div, div, float_div, float_div_scalar);

/// The Boolean type of a back end's comparisons.
fn bool_dtype<B: Backend>(device: &B::Device) -> BoolDType {
    burn_core::backend::get_device_settings::<B>(device).bool_dtype
}

impl<B: Backend> F<B> {
    pub fn dims(&self) -> [usize; 2] {
        let shape = self.0.shape();
        [shape[0], shape[1]]
    }

    pub fn sqrt(self) -> Self {
        F(B::float_sqrt(self.0))
    }

    pub fn abs(self) -> Self {
        F(B::float_abs(self.0))
    }

    /// Sum over each row, `[rows, 1]`.
    pub fn sum_row(self) -> Self {
        F(B::float_sum_dim(self.0, 1))
    }

    /// Column `i`, `[rows, 1]`.
    pub fn column(&self, i: usize) -> Self {
        self.columns(i, i + 1)
    }

    pub fn columns(&self, start: usize, end: usize) -> Self {
        let rows = self.dims()[0];
        F(B::float_slice(
            self.0.clone(),
            &[Slice::from(0..rows), Slice::from(start..end)],
        ))
    }

    pub fn cat(columns: impl IntoIterator<Item = Self>) -> Self {
        F(B::float_cat(
            columns.into_iter().map(|column| column.0).collect(),
            1,
        ))
    }

    pub fn reshape(self, dims: [usize; 2]) -> Self {
        F(B::float_reshape(self.0, Shape::from(dims)))
    }

    pub fn zeros_like(&self) -> Self {
        self.clone().fill(0.0)
    }

    fn fill(self, value: f64) -> Self {
        F(B::float_full(
            self.0.shape(),
            value.into(),
            &self.0.device(),
            self.0.dtype().into(),
        ))
    }

    pub fn lower(self, rhs: Self) -> BoolTensor<B> {
        let dtype = bool_dtype::<B>(&self.0.device());
        B::float_lower(self.0, rhs.0, dtype)
    }

    pub fn lower_scalar(self, rhs: f64) -> BoolTensor<B> {
        let dtype = bool_dtype::<B>(&self.0.device());
        B::float_lower_elem(self.0, rhs.into(), dtype)
    }

    /// Where `|self|` is below the largest f32: neither infinite nor NaN.
    pub fn finite(&self) -> BoolTensor<B> {
        self.clone().abs().lower_scalar(f64::from(f32::MAX))
    }

    /// `value` where `mask` is set, `self` elsewhere.
    pub fn replace(self, mask: BoolTensor<B>, value: Self) -> Self {
        F(B::float_mask_where(self.0, mask, value.0))
    }

    pub fn fill_where(self, mask: BoolTensor<B>, value: f64) -> Self {
        F(B::float_mask_fill(self.0, mask, value.into()))
    }

    pub fn max(self, rhs: Self) -> Self {
        let smaller = self.clone().lower(rhs.clone());
        self.replace(smaller, rhs)
    }

    /// `self[row, indices[row, j]]`.
    pub fn gather(&self, indices: I<B>) -> Self {
        F(B::float_gather(1, self.0.clone(), indices.0))
    }

    /// Rows in ascending order, with the column that each value came from.
    pub fn sorted(self) -> (Self, I<B>) {
        let (values, indices) = B::float_sort_with_indices(self.0, 1, false, IntDType::I32);
        (F(values), I(indices))
    }
}

impl<B: Backend> I<B> {
    pub fn from_any(tensor: IntTensor<B>) -> Self {
        I(cast_small::<B>(tensor, IntDType::I32))
    }

    /// Bit `i` of every element, as 0 or 1.
    pub fn bit(&self, i: usize) -> Self {
        let shifted = B::bitwise_right_shift_scalar(self.0.clone(), (i as i64).into());
        I(B::bitwise_and_scalar(shifted, 1i64.into()))
    }

    pub fn float(self, like: &F<B>) -> F<B> {
        F(B::int_into_float(self.0, like.0.dtype().into()))
    }

    pub fn add(self, rhs: Self) -> Self {
        I(B::int_add(self.0, rhs.0))
    }

    pub fn add_scalar(self, rhs: i64) -> Self {
        I(B::int_add_scalar(self.0, rhs.into()))
    }

    pub fn mul(self, rhs: Self) -> Self {
        I(B::int_mul(self.0, rhs.0))
    }

    pub fn mul_scalar(self, rhs: i64) -> Self {
        I(B::int_mul_scalar(self.0, rhs.into()))
    }

    pub fn gather(&self, indices: I<B>) -> Self {
        I(B::int_gather(1, self.0.clone(), indices.0))
    }

    pub fn column(&self, i: usize) -> Self {
        let rows = self.0.shape()[0];
        I(B::int_slice(
            self.0.clone(),
            &[Slice::from(0..rows), Slice::from(i..i + 1)],
        ))
    }

    pub fn reshape(self, dims: [usize; 2]) -> Self {
        I(B::int_reshape(self.0, Shape::from(dims)))
    }

    pub fn expand(self, dims: [usize; 2]) -> Self {
        I(B::int_expand(self.0, Shape::from(dims)))
    }

    pub fn xor(self, rhs: Self) -> Self {
        I(B::bitwise_xor(self.0, rhs.0))
    }

    /// `self` where `mask` is not set, `value` where it is.
    pub fn replace(self, mask: BoolTensor<B>, value: Self) -> Self {
        I(B::int_mask_where(self.0, mask, value.0))
    }

    /// Where `self == i`.
    pub fn is(&self, i: usize) -> BoolTensor<B> {
        let dtype = bool_dtype::<B>(&self.0.device());
        B::int_equal_elem(self.0.clone(), (i as i64).into(), dtype)
    }

    /// Where `self > i`.
    pub fn above(&self, i: usize) -> BoolTensor<B> {
        let dtype = bool_dtype::<B>(&self.0.device());
        B::int_greater_elem(self.0.clone(), (i as i64).into(), dtype)
    }

    pub fn from_bool(mask: BoolTensor<B>) -> Self {
        I(B::bool_into_int(mask, IntDType::I32))
    }
}
