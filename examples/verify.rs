//! Writes the manifest of a disk, and verifies the disk against it: `verify DISK MANIFEST`.

use diskdelta::{Disk, Manifest, Work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (path, manifest) = paths().ok_or("usage: verify DISK MANIFEST")?;
    let work = Work::new()?;

    let disk = Disk::open(path)?;
    let saved = disk.save_manifest(&manifest, &work)?;
    println!("root {}, block 0: {:?}", saved.root(), saved.block(0)?);

    let found = disk.verify(&Manifest::open(manifest)?, &work)?;
    println!("identical: {}", found.is_identical());
    Ok(())
}

fn paths() -> Option<(String, String)> {
    let mut args = std::env::args().skip(1);
    Some((args.next()?, args.next()?))
}
