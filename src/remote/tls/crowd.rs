//! Few at a time, and no address more than its part of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Things that belong to addresses, of which there are few at a time: one more, and the oldest of
/// the address that has the most has to go.
pub(in crate::remote) struct Crowd<T> {
    most: usize,
    of_one: usize,
    added: u64,
    all: BTreeMap<u64, (IpAddr, T)>,
}

impl<T> Crowd<T> {
    /// At most `most`, and `of_one` that belong to one address.
    pub(in crate::remote) fn new(most: usize, of_one: usize) -> Self {
        Crowd {
            most: most.max(1),
            of_one: of_one.max(1),
            added: 0,
            all: BTreeMap::new(),
        }
    }

    /// One more; returns its number, which counts from 1, and the one that had to go for it.
    pub(in crate::remote) fn add(&mut self, address: IpAddr, one: T) -> (u64, Option<T>) {
        let network = network_of(address);
        let is_of = |at: &&(IpAddr, T)| at.0 == network;
        let of_this = self.all.values().filter(is_of).count();
        let crowded = match of_this >= self.of_one {
            true => Some(network),
            false if self.all.len() >= self.most => self.largest(),
            false => None,
        };
        let oldest = crowded.and_then(|crowded| {
            let mut all = self.all.iter();
            all.find(|(_, (at, _))| *at == crowded).map(|it| *it.0)
        });
        let gone = oldest.and_then(|number| self.remove(number));
        self.added += 1;
        self.all.insert(self.added, (network, one));
        (self.added, gone)
    }

    /// Takes one out; `None` where it had to go before.
    pub(in crate::remote) fn remove(&mut self, number: u64) -> Option<T> {
        self.all.remove(&number).map(|(_, one)| one)
    }

    /// All, oldest first.
    pub(in crate::remote) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.all.iter().map(|(number, (_, one))| (*number, one))
    }

    /// Takes all out.
    pub(in crate::remote) fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.all).into_values().map(|it| it.1)
    }

    /// The address that has the most.
    fn largest(&self) -> Option<IpAddr> {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for (address, _) in self.all.values() {
            *counts.entry(*address).or_default() += 1;
        }
        counts.into_iter().max_by_key(|it| it.1).map(|it| it.0)
    }
}

/// What one party is likely to have alone: an address, or 2^64 of version 6.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_flood_from_one_address_only_cuts_off_itself() {
        let mut crowd = Crowd::new(64, 16);
        let (honest, _) = crowd.add(at("192.0.2.1"), 0);
        for one in 1..10_000u32 {
            let (_, gone) = crowd.add(at("198.51.100.7"), one);
            // Always its own oldest.
            assert_eq!(gone, one.checked_sub(16).filter(|it| *it > 0));
        }
        assert_eq!(crowd.all.len(), 17);
        assert_eq!(crowd.remove(honest), Some(0));
    }

    #[test]
    fn where_all_is_full_the_address_with_the_most_gives_way() {
        let mut crowd = Crowd::new(64, 16);
        let (honest, _) = crowd.add(at("192.0.2.1"), 0);
        for one in 0..1000u32 {
            // Five addresses that take as much as they can; of version 6 a whole network counts.
            crowd.add(at(&format!("2001:db8:{}::{one:x}", one % 5)), one + 1);
        }
        assert!(crowd.all.len() <= 64);
        assert_eq!(crowd.remove(honest), Some(0));
        crowd.add(at("::ffff:192.0.2.1"), 5000);
        assert!(crowd.all.values().any(|it| it.0 == at("192.0.2.1")));
    }
}
