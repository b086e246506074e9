//! Holes at another host: taken for zeros, or read where a job asks for it.

use std::fs;
use std::os::unix::net::UnixStream;

use diskdelta::image::ImageOptions;
use diskdelta::remote::{
    Client, FrameEncoder, Hello, LineOptions, Message, RemoteJob, ServeOptions, serve,
};
use diskdelta::storage::SourceOptions;
use diskdelta::sync::{HostTargetOptions, SyncOptions, sync};
use diskdelta::{ErrorKind, Result};

use crate::ended::alone;
use crate::lines::{Fixture, job, target_job, work};

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
    let fixture = Fixture::new();
    for name in ["new.raw", "old.raw"] {
        fixture.disk(name, 50, 1);
        let file = fs::File::options().write(true).open(fixture.path(name));
        file.unwrap().set_len(LEN).unwrap();
    }
    for (asked, served) in [(false, false), (true, false), (false, true)] {
        let options = || fixture.serve().with_read_holes(served);
        let what = format!("asked {asked}, served {served}");
        let image = ImageOptions::default().with_read_holes(asked);
        let begun = read_bytes();
        let client = dial(options()).unwrap();
        let source = client.open("new.raw", &image, &SourceOptions::default(), &work());
        let target = fixture.target("old.raw");
        let sync_options = SyncOptions::default();
        sync(&source.unwrap(), target.target(), &sync_options, &work()).unwrap();
        drop(target);
        let pulled = read_bytes() - begun;
        let begun = read_bytes();
        let source = fixture.source("new.raw").source();
        let target = HostTargetOptions::default().with_image(image);
        let mut target = dial(options()).unwrap().target("old.raw", &target);
        let synced = target.sync_from(&source, None, &sync_options, &work());
        synced.unwrap();
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
    let image = ImageOptions::default().with_read_holes(true);
    let source = client.open("new.raw", &image, &SourceOptions::default(), &work());
    let error = source.err().unwrap();
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
        let sent = RemoteJob {
            live: !is(0) && is(2),
            read_holes: is(3),
            marker_is_data: !is(0) && is(4),
            ..job("a.raw", target)
        };
        let frame = Message::RemoteJob(Box::new(sent.clone())).encode();
        let Message::RemoteJob(came) = Message::decode(&frame, 8).unwrap() else {
            panic!("not a job");
        };
        assert_eq!(*came, sent, "{bits}");
    }
}
