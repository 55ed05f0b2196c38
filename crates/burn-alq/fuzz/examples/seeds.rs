//! Writes what fuzzing starts from into `corpus/TARGET/`.

use std::path::{Path, PathBuf};

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
    for folder in entries(&golden).filter(|path| path.is_dir()) {
        let version = file_name(&folder);
        let models = entries(&folder).filter(|path| path.extension().is_some_and(|e| e == "bpk"));
        for file in models {
            let bytes = std::fs::read(&file).expect("a readable file");
            write("packed", &format!("{version}-{}", file_name(&file)), &bytes);
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

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the project's tests");
    entries.map(|entry| entry.expect("a readable folder").path())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().expect("an entry of a folder");
    name.to_string_lossy().into_owned()
}
