//! Whether disks lie where a job can read them, and write to them.

use super::types::{Disk, Plan, SiteName, Vm};
use crate::failback::machine::Side;
use crate::image::Format;
use crate::location::Location;

/// Why a disk cannot be used where it lies at a site.
pub(super) fn unfit(plan: &Plan, vm: &Vm, disk: &Disk, name: SiteName) -> Option<String> {
    let unfit = unfit_replica(plan, disk, name);
    unfit.or_else(|| match name == plan.active {
        true => unfit_source(plan, disk, name),
        false => unfit_target(plan, vm, disk, name),
    })
}

/// Why a disk's replica cannot be kept beside it.
fn unfit_replica(plan: &Plan, disk: &Disk, name: SiteName) -> Option<String> {
    let address = disk.at(name);
    let is_homeless = plan
        .site(name)
        .encryption
        .as_ref()
        .is_some_and(|it| it.directory.is_none());
    let is_device = address.path()?.starts_with("/dev");
    (is_device && is_homeless).then(|| {
        format!(
            "`{address}` is a block device, beside which no replica can be kept; \
             `[{name}.encryption]` has to name a `directory`"
        )
    })
}

/// Why a target's disk cannot be used where it lies.
fn unfit_target(plan: &Plan, vm: &Vm, disk: &Disk, name: SiteName) -> Option<String> {
    let (address, format) = (disk.at(name), disk.format_at(name));
    if !format.is_writable() {
        return Some(format!(
            "{} can only be read, and this is the target",
            format.name()
        ));
    }
    let agent = plan.agent_login(vm, Side::Target);
    let login = match address {
        Location::Path(_) if vm.disks.iter().all(|disk| disk.at(name).path().is_some()) => {
            return None;
        }
        Location::Remote(remote) => remote.login(),
        _ => None,
    };
    if address.path().is_none() && login.is_none() {
        return Some(format!(
            "`{address}` can only be read from here, and this is the target, whose disks are \
             renamed while they are written, which a service or an export does not do; name files \
             of this host or ssh:// addresses, or run the job on the host that has them"
        ));
    }
    if agent.is_none() {
        return Some(format!(
            "`{address}` does not lie where the other disks of `{}` lie: those that are written \
             lie on one host, and are reached as one user",
            vm.name
        ));
    }
    if plan.target_site().controller.needs_local_disks() {
        return Some(not_of_qemu(address));
    }
    if plan.target_site().encryption.is_some() {
        return Some(format!(
            "`{address}` lies on another host, and the key of an encrypted replica does not leave \
             this one; run the job there, or leave the encryption away"
        ));
    }
    match plan.source_of(disk) {
        Location::Remote(remote) if remote.login() != agent => Some(format!(
            "`{address}` and `{remote}` lie on two other hosts, and one of the two has to be this \
             one; run the job on one of them"
        )),
        _ => None,
    }
}

/// Why a source's disk cannot be used where it lies.
fn unfit_source(plan: &Plan, disk: &Disk, name: SiteName) -> Option<String> {
    let address = disk.at(name);
    let site = plan.source_site();
    if address.path().is_some() {
        return None;
    }
    if site.controller.needs_local_disks() {
        return Some(not_of_qemu(address));
    }
    let remote = match address {
        Location::Path(_) | Location::Web(_) => return None,
        Location::Nbd(_) => return exported_as(disk, name),
        Location::Remote(remote) => remote,
    };
    (remote.is_service() && site.connect.tls.is_none()).then(|| {
        format!(
            "a service takes only who has a certificate; `[{name}.connect]` names none (tls_cert, \
             tls_key, tls_ca)"
        )
    })
}

fn exported_as(disk: &Disk, name: SiteName) -> Option<String> {
    if !cfg!(feature = "nbd") {
        return Some("this build cannot read NBD exports (feature `nbd`)".to_owned());
    }
    let format = disk.format_at(name);
    (format != Format::Raw).then(|| {
        let format = format.name();
        format!(
            "an export is the guest's bytes, which are raw whatever its server reads; not {format}"
        )
    })
}

fn not_of_qemu(address: &Location) -> String {
    format!("`{address}` is no file of this host, as the disks of VMs under QEMU must be")
}
