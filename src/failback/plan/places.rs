//! Whether disks lie where a job can read them, and write to them.

use toml::Spanned;

use super::file::line_of;
use super::types::{Controller, Disk, Plan, Site, SiteName, Vm};
use super::validate::{Check, Seen};
use super::values::{As, At};
use crate::error::Result;
use crate::failback::machine::Side;
use crate::image::Format;
use crate::location::Location;

impl Check<'_> {
    /// Where a disk lies at a site, and its format there.
    pub(super) fn place(
        &self,
        seen: &mut Seen,
        (site, key): (SiteName, &'static str),
        address: Spanned<At>,
        format: Option<As>,
    ) -> Result<(Location, Format)> {
        let at = address.span().start;
        let address = address.into_inner().0;
        let format = format.map_or_else(|| Format::of(&address), |format| format.0);
        if site != self.active && !format.is_writable() {
            let why = format!("{} can only be read, and this is the target", format.name());
            return Err(self.wrong(key, at, why));
        }
        match seen.addresses.insert(address.place(), at) {
            None => Ok((address, format)),
            Some(before) => {
                let before = line_of(self.text, before);
                let text = format!("`{address}` is listed already in line {before}");
                Err(self.wrong(key, at, text))
            }
        }
    }

    /// Checks where the disks of a plan lie that makes sense otherwise.
    pub(super) fn places(&self, plan: &Plan, seen: &Seen) -> Result<()> {
        let disks = plan
            .vms()
            .flat_map(|vm| vm.disks.iter().map(move |disk| (vm, disk)));
        for (vm, disk) in disks {
            for site in [SiteName::Primary, SiteName::Recovery] {
                let why = unfit_replica(plan, disk, site).or_else(|| match site == plan.active {
                    true => unfit_source(plan, disk, site),
                    false => unfit_target(plan, vm, disk, site),
                });
                let Some(why) = why else {
                    continue;
                };
                let address = disk.at(site);
                let at = seen.addresses.get(&address.place()).copied();
                let key = format!("group.vm.disk.{}", site.name());
                return Err(self.wrong(&key, at.unwrap_or(0), why));
            }
        }
        Ok(())
    }
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
        let table = name.name();
        format!(
            "`{address}` is a block device, beside which no replica can be kept; \
             `[{table}.encryption]` has to name a `directory`"
        )
    })
}

/// Why a target's disk cannot be used where it lies.
fn unfit_target(plan: &Plan, vm: &Vm, disk: &Disk, name: SiteName) -> Option<String> {
    let address = disk.at(name);
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
    if is_of_qemu(plan.target_site()) {
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
    if is_of_qemu(site) {
        return Some(not_of_qemu(address));
    }
    let remote = match address {
        Location::Path(_) | Location::Web(_) => return None,
        Location::Nbd(_) => return exported_as(disk, name),
        Location::Remote(remote) => remote,
    };
    (remote.is_service() && site.connect.tls.is_none()).then(|| {
        let table = name.name();
        format!(
            "a service takes only who has a certificate; `[{table}.connect]` names none (tls_cert, \
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
    format!(
        "`{address}` is no file of this host, and VMs under QEMU are controlled where their disks \
         are"
    )
}

fn is_of_qemu(site: &Site) -> bool {
    match site.controller {
        Controller::Commands { .. } | Controller::Own => false,
        #[cfg(feature = "qemu")]
        Controller::Qemu { .. } => true,
    }
}
