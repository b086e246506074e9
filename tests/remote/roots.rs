//! The root of a source that is read whole at the other end, and a source that is only looked at.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use diskdelta::image::{Format, ImageOptions};
use diskdelta::remote::{
    Capacity, Children, Client, Endpoint, Line, LineOptions, Message, Opened, Output, RootPeer,
    Segments, ServeOptions, Session, Side, serve,
};
use diskdelta::storage::SourceOptions;
use diskdelta::sync::Source;
use diskdelta::{BlockSize, ErrorKind, Result, manifest};

use crate::lines::{Fixture, open, work};

fn remote_session(
    fixture: &Fixture,
    options: ServeOptions,
    name: &str,
    live: bool,
) -> Result<Source> {
    let (here, there) = UnixStream::pair().unwrap();
    let options = options.with_root(Some(fixture.path("")));
    let reader = there.try_clone().unwrap();
    std::thread::spawn(move || drop(serve(reader, there, &options, &work())));
    let (reader, line) = (here.try_clone().unwrap(), LineOptions::default());
    let options = SourceOptions::default().with_allow_writers(live);
    let client = Client::new(reader, here, &line, &work())?;
    client.open(name, &ImageOptions::default(), &options, &work())
}

#[test]
fn a_root_is_that_of_the_bytes_and_brings_none_of_them_over_the_line() {
    let fixture = Fixture::new();
    // Several batches, a hole, and an end within a block.
    fixture.disk("disk.raw", 9000, 1);
    let file = fs::File::options()
        .write(true)
        .open(fixture.path("disk.raw"))
        .unwrap();
    file.write_all_at(b"far behind", (300 << 20) + 77).unwrap();
    drop(file);
    fs::copy(fixture.path("disk.raw"), fixture.path("longer.raw")).unwrap();
    let longer = fs::File::options()
        .write(true)
        .open(fixture.path("longer.raw"))
        .unwrap();
    longer.set_len((300 << 20) + 1024).unwrap();
    for name in ["disk.raw", "longer.raw"] {
        let same = fixture.source(name);
        let len = same.image().disk_len();
        let remote_session =
            remote_session(&fixture, ServeOptions::default(), "disk.raw", false).unwrap();
        let block = BlockSize::default();
        let root = remote_session.root(len, block, &work()).unwrap();
        // And once more in the same session.
        assert_eq!(remote_session.root(len, block, &work()).unwrap(), root);
        let expected = manifest::root_of(&**same.image(), block, &work()).unwrap();
        assert_eq!(root, expected, "{name}");
        let traffic = remote_session.backend().finish().unwrap().unwrap();
        assert!(traffic.received_bytes < 2000, "{traffic:?}");
    }
}

#[test]
fn a_root_is_never_asked_of_a_manifest_that_stands_for_reading() {
    let (here, there) = UnixStream::pair().unwrap();
    let agent = std::thread::spawn(move || {
        let line = Line::new(there.try_clone().unwrap(), there, LineOptions::default()).unwrap();
        let session = Session::greet(line, Side::Agent, work().cancel()).unwrap();
        let receive = || session.line().receive("it", work().cancel()).unwrap();
        assert!(matches!(receive(), Message::RemoteJob(_)));
        let opened = Message::Opened(Box::new(Opened {
            disk_len: 5000,
            format: Format::Raw,
            sector_bytes: None,
            block_bytes: None,
            warnings: Vec::new(),
            has_manifest: true,
        }));
        session.line().send(&opened).unwrap();
        let Message::Compare(asked) = receive() else {
            panic!("something else is asked");
        };
        session.line().send(&Message::Root([9; 32])).unwrap();
        assert!(matches!(receive(), Message::Check));
        session.line().send(&Message::Checked).unwrap();
        session.finish();
        asked
    });
    let (reader, line) = (here.try_clone().unwrap(), LineOptions::default());
    let client = Client::new(reader, here, &line, &work()).unwrap();
    let source = open(client, "disk").unwrap();
    let root = source.root(5000, BlockSize::default(), &work()).unwrap();
    assert_eq!(*root.as_bytes(), [9; 32]);
    let asked = agent.join().unwrap();
    assert!(!asked.from_manifest && !asked.counts_only);
    assert_eq!((asked.disk_len, asked.window_count), (5000, 0));
}

#[test]
fn a_source_that_somebody_writes_to_is_looked_at_but_not_copied() {
    let fixture = Fixture::new();
    fixture.disk("disk.raw", 800, 1);
    let holder = fixture.target("disk.raw");
    let error = remote_session(&fixture, ServeOptions::default(), "disk.raw", false).err();
    assert_eq!(error.unwrap().kind(), ErrorKind::InUse);
    let remote_session =
        remote_session(&fixture, ServeOptions::default(), "disk.raw", true).unwrap();
    assert_eq!(remote_session.disk_len(), 800 * 4096);
    remote_session.backend().finish().unwrap();
    drop(holder);
}

#[test]
fn an_end_that_finds_a_root_trusts_no_batch_out_of_its_order_or_place() {
    let capacity = Capacity {
        tasks: true,
        line: true,
    };
    let batch = |batch| {
        Message::Segments(Segments {
            batch,
            segments: Children::default(),
        })
    };
    let mut end = RootPeer::new(200 << 20);
    assert!(end.next_output(capacity).unwrap().is_none() && !end.is_finished());
    end.receive(batch(1)).unwrap();
    let Some(Output::Send(Message::Blocks(blocks))) = end.next_output(capacity).unwrap() else {
        panic!("no answer");
    };
    assert!(blocks.batch == 1 && blocks.segments.is_empty());
    assert!(end.receive(batch(1)).is_err() && end.receive(batch(4)).is_err());
    assert!(end.receive(Message::Check).is_err());
    end.receive(Message::Root([7; 32])).unwrap();
    assert_eq!((end.root(), end.is_finished()), (Some([7; 32]), true));
    assert!(end.receive(Message::Root([8; 32])).is_err() && end.receive(batch(2)).is_err());
}
