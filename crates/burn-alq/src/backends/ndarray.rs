//! NdArray, on the host too.

// Deprecated by Burn, but still in use.
#![allow(deprecated)]

use burn_ndarray::NdArray;

use super::host::on_the_host;
use super::host::prelude::*;
use crate::ops::host::Copied;

on_the_host!(NdArray, Copied);
