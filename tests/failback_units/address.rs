//! Where disks are, as plans write it.

use std::path::Path;

use diskdelta::ErrorKind;
use diskdelta::Location;
use diskdelta::image::Format;

#[test]
fn two_spellings_of_a_path_are_one_address() {
    let plain = Location::parse_absolute("/vm/a.vhd").unwrap();
    assert_eq!(Location::parse_absolute("/vm//./a.vhd").unwrap(), plain);
    assert_eq!(plain.to_string(), "/vm/a.vhd");
}

#[test]
fn a_disk_is_at_a_path_or_at_what_can_be_read_from_here() {
    let place = |text: &str| Location::parse_absolute(text).unwrap().place();
    let host = Location::parse_absolute("/dev/vg0/a").unwrap();
    assert_eq!(host.path(), Some(Path::new("/dev/vg0/a")));
    let remote = Location::parse_absolute("ssh://me@Host:22/vm//a.vhdx").unwrap();
    assert_eq!((remote.path(), Format::of(&remote)), (None, Format::Vhdx));
    assert_eq!(remote.to_string(), "ssh://me@Host:22/vm//a.vhdx");
    assert_eq!(remote.place(), place("ssh://host/vm/a.vhdx"));
    #[cfg(feature = "tls")]
    assert_eq!(
        place("diskdelta://HOST/a.raw"),
        place("diskdelta://host:8730//a.raw")
    );
    #[cfg(feature = "qemu")]
    {
        let export = Location::parse_absolute("nbd+unix:///db1.vhd?socket=/run/nbd.sock").unwrap();
        assert_eq!((export.path(), Format::of(&export)), (None, Format::Raw));
        assert_eq!(
            export.place(),
            place("nbd+unix:///db1.vhd?socket=/run/./nbd.sock")
        );
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for wrong in [
        "",
        "/",
        "a.vhd",
        "../a",
        "/vm/../a",
        "http:///a",
        "c:\\a",
        "/a\nb",
        "ssh://host",
        "ssh://host/a/../b",
        "ssh://host/~/../b",
        "ssh://-oProxyCommand=x/p",
        "ssh://host/a\nb",
        "nbd+unix:///a",
        "ftp://host/a",
    ] {
        let error = Location::parse_absolute(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
    }
}
