//! Throughput of a medium, from inside.

use std::path::Path;

use super::*;
use crate::image::Format;

#[test]
fn a_directory_is_tried_and_nothing_is_left_there() {
    let directory = tempfile::tempdir().unwrap();
    let disk_path = DiskPath::new(&directory.path().join("a.raw"), Format::Raw, "shop").unwrap();
    let throughput =
        ThroughputProbe::at(&disk_path, -1.0, &Work::with_threads(1).unwrap()).unwrap();
    let tried = FileStorage::nameless(directory.path()).unwrap().is_some();
    assert!(throughput.write > 0.0 && throughput.back > 0.0 || !tried);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_written_to_a_device_to_see_how_fast_it_is() {
    let disk_path = DiskPath::new(Path::new("/dev/no-such-disk"), Format::Raw, "shop").unwrap();
    let throughput = ThroughputProbe::at(&disk_path, 0.5, &Work::with_threads(1).unwrap()).unwrap();
    assert_eq!((throughput.write, throughput.back), (0.5, 0.5));
}
