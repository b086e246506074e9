//! Syncs over a transport of one's own: here a pair of sockets, with the agent in a thread:
//! `transport pull SOURCE TARGET` with the source at the agent, or `push` with the target there.

use std::os::unix::net::UnixStream;
use std::thread;

use diskdelta::peer::{Client, LineOptions, ServeOptions, serve};
use diskdelta::{Disk, Work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [way, source, target] = &args[..] else {
        return Err("usage: transport pull|push SOURCE TARGET".into());
    };
    let work = Work::new()?;
    let (here, there) = UnixStream::pair()?;
    let (reader, theirs) = (there.try_clone()?, work.clone());
    let agent =
        thread::spawn(move || serve(reader, there, &ServeOptions::default(), &theirs).map(drop));

    let client = Client::new(here.try_clone()?, here, &LineOptions::default(), &work)?;
    let report = match way.as_str() {
        "push" => Disk::open(source)?
            .sync_to(target)
            .over(client)
            .run(&work)?,
        _ => Disk::served_by(client, source, &work)?
            .sync_to(target)
            .run(&work)?,
    };
    println!(
        "{:?}: {} bytes changed",
        report.outcome, report.changed_bytes
    );
    agent.join().map_err(|_| "the agent panicked")??;
    Ok(())
}
