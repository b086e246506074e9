//! Throw-away authorities and certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};

/// One that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub enum Valid {
    Now,
    Once,
    Later,
}

impl Authority {
    /// An authority whose certificate lies at `path`.
    pub fn at(path: &Path) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named("an authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(path, certificate.pem()).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs a certificate for `name`, `NAME.pem` and `NAME.key` in `directory`; `hosts` are the
    /// names and addresses that it is for.
    /// One that has names is a service's, any other a client's.
    pub fn sign(&self, directory: &Path, name: &str, hosts: &[&str], valid: Valid) {
        self.sign_with(directory, name, hosts, valid, |params| {
            params.extended_key_usages = vec![match hosts.is_empty() {
                true => ExtendedKeyUsagePurpose::ClientAuth,
                false => ExtendedKeyUsagePurpose::ServerAuth,
            }];
        });
    }

    /// As [`sign`](Authority::sign), with what `change` makes of it.
    pub fn sign_with(
        &self,
        directory: &Path,
        name: &str,
        hosts: &[&str],
        valid: Valid,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = named(name);
        change(&mut params);
        match valid {
            Valid::Now => {}
            Valid::Once => params.not_after = date_time_ymd(2020, 1, 1),
            Valid::Later => params.not_before = date_time_ymd(3000, 1, 1),
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        let path = directory.join(format!("{name}.key"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
