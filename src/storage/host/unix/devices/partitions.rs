//! The partitions that the system shows of a device, after its bytes were replaced.

use super::kernel::Kernel;
use crate::storage::{HostFile, Storage};

/// What is to be done for the system to show the partitions that a device holds now; `None` where
/// it shows none of such a device, or the device holds and shows none.
pub(crate) fn partition_note(storage: &dyn Storage) -> Option<String> {
    let host = storage.host_file().ok()??;
    let mut last = [0; 2];
    let is_read = storage.read_exact_at(&mut last, SIGNATURE_AT).is_ok();
    note(&Kernel::host(), &host, is_read && last == SIGNATURE)
}

fn note(kernel: &Kernel, host: &HostFile, has_table: bool) -> Option<String> {
    let number = host.device_number()?;
    let may_have = kernel.fact(number, "ext_range").is_some_and(|it| it != "1");
    let is_disk = kernel.disk_of(number).is_none();
    let shows = !kernel.partitions(number).is_empty();
    (is_disk && may_have && (has_table || shows)).then(|| {
        let path = host.path().display();
        format!(
            "the system shows the partitions that {path} had before; have it read the table again: \
             blockdev --rereadpt {path}"
        )
    })
}

/// Where a partition table has its signature; one of GPT has a table of the old kind before it.
const SIGNATURE_AT: u64 = 510;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
