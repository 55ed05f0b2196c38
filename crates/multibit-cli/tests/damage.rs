//! Files that are not whole: each part is judged for itself, and nothing makes a command panic.

mod support;

use multibit::file::{Coding, Op, PackedFile};
use multibit::{Grouping, PackedWeight};
use multibit_cli::{Chain, Difference, Error, File, Inspection, Model, Sizes, Verdict};
use support::{BODY, Parts, every_step, lenet, without_chain};

/// All that is asked of a file; whether it is whole.
fn ask(bytes: Vec<u8>) -> bool {
    let file = File::new("asked", bytes);
    let verdict = Verdict::of(&file);
    let read = file.packed();
    let whole = |part: &multibit_cli::Part| part.error.is_none();
    let parts = verdict.parts.iter().all(whole) && verdict.unseen + verdict.rest == 0;
    assert_eq!(parts, read.is_ok(), "{verdict:?}");
    assert!(!verdict.to_text().is_empty());
    assert_eq!(Inspection::of(&file).is_ok(), parts);
    assert_eq!(Sizes::of(&file).is_ok(), parts);
    assert_eq!(Difference::of(&file, &file).is_ok(), parts);
    if let Ok(packed) = read {
        let runs = Model::new(&file, &packed, None).is_ok();
        let said = matches!(verdict.chain, Some(Chain::Runs { .. }));
        assert_eq!(runs, said, "{verdict:?}");
    }
    verdict.whole
}

#[test]
fn whole_files_are_whole() {
    let golden = [Coding::Plain, Coding::Deflate].map(every_step);
    for path in golden.into_iter().chain([lenet(), without_chain()]) {
        assert!(ask(std::fs::read(&path).unwrap()), "{}", path.display());
    }
}

/// A bit of every few bytes, and cuts.
#[test]
fn damage_anywhere_is_seen() {
    for coding in [Coding::Plain, Coding::Deflate] {
        let bytes = std::fs::read(every_step(coding)).unwrap();
        let metadata = 10 + u32::from_le_bytes(bytes[6..10].try_into().unwrap()) as usize;
        for at in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            // Zeros before the data, which nobody reads.
            let unseen = (metadata..BODY).contains(&at);
            assert_eq!(ask(damaged), unseen, "{coding:?}: byte {at}");
        }
        for cut in (0..bytes.len()).step_by(41) {
            assert!(!ask(bytes[..cut].to_vec()), "{coding:?}: {cut} bytes");
        }
        assert!(!ask([&bytes[..], &[0]].concat()), "a byte behind the end");
    }
}

/// The names of the parts that are not whole.
fn damaged(bytes: Vec<u8>) -> Vec<String> {
    let verdict = Verdict::of(&File::new("damaged", bytes));
    let parts = verdict.parts.into_iter();
    let parts = parts.filter(|part| part.error.is_some());
    parts.map(|part| part.name).collect()
}

/// A damaged section is that of one weight or tensor, and of no other.
#[test]
fn one_section_is_one_part() {
    let bytes = Parts::new().file();
    let file = PackedFile::read(&bytes).unwrap();
    for tensor in file.tensors() {
        let section = tensor.bytes();
        // Sections lie in the file.
        let at = section.as_ptr() as usize - bytes.as_ptr() as usize;
        let mut changed = bytes.clone();
        changed[at + section.len() - 1] ^= 0x10;
        assert_eq!(damaged(changed), [tensor.path()]);
    }
    let last = file.tensors().last().unwrap().path();
    assert_eq!(
        damaged(bytes[..bytes.len() - 1].to_vec()).last().unwrap(),
        "container and directory"
    );
    let mut directory = bytes.clone();
    directory[BODY + 30] ^= 1;
    assert_eq!(damaged(directory), ["container and directory"]);
    assert!(!last.is_empty());
}

/// A chain that does not fit its weights is damage; to have none is not.
#[test]
fn chains_that_do_not_fit() {
    let mut parts = Parts::new();
    let linear = parts
        .about
        .chain
        .iter()
        .position(|step| matches!(step.op, Op::Linear(_)));
    parts.about.chain.remove(linear.unwrap() - 1);
    let file = File::new("unfit.bpk", parts.file());
    let verdict = Verdict::of(&file);
    assert!(!verdict.whole);
    let Some(Chain::Unfit(reason)) = verdict.chain else {
        panic!("{:?}", verdict.chain);
    };
    assert!(reason.contains("of the chain, linear"), "{reason}");
    let packed = file.packed().unwrap();
    let error = Model::new(&file, &packed, None).err().unwrap().to_string();
    assert!(
        error.starts_with("unfit.bpk does not run: step "),
        "{error}"
    );
    let mut parts = Parts::new();
    parts.about.labels.pop();
    assert!(!ask(parts.file()));
    parts.about.labels.clear();
    assert!(ask(parts.file()));
    parts.about.chain.clear();
    assert!(ask(parts.file()));
}

/// A few bytes may claim a large weight without a bit, or a large value: that is no panic and takes no
/// memory.
#[test]
fn claims_beyond_memory() {
    let mut parts = Parts::new();
    let (shape, len) = ([1 << 56, 1], 1 << 56);
    let without_bits = |grouping| {
        let weight = PackedWeight::decode(&shape, grouping, 1, &[0], &[], &[]);
        weight.unwrap()
    };
    let whole = Grouping::new(vec![1, 0], len).unwrap();
    parts
        .weights
        .push(("huge".into(), without_bits(whole), None));
    let first = parts.file();
    assert!(ask(first.clone()));
    let halves = Grouping::new(vec![1, 0], len / 2).unwrap();
    parts.weights.last_mut().unwrap().1 = without_bits(halves);
    let [first, second] = [first, parts.file()].map(|bytes| File::new("claim.bpk", bytes));
    let error = Difference::of(&first, &second).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
    assert!(
        error.to_string().contains("claim.bpk: huge takes "),
        "{error}"
    );

    let mut parts = Parts::new();
    parts.about.chain.truncate(0);
    parts.about.chain.push(multibit::file::Step {
        input: None,
        op: Op::Flatten,
    });
    parts.about.labels.clear();
    parts.about.input = Some(multibit::file::Input::new([1 << 60]));
    let file = File::new("claim.bpk", parts.file());
    let packed = file.packed().unwrap();
    let error = Model::new(&file, &packed, None).err().unwrap();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
}
