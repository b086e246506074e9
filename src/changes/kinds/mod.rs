//! One reader for each kind of change map.

pub(super) mod azure;
pub(super) mod diskdelta;
pub(super) mod ebs;
pub(super) mod hyperv;
pub(super) mod kubernetes;
pub(super) mod nbdinfo;
pub(super) mod pairs;
pub(super) mod rbd;
pub(super) mod vmware;
