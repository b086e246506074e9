//! Lists where a disk differs from an older one: `diff OLD NEW`.

use diskdelta::{Disk, Work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (old, new) = paths().ok_or("usage: diff OLD NEW")?;

    let found = Disk::open(new)?.diff_from(&Disk::open(old)?, &Work::new()?)?;
    for extent in &found.extents {
        println!("{:#x} {:#x} {:?}", extent.offset, extent.len, extent.kind);
    }
    println!("{} bytes differ", found.changed_bytes());
    Ok(())
}

fn paths() -> Option<(String, String)> {
    let mut args = std::env::args().skip(1);
    Some((args.next()?, args.next()?))
}
