//! What a certificate says of itself: a name for people to read, and what it is meant for.

/// The common name in the subject of an X.509 certificate (RFC 5280, 4.1), without control
/// characters; `None` where there is none, or where the bytes are no certificate.
pub(in crate::remote) fn common_name(der: &[u8]) -> Option<String> {
    let mut fields = behind_the_dates(der)?;
    let mut subject = expect(&mut fields, SEQUENCE)?;
    let mut name = None;
    while !subject.is_empty() {
        let mut set = expect(&mut subject, SET)?;
        let mut pair = expect(&mut set, SEQUENCE)?;
        if expect(&mut pair, OID)? == COMMON_NAME {
            name = Some(take(&mut pair)?.1);
        }
    }
    let name = String::from_utf8_lossy(name?.get(..NAME_MOST.min(name?.len()))?).into_owned();
    Some(name.replace(char::is_control, " "))
}

/// What the certificate is meant for: the identifiers in its extended key usage (RFC 5280,
/// 4.2.1.12), without tags and lengths; `None` where it has no such extension, has it twice, or is
/// no certificate.
pub(in crate::remote) fn extended_key_usages(der: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = behind_the_dates(der)?;
    // The subject and its key; unique identifiers may follow.
    expect(&mut fields, SEQUENCE)?;
    expect(&mut fields, SEQUENCE)?;
    let mut extensions = loop {
        match take(&mut fields)? {
            (EXTENSIONS, mut all) => break expect(&mut all, SEQUENCE)?,
            (ISSUER_ID | SUBJECT_ID, _) => {}
            _ => return None,
        }
    };
    let mut found = None;
    while !extensions.is_empty() {
        let mut extension = expect(&mut extensions, SEQUENCE)?;
        if expect(&mut extension, OID)? != EXTENDED_KEY_USAGE {
            continue;
        }
        let (tag, mut value) = take(&mut extension)?;
        if tag == BOOLEAN {
            value = expect(&mut extension, OCTETS)?;
        } else if tag != OCTETS {
            return None;
        }
        let mut listed = expect(&mut value, SEQUENCE)?;
        let mut usages = Vec::new();
        while !listed.is_empty() {
            usages.push(expect(&mut listed, OID)?);
        }
        if found.replace(usages).is_some() {
            return None;
        }
    }
    found
}

/// The fields of a certificate from the subject on.
fn behind_the_dates(der: &[u8]) -> Option<&[u8]> {
    let mut rest = der;
    let mut certificate = expect(&mut rest, SEQUENCE)?;
    let mut fields = expect(&mut certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        expect(&mut fields, VERSION)?;
    }
    expect(&mut fields, INTEGER)?;
    // The algorithm, the issuer and the dates.
    for _ in 0..3 {
        expect(&mut fields, SEQUENCE)?;
    }
    Some(fields)
}

fn expect<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    take(bytes)
        .filter(|(found, _)| *found == tag)
        .map(|it| it.1)
}

/// The next value in distinguished encoding: its tag and its contents.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut len = usize::from(*first);
    if *first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, behind) = rest.split_at_checked(count)?;
        rest = behind;
        len = digits
            .iter()
            .fold(0, |len, digit| len << 8 | usize::from(*digit));
    }
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some((*tag, value))
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const ISSUER_ID: u8 = 0x81;
const SUBJECT_ID: u8 = 0x82;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const NAME_MOST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(name: &str) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Backups");
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_and_nothing_in_it_steers_a_terminal() {
        assert_eq!(common_name(&certificate("alice")).unwrap(), "alice");
        assert_eq!(common_name(&certificate("a\x1b[2Jé\n")).unwrap(), "a [2Jé ");
        assert_eq!(
            common_name(&certificate(&"x".repeat(300))).unwrap().len(),
            200
        );
        assert_eq!(common_name(&certificate("")), None);
    }

    #[test]
    fn usages_are_found_and_a_damaged_certificate_has_none_or_some() {
        use rcgen::ExtendedKeyUsagePurpose as Purpose;
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let bare = params.clone().self_signed(&key).unwrap();
        assert_eq!(extended_key_usages(bare.der()), None);
        params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
        let both = params.self_signed(&key).unwrap();
        let der = both.der();
        assert_eq!(extended_key_usages(der).unwrap().len(), 2);
        for at in 0..der.len() {
            assert_eq!(extended_key_usages(der.get(..at).unwrap()), None);
            for bit in 0..8 {
                let mut changed = der.to_vec();
                changed[at] ^= 1 << bit;
                drop(extended_key_usages(&changed));
            }
        }
    }

    #[test]
    fn cut_and_changed_certificates_have_some_name_or_none() {
        let whole = certificate("alice");
        for len in 0..whole.len() {
            assert_eq!(common_name(whole.get(..len).unwrap()), None);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                drop(common_name(&changed));
            }
        }
        assert_eq!(common_name(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(common_name(&[0x30, 0xff]), None);
    }
}
