//! Packed files from a slice: what is whole is read, and nothing else.
#![cfg(feature = "deflate")]

use std::path::Path;

use multibit::file::PackedFile;

#[test]
fn files_of_the_first_writer_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/file_v1");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let file = PackedFile::read(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        println!("{:?}", file.weights().len());
    }
}
