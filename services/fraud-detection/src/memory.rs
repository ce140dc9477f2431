//! What is known of users, cards, devices and payees, and what that says of a payment. Pure: time is an argument.
//!
//! Bounded: of each kind, the last [`KEYS_MAX`] keys that were used, and up to as many again. Who is let go of is unknown from then on: a user has no history again,
//! which speaks neither for nor against the next payments, and windows begin anew. Habits are learnt from payments that were not declined; every
//! payment counts towards how many there were.

use paymesh_topology::{Fraud, Listed, Signal, Window};
use paymesh_types::{Country, Money, RegionName, Timestamp, UserId};

use crate::{
    lately::Lately,
    score::{Facts, Listing},
    windows::{Others, Windows},
};

/// Users, cards, devices and payees that are remembered, of each kind, and up to twice as many. ADR 0019 says what that takes.
pub const KEYS_MAX: usize = 100_000;

/// Bytes of a card's fingerprint and a device's hash.
pub const HASH_BYTES: usize = 16;
/// Separates hashes of devices from all others.
const DEVICE_CONTEXT: &str = "paymesh 2026-11-27 fraud device";

/// Amounts that are remembered of a user.
const AMOUNTS_MAX: usize = 16;
/// Cards, devices, payees and regions that are remembered of a user: the last used.
const CARDS_MAX: usize = 8;
const DEVICES_MAX: usize = 8;
const PAYEES_MAX: usize = 32;
const REGIONS_MAX: usize = 4;
const HOURS: usize = 24;
/// Hours before and after that are around an hour of the day.
const AROUND: usize = 2;

/// A card's fingerprint, or a device's hash.
pub type Hash = [u8; HASH_BYTES];

/// A payment to be scored, as it has passed the door.
#[derive(Debug, Clone)]
pub struct Payment {
    /// When it was asked for.
    pub at: Timestamp,
    /// Who pays.
    pub payer: UserId,
    /// Who is paid.
    pub payee: UserId,
    /// How much.
    pub amount: Money,
    /// The card, where it is paid by one that is known.
    pub card: Option<Hash>,
    /// The first digits of the card's number.
    pub bin: Option<String>,
    /// Where the card was issued.
    pub card_country: Option<Country>,
    /// The hash of what stands for the device.
    pub device: Option<Hash>,
    /// Where it entered the mesh.
    pub region: RegionName,
    /// Whether that is outside of the payer's zone.
    pub enters_abroad: bool,
    /// Where the payer resides.
    pub residence: Option<Country>,
}

/// What is remembered of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When it was asked for.
    pub at: Timestamp,
    /// Who paid.
    pub payer: UserId,
    /// Who was paid.
    pub payee: UserId,
    /// How much, in minor units of the reference currency. None: its currency had no rate.
    pub reference: Option<u64>,
    /// The card.
    pub card: Option<Hash>,
    /// The device.
    pub device: Option<Hash>,
    /// Where it entered the mesh.
    pub region: RegionName,
    /// Whether it was not declined.
    pub accepted: bool,
}

impl Payment {
    /// What is to be remembered of it.
    pub fn seen(&self, reference: Option<u64>, accepted: bool) -> Seen {
        let Self { at, payer, payee, card, device, region, .. } = self;
        Seen { at: *at, payer: *payer, payee: *payee, reference, card: *card, device: *device, region: region.clone(), accepted }
    }
}

/// What is kept of a device, in the place of what stands for it. Without a key: who knows the text can make the hash, and list it.
pub fn device_hash(device: &str) -> Hash {
    let mut hash = [0; HASH_BYTES];
    blake3::Hasher::new_derive_key(DEVICE_CONTEXT).update(device.as_bytes()).finalize_xof().fill(&mut hash);
    hash
}

/// All that is known.
#[derive(Debug)]
pub struct Memory {
    users: Lately<UserId, User>,
    cards: Lately<Hash, Shared>,
    devices: Lately<Hash, Shared>,
    payees: Lately<UserId, Windows>,
}

#[derive(Debug, Default)]
struct User {
    windows: Windows,
    cards_lately: Others,
    /// The last sixteen, in a ring that begins at `payments`.
    amounts: Vec<u64>,
    next_amount: usize,
    hours: [u16; HOURS],
    payments: u32,
    cards: Known<CARDS_MAX>,
    devices: Known<DEVICES_MAX>,
    payees: Known<PAYEES_MAX>,
    regions: Known<REGIONS_MAX>,
}

