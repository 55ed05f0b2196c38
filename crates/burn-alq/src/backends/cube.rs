use burn_cubecl::CubeBackend;

use crate::ops::AlqOps;

impl AlqOps for CubeBackend {}
