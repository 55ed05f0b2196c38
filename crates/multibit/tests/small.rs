//! One row through a small linear layer asks no allocator, which would take longer than the layer.

mod support;

use multibit::Grouping;
use multibit::cpu::{Affine, Levels, LinearKernel, Mode};
use peak_alloc::PeakAlloc;

use support::{Random, packed_with};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test, since others beside it would be counted too.
#[test]
fn one_row_through_a_small_linear_layer_takes_no_memory() {
    let shape = [128, 10];
    let grouping = Grouping::subchannelwise(&shape, 1).unwrap();
    let weight = packed_with(&mut Random::new(61), &shape, grouping, &[2; 10]);
    let levels = Levels::uniform(2, 1.0).unwrap();
    for mode in [Mode::Exact, Mode::Int8, Mode::Bitwise(levels)] {
        let kernel = LinearKernel::new(&weight, mode.arithmetic()).unwrap();
        let (input, mut output) = ([0.5; 128], [0.0; 10]);
        let mut taken = || {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            kernel.forward(&mode, &input, 1, &Affine::default(), &mut output);
            MEMORY.peak_usage() - before
        };
        // The test harness prints meanwhile, but not each time.
        let least = (0..20).map(|_| taken()).min();
        assert_eq!(least, Some(0), "{mode}");
    }
}
