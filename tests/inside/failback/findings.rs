//! Free space of a file system that several disks share, from inside.

use super::*;

#[test]
fn disks_that_have_room_each_but_not_together_are_told_of_by_file_system() {
    let room = |filesystem, needed| Room {
        filesystem,
        directory: PathBuf::from("/vm"),
        free: 50,
        needed,
    };
    for (rooms, count) in [
        (&[room(Some(1), 32), room(Some(1), 32)][..], 1),
        (&[room(Some(1), 32), room(Some(2), 32)], 0),
        (&[room(Some(1), 32), room(Some(1), 18)], 0),
        (&[room(Some(1), 32), room(Some(1), 0)], 0),
        (&[room(None, 32), room(None, 32)], 0),
        // One alone is found where it is looked at.
        (&[room(Some(1), 60)], 0),
        (&[room(Some(1), u64::MAX), room(Some(1), 1)], 1),
    ] {
        assert_eq!(crowded(rooms.iter()).len(), count, "{rooms:?}");
    }
}