/// A card or a device.
#[derive(Debug, Default)]
struct Shared {
    windows: Windows,
    users: Others,
}

/// What a user has used before: the last of them, the latest at the end.
#[derive(Debug, Default)]
struct Known<const MAX: usize>(Vec<u64>);

impl<const MAX: usize> Known<MAX> {
    fn has(&self, one: u64) -> bool {
        self.0.contains(&one)
    }

    fn add(&mut self, one: u64) {
        self.0.retain(|known| *known != one);
        if self.0.len() == MAX {
            self.0.remove(0);
        }
        self.0.push(one);
    }
}

impl User {
    fn learn(&mut self, seen: &Seen) {
        self.payments = self.payments.saturating_add(1);
        if let Some(amount) = seen.reference {
            if self.amounts.len() < AMOUNTS_MAX {
                self.amounts.push(amount);
            } else {
                self.amounts[self.next_amount] = amount;
                self.next_amount = (self.next_amount + 1) % AMOUNTS_MAX;
            }
        }
        let hour = hour(seen.at);
        if self.hours[hour] == u16::MAX {
            // What was long ago counts less and less.
            self.hours.iter_mut().for_each(|payments| *payments /= 2);
        }
        self.hours[hour] += 1;
        if let Some(card) = seen.card {
            self.cards.add(short(&card));
        }
        if let Some(device) = seen.device {
            self.devices.add(short(&device));
        }
        self.payees.add(seen.payee.get());
        self.regions.add(region(&seen.region));
    }

    /// Per mille of the payments that were not made around this hour.
    fn away_from(&self, hour: usize) -> u64 {
        let all: u64 = self.hours.iter().map(|payments| u64::from(*payments)).sum();
        let around = (HOURS - AROUND..=HOURS + AROUND).map(|shift| u64::from(self.hours[(hour + shift) % HOURS])).sum::<u64>();
        ((all - around) * 1_000).checked_div(all).unwrap_or(0)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(KEYS_MAX)
    }
}

impl Memory {
    /// One that knows nothing, and remembers `keys_max` of each kind and up to as many again.
    pub fn new(keys_max: usize) -> Self {
        Self { users: Lately::new(keys_max), cards: Lately::new(keys_max), devices: Lately::new(keys_max), payees: Lately::new(keys_max) }
    }

    /// What is measured of a payment, itself included. Changes nothing.
    pub fn facts(&self, rules: &Fraud, payment: &Payment) -> Facts {
        let mut facts = Facts::default();
        facts.blocked = listings(rules.block(), payment, true);
        facts.allowed = listings(rules.allow(), payment, false);
        let reference = rules.to_reference(payment.amount);
        facts.flag(Signal::CurrencyUnrated, reference.is_none());
        facts.flag(Signal::EntryAbroad, payment.enters_abroad);
        let abroad = payment.card_country.zip(payment.residence).is_some_and(|(card, user)| card != user);
        facts.flag(Signal::CardAbroad, abroad);

        let (user, at) = (self.users.get(&payment.payer), seconds(payment.at));
        let mut count = |windows: Option<&Windows>, counts: Signal, amounts: Signal| {
            for window in Window::ALL {
                let (count, amount) = windows.map_or((0, 0), |windows| windows.sum(window, at));
                facts.set(counts, Some(window), count + 1);
                facts.set(amounts, Some(window), amount.saturating_add(reference.unwrap_or(0)));
            }
        };
        count(user.map(|user| &user.windows), Signal::UserCount, Signal::UserAmount);
        count(self.payees.get(&payment.payee), Signal::PayeeCount, Signal::PayeeAmount);
        let card = payment.card.and_then(|card| self.cards.get(&card));
        let device = payment.device.and_then(|device| self.devices.get(&device));
        if payment.card.is_some() {
            count(card.map(|card| &card.windows), Signal::CardCount, Signal::CardAmount);
        }
        if payment.device.is_some() {
            count(device.map(|device| &device.windows), Signal::DeviceCount, Signal::DeviceAmount);
        }
        for window in Window::ALL {
            let mut different = |signal, others: Option<&Others>, with| {
                facts.set(signal, Some(window), others.map_or(1, |others| others.count_with(window, at, with)));
            };
            if let Some(fingerprint) = payment.card {
                different(Signal::UserCards, user.map(|user| &user.cards_lately), short(&fingerprint));
                different(Signal::CardUsers, card.map(|card| &card.users), payment.payer.get());
            }
            if payment.device.is_some() {
                different(Signal::DeviceUsers, device.map(|device| &device.users), payment.payer.get());
            }
        }
        habits(&mut facts, user, payment, reference);
        facts
    }

