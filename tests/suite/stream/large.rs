//! More than four gibibytes, nearly all of them holes.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use burn_alq::file::ModelFile;
use multibit::file::{About, Entries, NumberType};

use crate::file::packed;

#[cfg(target_pointer_width = "64")]
#[test]
fn what_lies_beyond_32_bits_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.bpk");
    let model = packed();
    let (name, weight) = &model.weights[0];
    let mut entries = Entries::default();
    let sections = entries.weight(name.as_str(), weight, None);
    let zeros = vec![0; 1 << 26];
    let (shape, parts) = ([65, 1 << 26], [&zeros[..]; 65]);
    entries
        .tensor("hole", &shape, NumberType::U8, &parts)
        .unwrap();
    let numbers = [1.5f32, -2.0, 0.25];
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    entries
        .tensor("last", &[3], NumberType::F32, &[&bytes])
        .unwrap();

    let mut file = File::create(&path).unwrap();
    file.write_all(&entries.head(&[], &[], About::default()).unwrap())
        .unwrap();
    let mut place = file.seek(SeekFrom::End(0)).unwrap();
    let mut section = |place: u64, bytes: &[u8]| {
        let place = place.next_multiple_of(Entries::BOUNDARY as u64);
        file.seek(SeekFrom::Start(place)).unwrap();
        file.write_all(bytes).unwrap();
        place + bytes.len() as u64
    };
    for bytes in &sections {
        place = section(place, bytes);
    }
    let hole = place.next_multiple_of(Entries::BOUNDARY as u64) + (65 << 26);
    assert!(hole > 1 << 32);
    section(hole, &bytes);
    drop(file);

    let file = ModelFile::open(&path).unwrap();
    let part = file.load_where(|path| path != "hole").unwrap();
    assert_eq!(part.weights, model.weights[..1]);
    let [(last, tensor)] = &part.tensors[..] else {
        panic!("{:?}", part.tensors);
    };
    assert_eq!(last, "last");
    assert_eq!(tensor.as_slice::<f32>().unwrap(), numbers);
}
