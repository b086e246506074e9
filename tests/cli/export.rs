//! Deltas as differencing images.

use std::fs;

use crate::fixture::{Fixture, PAGE, write_at};

#[test]
fn a_delta_becomes_a_child_that_differs_from_nothing_but_its_parent() {
    for ext in ["vhd", "vhdx"] {
        let fixture = Fixture::new();
        fixture.disk("old.raw", 900, 1);
        let new = fixture.disk("new.raw", 900, 1);
        write_at(&new, 77 * PAGE as u64, b"something else");
        fixture.done(&format!("sync old.raw base.{ext}"));
        fixture.done(&format!("delta create base.{ext} new.raw -o d"));
        let before = fixture.bytes(&format!("base.{ext}"));
        let (_, made) = fixture.json(&format!(
            "delta export d --parent base.{ext} --to child.{ext}"
        ));
        assert_eq!(made["format"], *ext);
        assert_eq!(made["layout"], "differencing");
        assert_eq!(made["data_bytes"], PAGE);
        assert!(fixture.bytes(&format!("base.{ext}")) == before);
        let file_bytes = fs::metadata(fixture.path(&format!("child.{ext}")))
            .unwrap()
            .len();
        assert_eq!(made["file_bytes"], file_bytes);
        fixture.done(&format!("diff child.{ext} new.raw"));
        let (_, info) = fixture.json(&format!("info child.{ext}"));
        assert_eq!(info["layout"], "differencing");
        assert!(info["parents"].to_string().contains(&format!("base.{ext}")));
        // A second time there is a file, and the child is no base of this delta.
        fixture
            .run(&format!(
                "delta export d --parent base.{ext} --to child.{ext}"
            ))
            .fails(2, "exists");
        fixture
            .run(&format!(
                "delta export d --parent child.{ext} --to other.{ext}"
            ))
            .fails(2, "not what the delta was made from");
        assert!(!fixture.path(&format!("other.{ext}")).exists());
        fixture
            .run(&format!(
                "delta export d --parent base.{ext} --to child.img"
            ))
            .fails(2, "name");
        fixture
            .run("delta export d --parent new.raw --to child.img")
            .fails(2, "only a VHD or a VHDX can have a child");
    }
}
