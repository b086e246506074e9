//! qcow2 and VMDK as sources.
#![cfg(feature = "imago")]

use crate::fixture::{Fixture, oracle};

#[test]
fn a_sync_from_qcow2_and_vmdk_brings_what_the_guest_sees() {
    let fixture = Fixture::new();
    fixture.disk("disk.raw", 700, 1);
    for ext in ["qcow2", "vmdk"] {
        let (raw, image) = (fixture.path("disk.raw"), fixture.path(&format!("d.{ext}")));
        let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
        let made = oracle("qemu-img", &["convert", "-f", "raw", "-O", ext, raw, image]);
        if made != Some(true) {
            return;
        }
        let (_, info) = fixture.json(&format!("info d.{ext}"));
        assert_eq!(info["format"], ext);
        fixture.done(&format!("sync d.{ext} {ext}.raw"));
        assert!(fixture.bytes(&format!("{ext}.raw")) == fixture.bytes("disk.raw"));
        fixture.done(&format!("diff d.{ext} disk.raw"));
        let before = fixture.bytes(&format!("d.{ext}"));
        fixture
            .run(&format!("sync disk.raw d.{ext}"))
            .fails(2, "can only be read");
        assert!(fixture.bytes(&format!("d.{ext}")) == before);
        fixture
            .run(&format!("sync disk.raw new.{ext}"))
            .fails(2, "can only be read");
        assert!(!fixture.path(&format!("new.{ext}")).exists());
    }
}
