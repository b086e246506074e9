//! Makes a target hold what a source holds, shows how far it is, and stops at the first line on
//! standard input; the same command then goes on: `sync SOURCE TARGET`. Both may be addresses.

use diskdelta::peer::ConnectOptions;
use diskdelta::{Disk, Location, Work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (source, target) = locations()?;
    let work = Work::new()?.on_progress(|tick| {
        if let Some(total) = tick.total_bytes.filter(|total| *total > 0) {
            eprint!("\r{:?} {} %", tick.phase, tick.done_bytes * 100 / total);
        }
    });
    let cancel = work.cancel().clone();
    std::thread::spawn(move || {
        if std::io::stdin()
            .read_line(&mut String::new())
            .is_ok_and(|len| len > 0)
        {
            cancel.cancel();
        }
    });

    let disk = Disk::connect(&source, &ConnectOptions::default(), &work)?;
    let report = disk.sync_to(target).run(&work)?;
    println!(
        "{:?}: {} bytes changed",
        report.outcome, report.changed_bytes
    );
    println!(
        "{} bytes taken over from an earlier run",
        report.resumed_bytes
    );
    Ok(())
}

fn locations() -> Result<(Location, Location), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [source, target] => Ok((source.parse()?, target.parse()?)),
        _ => Err("usage: sync SOURCE TARGET".into()),
    }
}
