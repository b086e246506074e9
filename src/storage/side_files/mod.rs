//! Files that are made next to a target: their names and where they are.

pub(super) mod file_ref;
pub(super) mod scratch;
pub(super) mod side_name;
#[cfg(feature = "failback")]
pub(crate) mod small_file;
