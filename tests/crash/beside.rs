//! What lies beside a target and does not go with it is not trusted.

use std::sync::Arc;

use diskdelta::delta::{DeltaWriter, Frame, Header, JobId, Old, Purpose};
use diskdelta::storage::MemoryStorage;
use diskdelta::storage::fault::{Fault, OpKind};
use diskdelta::sync::{Recovered, recover};
use diskdelta::{BlockSize, ErrorKind};

use crate::case::{Case, TARGET, work};
use crate::cases::{self, PAGE};
use crate::medium::{REDO_LOG, leave_logged, leave_marked};

#[test]
fn a_redo_log_or_sidecar_of_another_job_does_not_finish_a_marked_target() {
    for (case, with_its_own) in [
        (cases::atomic_under_the_marker_only(), Recovered::New),
        (cases::in_place_under_the_marker_only(), Recovered::Rerun),
    ] {
        let (disk, other) = (leave_marked(&case), leave_marked(&case));
        let own = disk.contents(REDO_LOG).unwrap();
        disk.put(REDO_LOG, other.contents(REDO_LOG).unwrap());
        let marked = disk.contents(TARGET).unwrap();
        for error in [
            recover(&case.target(&disk), &work()).unwrap_err(),
            case.work_on(&disk).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Incomplete, "{}", case.name);
            assert!(disk.contents(TARGET).unwrap() == marked, "{}", case.name);
        }
        disk.put(REDO_LOG, own);
        let recovered = recover(&case.target(&disk), &work()).unwrap();
        assert_eq!(recovered, with_its_own, "{}", case.name);
        case.work_on(&disk).unwrap();
        assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    }
}

#[test]
fn a_delta_of_another_purpose_under_the_name_of_a_redo_log_is_none() {
    let case = cases::atomic_under_the_marker_only();
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId([1; 16]),
        base_len: case.new.len() as u64,
        result_len: case.new.len() as u64,
        block_size: BlockSize::MIN,
    };
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
    let page = cases::bytes(PAGE, 7);
    let frame = Frame::data(0, &page, Old::Unknown, None);
    writer.push(&frame).unwrap();
    writer.finish(None, None).unwrap();

    let disk = case.disk();
    disk.put(REDO_LOG, file.to_vec());
    let recovered = recover(&case.target(&disk), &work()).unwrap();
    assert_eq!(recovered, Recovered::Old);
    assert!(disk.contents(TARGET).unwrap().to_vec() == *case.old.as_ref().unwrap());
    case.work_on(&disk).unwrap();
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);

    let disk = leave_marked(&case);
    disk.put(REDO_LOG, file.to_vec());
    let error = recover(&case.target(&disk), &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
}

#[test]
fn a_container_that_is_none_any_more_beside_a_redo_log_is_somebody_else_s_doing() {
    // With a copy of its footer on the first page, and without.
    for case in [cases::dynamic_vhd(), cases::fixed_vhd()] {
        let disk = case.disk();
        leave_logged(&disk, || case.work_on(&disk));
        let junk = cases::bytes(disk.contents(TARGET).unwrap().len() as usize, 0x55);
        disk.put(TARGET, junk.clone());
        let error = recover(&case.target(&disk), &work()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BaseMismatch, "{}", case.name);
        assert!(
            disk.contents(TARGET).unwrap().to_vec() == junk,
            "{}",
            case.name
        );
    }
}

#[test]
fn what_a_guest_wrote_beside_a_redo_log_or_a_sidecar_is_left_alone() {
    let last = |case: &Case, guest: &mut Vec<u8>| {
        let at = case.new.len() - PAGE;
        guest[at..].fill(0x77);
    };
    for case in [
        cases::atomic_under_the_marker_only(),
        cases::in_place_under_the_marker_only(),
    ] {
        // As it was, and as it would have become, but for one page.
        for base in [case.old.as_ref().unwrap(), &case.new] {
            let disk = case.disk();
            leave_logged(&disk, || case.work_on(&disk));
            let mut guest = base.clone();
            last(&case, &mut guest);
            disk.put(TARGET, guest.clone());
            let error = recover(&case.target(&disk), &work()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BaseMismatch, "{}", case.name);
            assert!(
                disk.contents(TARGET).unwrap().to_vec() == guest,
                "{}",
                case.name
            );
            case.work_on(&disk).unwrap();
            assert!(
                disk.contents(TARGET).unwrap().to_vec() == case.new,
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn a_first_page_that_was_torn_as_the_last_is_as_the_redo_log_has_it() {
    let old = cases::bytes(16 * PAGE, 1);
    for first in [
        cases::bytes(PAGE, 0),
        cases::bytes(PAGE, 9),
        // Unchanged: then it is as it was saved.
        old[..PAGE].to_vec(),
    ] {
        let mut new = cases::changed(&old);
        new[..PAGE].copy_from_slice(&first);
        let case = Case::raw("torn", &old, &new);
        let disk = case.disk();
        disk.fail(Fault::nth(1).on(|call| call.kind == OpKind::Remove));
        case.work_on(&disk).unwrap_err();
        disk.heal();
        let mut torn = new.clone();
        torn[512..2048].fill(0xee);
        disk.put(TARGET, torn);
        let recovered = recover(&case.target(&disk), &work()).unwrap();
        assert_eq!(recovered, Recovered::New);
        assert!(disk.contents(TARGET).unwrap().to_vec() == new);
    }
}
