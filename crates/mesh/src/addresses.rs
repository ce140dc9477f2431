//! So many connections from one address: none takes the places of all others.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use paymesh_topology::Network;

/// The bits of an IPv6 address that one customer of a network is given at least: all addresses behind them are one's own.
const IPV6_BITS: u32 = 64;

/// A bound on how many connections each address has. There are no more addresses in it than there are connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    max: usize,
    trusted: Arc<[Network]>,
    taken: Taken,
}

/// How many places each address has taken.
type Taken = Arc<Mutex<HashMap<IpAddr, usize>>>;

impl Addresses {
    pub(crate) fn new(max: usize, trusted: Arc<[Network]>) -> Self {
        Self { max, trusted, taken: Arc::default() }
    }

    /// How many each may have.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// A connection's place among those of its address. None: it has as many as it may.
    pub(crate) fn take(&self, address: IpAddr) -> Option<OfAddress> {
        if self.trusted.iter().any(|network| network.contains(address)) {
            return Some(OfAddress { counted: None });
        }
        let address = whose(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(OfAddress { counted: Some((Arc::clone(&self.taken), address)) })
    }
}

/// What stands for all addresses of one owner.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << IPV6_BITS)).into(),
        address => address,
    }
}

/// A connection's place, free again once it is dropped.
#[derive(Debug)]
pub(crate) struct OfAddress {
    /// None: connections of trusted networks are not counted.
    counted: Option<(Taken, IpAddr)>,
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let Some((taken, address)) = &self.counted else { return };
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(*address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn an_address_has_its_places_and_no_more_and_ended_ones_leave_nothing() {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let addresses = Addresses::new(2, Arc::from(trusted));
        for of_one in [["192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"], ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"]] {
            let [first, second, third] = of_one.map(address);
            let held = [addresses.take(first).expect("a place"), addresses.take(second).expect("a place")];
            assert!(addresses.take(third).is_none(), "{third}");
            assert!(addresses.take(address("192.0.2.2")).is_some() && addresses.take(address("2001:db8:0:1::1")).is_some(), "others");
            let [first, _second] = held;
            drop(first);
            assert!(addresses.take(third).is_some(), "there is room again");
        }
        let many: Vec<_> = (0..100).map(|_| addresses.take(address("10.1.2.3")).expect("a trusted network's")).collect();
        drop(many);
        assert!(addresses.taken.lock().expect("the lock").is_empty());
    }
}
