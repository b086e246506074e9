//! Holes at another host: taken for zeros, or read where a job asks for it.

use std::fs;
use std::os::unix::net::UnixStream;

use diskdelta::remote::{
    Client, FrameEncoder, Hello, Job, LineOptions, Message, ServeOptions, serve,
};
use diskdelta::sync::SyncOptions;
use diskdelta::{ErrorKind, Result};

use crate::ended::alone;
use crate::lines::{Lab, job, target_job, work};

const LEN: u64 = 64 << 20;

/// How much this process has read from files, sockets and pipes.
fn read_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|it| it.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

fn dial(options: ServeOptions) -> Result<Client> {
    let (here, there) = UnixStream::pair().unwrap();
    let reader = there.try_clone().unwrap();
    std::thread::spawn(move || drop(serve(reader, there, &options, &work())));
    let reader = here.try_clone().unwrap();
    Client::new(reader, here, &LineOptions::default(), &work())
}

#[test]
fn an_agent_reads_the_holes_of_its_source_and_of_its_target_where_a_job_asks_for_it() {
    if !alone(
        "holes::an_agent_reads_the_holes_of_its_source_and_of_its_target_where_a_job_asks_for_it",
    ) {
        return;
    }
    let lab = Lab::new();
    for name in ["new.raw", "old.raw"] {
        lab.disk(name, 50, 1);
        let file = fs::File::options().write(true).open(lab.path(name));
        file.unwrap().set_len(LEN).unwrap();
    }
    for (asked, served) in [(false, false), (true, false), (false, true)] {
        let options = || lab.serve().with_read_holes(served);
        let what = format!("asked {asked}, served {served}");
        let wanted = |path: &str, target| Job {
            read_holes: asked,
            ..job(path, target)
        };
        let begun = read_bytes();
        let pull = dial(options()).unwrap();
        let pull = pull.open_source(&wanted("new.raw", None), &work()).unwrap();
        let target = lab.target("old.raw");
        pull.sync_onto(target.target(), &SyncOptions::default(), &work())
            .unwrap();
        drop(target);
        let pulled = read_bytes() - begun;
        let begun = read_bytes();
        let source = lab.source("new.raw");
        let push = dial(options()).unwrap();
        push.push(
            &wanted("old.raw", Some(target_job())),
            &source,
            None,
            &work(),
        )
        .unwrap();
        let pushed = read_bytes() - begun;
        for read in [pulled, pushed] {
            match asked || served {
                true => assert!(read > LEN, "{what}: {read}"),
                false => assert!(read < 8 << 20, "{what}: {read}"),
            }
        }
    }
}

#[test]
fn an_agent_that_cannot_read_holes_is_not_taken_for_one_that_did() {
    let (here, there) = UnixStream::pair().unwrap();
    let frame = Message::Hello(Hello {
        version_least: 1,
        version_most: 1,
        // All features but that one.
        features: 127,
        random: [1; 32],
    })
    .encode();
    let mut hello = Vec::new();
    FrameEncoder::default()
        .encode(frame.kind, &frame.payload, &mut hello)
        .unwrap();
    std::io::Write::write_all(&mut &there, &hello).unwrap();
    let reader = here.try_clone().unwrap();
    let client = Client::new(reader, here, &LineOptions::default(), &work()).unwrap();
    let job = Job {
        read_holes: true,
        ..job("new.raw", None)
    };
    let error = client.open_source(&job, &work()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("same version"), "{error}");
}

#[test]
fn jobs_come_over_the_line_as_they_were_sent() {
    for bits in 0..32 {
        let is = |bit: u32| bits & (1 << bit) != 0;
        let target = is(0).then(|| {
            let mut target = target_job();
            target.skip_unreadable = is(1);
            target
        });
        let sent = Job {
            live: !is(0) && is(2),
            read_holes: is(3),
            marker_is_data: !is(0) && is(4),
            ..job("a.raw", target)
        };
        let frame = Message::Job(Box::new(sent.clone())).encode();
        let Message::Job(came) = Message::decode(&frame, 8).unwrap() else {
            panic!("not a job");
        };
        assert_eq!(*came, sent, "{bits}");
    }
}
