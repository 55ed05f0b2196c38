//! Writes what fuzzing starts from into `corpus/TARGET/`.

use std::path::Path;

use burn::module::Module;
use burn_alq::PackedModel;
use burn_alq::file::Coding;
use burn_alq_fuzz::net::{Ones, learner, run};

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder).expect("a writable folder");
        std::fs::write(folder.join(name), bytes).expect("a writable folder");
    };
    let mut run = run();
    let checkpoint = |step: usize| corpus.join(format!("checkpoint/step-{step}"));
    std::fs::create_dir_all(corpus.join("checkpoint")).expect("a writable folder");
    let mut step = 0;
    run.save(checkpoint(step)).expect("a writable folder");
    while run.advance(&Ones).expect("a finite loss").is_some() {
        step += 1;
        run.save(checkpoint(step)).expect("a writable folder");
    }
    let mut packed = PackedModel::pack(run.model()).expect("a multi-bit model");
    packed.config.insert("model".into(), "net".into());
    for (name, coding) in [("plain", Coding::Plain), ("deflated", Coding::Deflate)] {
        let bytes = packed.to_bytes_with(coding).expect("a small model");
        write("packed", name, &bytes);
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/golden");
    for file in std::fs::read_dir(golden)
        .expect("the project's tests")
        .flatten()
    {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.ends_with(".bpk") {
            let bytes = std::fs::read(file.path()).expect("a readable file");
            write("packed", &name, &bytes);
        }
    }
    let record = learner().into_record().into_bytes().expect("a small model");
    write("learner", "start", &record);
    let rules = "max_bits = 6\n[[weights]]\nglob = \"**.weight\"\ngrouping = \"channelwise\"\n\
                 [[weights]]\nregex = '^layer\\d+\\..*conv\\d\\.weight$'\n\
                 grouping = \"pixelwise\"\nmax_bits = 4\n[[weights]]\npath = \"fc.weight\"\n\
                 grouping = \"subchannelwise\"\nsubchannels = 2\nlayout = \"Linear\"\n\
                 [[weights]]\nglob = \"head.?\"\nkeep_float = true\n\
                 [[activations]]\nglob = \"**.relu*\"\nbits = 2\n";
    write("rules", "all", rules.as_bytes());
}
