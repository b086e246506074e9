//! The bare loops as a program, so that they are timed as the other programs are:
//! `bare compare OLD NEW`, `bare mend OLD NEW` (makes OLD hold NEW), `bare hash FILE`.

use std::fs::{File, OpenOptions};
use std::io::{Error, Result};

mod loops;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["compare", old, new] => {
            let pages = loops::compare(&File::open(old)?, &File::open(new)?, UNIT, THREADS)?;
            println!("{pages} pages differ");
        }
        ["mend", old, new] => {
            let old = OpenOptions::new().read(true).write(true).open(old)?;
            let pages = loops::mend(&old, &File::open(new)?, UNIT, THREADS)?;
            println!("{pages} pages written");
        }
        ["hash", file] => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build();
            loops::hash(&File::open(file)?, BLOCK, &pool.map_err(Error::other)?)?;
        }
        _ => return Err(Error::other("compare OLD NEW, mend OLD NEW or hash FILE")),
    }
    Ok(())
}

const THREADS: usize = 2;
/// What the fastest of the plain loops in `compare.rs` reads at once.
const UNIT: usize = 128 << 10;
const BLOCK: usize = 64 << 10;
