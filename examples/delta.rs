//! Carries the changes of a disk away, applies them to a copy of the old disk, and takes them back:
//! `delta OLD NEW DIRECTORY`.

use std::path::Path;

use diskdelta::{Delta, Disk, Work, undo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [old, new, directory] = &args[..] else {
        return Err("usage: delta OLD NEW DIRECTORY".into());
    };
    let directory = Path::new(directory);
    let (file, way_back) = (directory.join("disk.delta"), directory.join("disk.undo"));
    let work = Work::new()?;

    let made = Disk::open(new)?.delta_from(&Disk::open(old)?, &file, &work)?;
    println!(
        "{} bytes changed, {} in the file",
        made.data_bytes, made.file_bytes
    );

    let delta = Delta::open(&file)?;
    println!("{} extents", delta.extents(&work)?.len());
    Delta::merge(
        std::slice::from_ref(&delta),
        directory.join("merged.delta"),
        &work,
    )?;

    let report = delta.apply_to(old).undo(&way_back).run(&work)?;
    println!("applied: {:?}", report.outcome);
    println!("taken back: {:?}", undo(way_back, old, &work)?.outcome);
    Ok(())
}
