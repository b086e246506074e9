//! Whether disks lie where a job can read them, and write to them.

use toml::Spanned;

use super::file::line_of;
use super::validate::{Check, Seen};
use super::{Address, Controller, Disk, Plan, Site, SiteName};
use crate::error::Result;
use crate::image::Format;

impl Check<'_> {
    /// Where a disk lies at a site, and its format there.
    pub(super) fn place(
        &self,
        seen: &mut Seen,
        site: SiteName,
        [key, format_key]: [&'static str; 2],
        text: &Spanned<String>,
        format: Option<Spanned<String>>,
    ) -> Result<(Address, Format)> {
        let at = text.span().start;
        let address =
            Address::parse(text.get_ref()).map_err(|e| self.wrong(key, at, e.to_string()))?;
        let format = match format {
            Some(format) => Format::parse(format.get_ref())
                .map_err(|e| self.wrong(format_key, format.span().start, e.to_string()))?,
            None => address.format(),
        };
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
        for disk in plan.vms().flat_map(|vm| &vm.disks) {
            for site in [SiteName::Primary, SiteName::Recovery] {
                let Some(why) = unfit(plan, disk, site) else {
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

/// Why a disk cannot be used where it lies.
fn unfit(plan: &Plan, disk: &Disk, name: SiteName) -> Option<String> {
    let address = disk.at(name);
    let site = match name {
        SiteName::Primary => &plan.primary,
        SiteName::Recovery => &plan.recovery,
    };
    if let Some(path) = address.path() {
        let has_place = site
            .encryption
            .as_ref()
            .is_none_or(|it| it.folder.is_some());
        let table = name.name();
        return (path.starts_with("/dev") && !has_place).then(|| {
            format!(
                "`{address}` is a block device, beside which no replica can be kept; \
                 `[{table}.encryption]` has to name a `folder`"
            )
        });
    }
    if name != plan.active {
        return Some(format!(
            "`{address}` can only be read from here, and this is the target, whose disks are \
             renamed while they are written; name files of this host, or run the job on the host \
             that has them"
        ));
    }
    if is_of_qemu(site) {
        return Some(format!(
            "`{address}` is no file of this host, and VMs under QEMU are controlled where their \
             disks are"
        ));
    }
    let far = match address {
        Address::Host(_) => return None,
        #[cfg(feature = "qemu")]
        Address::Nbd(_) => return exported_as(disk, name),
        Address::Far(far) => far,
    };
    (far.is_service() && site.reach.tls.is_none()).then(|| {
        let table = name.name();
        format!(
            "a service takes only who has a certificate; `[{table}.reach]` names none (tls_cert, \
             tls_key, tls_ca)"
        )
    })
}

#[cfg(feature = "qemu")]
fn exported_as(disk: &Disk, name: SiteName) -> Option<String> {
    let format = match name {
        SiteName::Primary => disk.primary_format,
        SiteName::Recovery => disk.recovery_format,
    };
    (format != Format::Raw).then(|| {
        let format = format.name();
        format!(
            "an export is the guest's bytes, which are raw whatever its server reads; not {format}"
        )
    })
}

fn is_of_qemu(site: &Site) -> bool {
    match site.controller {
        Controller::Commands { .. } => false,
        #[cfg(feature = "qemu")]
        Controller::Qemu { .. } => true,
    }
}
