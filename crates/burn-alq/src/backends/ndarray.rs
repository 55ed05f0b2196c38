// Deprecated by Burn, but still in use.
#![allow(deprecated)]

use burn_ndarray::NdArray;

use crate::ops::AlqOps;

impl AlqOps for NdArray {}
