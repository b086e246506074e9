//! Tells errors apart, and what became of the target: `errors SOURCE TARGET`.

use diskdelta::{Disk, ErrorKind, Result, SyncReport, TargetState, Work, recover};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = &args[..] else {
        return Err("usage: errors SOURCE TARGET".into());
    };
    let work = Work::new()?;
    let error = match sync(source, target, &work) {
        Ok(report) => {
            println!("{:?}", report.outcome);
            return Ok(());
        }
        Err(error) => error,
    };
    let what = match error.kind() {
        ErrorKind::NotFound => "missing",
        ErrorKind::InUse => "in use",
        ErrorKind::NoSpace => "no room",
        _ => "failed",
    };
    println!("{what}: {} (offset {:?})", error, error.offset());
    match error.target_state() {
        Some(TargetState::Recover) => println!("recovered: {:?}", recover(target, &work)?),
        state => println!("target: {state:?}"),
    }
    Ok(())
}

fn sync(source: &str, target: &str, work: &Work) -> Result<SyncReport> {
    Disk::open(source)?.sync_to(target).run(work)
}
