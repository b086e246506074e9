//! Syncs only what a change tracker names: `change_map SOURCE TARGET OFFSET LENGTH`.

use diskdelta::{Disk, Work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, offset, len] = &args[..] else {
        return Err("usage: change_map SOURCE TARGET OFFSET LENGTH".into());
    };
    let (offset, len): (u64, u64) = (offset.parse()?, len.parse()?);

    let changed = std::iter::once(offset..offset.saturating_add(len));
    let report = Disk::open(source)?
        .sync_to(target)
        .only(changed)
        .run(&Work::new()?)?;
    println!(
        "{} bytes changed; evidence: {:?}",
        report.changed_bytes, report.verified
    );
    Ok(())
}