    /// Remembers a payment.
    pub fn learn(&mut self, seen: &Seen) {
        let (at, amount) = (seconds(seen.at), seen.reference.unwrap_or(0));
        let user = self.users.entry(seen.payer, User::default);
        user.windows.add(at, amount);
        if let Some(card) = seen.card {
            user.cards_lately.add(at, short(&card));
        }
        if seen.accepted {
            user.learn(seen);
        }
        for (shared, key) in [(&mut self.cards, seen.card), (&mut self.devices, seen.device)] {
            if let Some(key) = key {
                let shared = shared.entry(key, Shared::default);
                shared.windows.add(at, amount);
                shared.users.add(at, seen.payer.get());
            }
        }
        self.payees.entry(seen.payee, Windows::default).add(at, amount);
    }
}

/// What the payer's own history says.
fn habits(facts: &mut Facts, user: Option<&User>, payment: &Payment, reference: Option<u64>) {
    let Some(user) = user.filter(|user| user.payments > 0) else {
        facts.flag(Signal::FirstPayment, true);
        return;
    };
    facts.payments = user.payments;
    facts.flag(Signal::FirstCard, payment.card.is_some_and(|card| !user.cards.has(short(&card))));
    facts.flag(Signal::FirstDevice, payment.device.is_some_and(|device| !user.devices.has(short(&device))));
    facts.flag(Signal::FirstPayee, !user.payees.has(payment.payee.get()));
    facts.flag(Signal::FirstRegion, !user.regions.has(region(&payment.region)));
    if let (Some(amount), Some(largest)) = (reference, user.amounts.iter().max()) {
        let percent = u128::from(amount) * 100 / u128::from((*largest).max(1));
        facts.set(Signal::AmountUnusual, None, u64::try_from(percent).unwrap_or(u64::MAX));
    }
    facts.set(Signal::HourUnusual, None, user.away_from(hour(payment.at)));
}

/// What of a payment is on a list. To be paid is to be refused too, and not to be believed.
fn listings(listed: &Listed, payment: &Payment, payee_too: bool) -> Vec<Listing> {
    let has_bin = |bin: &String| listed.bins.iter().any(|listed| bin.starts_with(listed.as_str()));
    let countries = [payment.card_country, payment.residence];
    let all = [
        (Listing::User, listed.users.contains(&payment.payer)),
        (Listing::Payee, payee_too && listed.users.contains(&payment.payee)),
        (Listing::Card, payment.card.is_some_and(|card| listed.cards.contains(&card))),
        (Listing::Device, payment.device.is_some_and(|device| listed.devices.contains(&device))),
        (Listing::Bin, payment.bin.as_ref().is_some_and(has_bin)),
        (Listing::Country, countries.into_iter().flatten().any(|country| listed.countries.contains(&country))),
    ];
    all.into_iter().filter_map(|(listing, is_listed)| is_listed.then_some(listing)).collect()
}

fn seconds(at: Timestamp) -> u64 {
    at.0 / 1_000_000
}

/// The hour of the day, UTC. The user's own hours are compared with each other, so that no time zone is needed.
fn hour(at: Timestamp) -> usize {
    usize::try_from(seconds(at) / 3_600 % HOURS as u64).unwrap_or(0)
}

/// A hash shortened: one of a user's few is told from another.
fn short(hash: &Hash) -> u64 {
    u64::from_be_bytes(*hash.first_chunk().expect("a hash has more bytes"))
}

fn region(name: &RegionName) -> u64 {
    u64::from_be_bytes(*blake3::hash(name.as_str().as_bytes()).as_bytes().first_chunk().expect("a hash has more bytes"))
}
