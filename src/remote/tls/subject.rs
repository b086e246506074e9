//! The name in a certificate, for people to read.

/// The common name in the subject of an X.509 certificate (RFC 5280, 4.1), without control
/// characters; `None` where there is none, or where the bytes are no certificate.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let mut certificate = expect(&mut &*der, SEQUENCE)?;
    let mut fields = expect(&mut certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        expect(&mut fields, VERSION)?;
    }
    expect(&mut fields, INTEGER)?;
    // The algorithm, the issuer and the dates.
    for _ in 0..3 {
        expect(&mut fields, SEQUENCE)?;
    }
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
