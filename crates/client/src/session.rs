//! What one line of work has written and read, so that it never reads less.
//!
//! A write's position is exact: what was written is read. A read's is a lower bound on what it saw: an answer may hold an entry more
//! than it says. So what was read is read again at the same copy, but two copies at the same position may differ by that entry.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use paymesh_contract::common::v1::{Position, ReadLevel, ReadOptions};
use prost::Message as _;

/// Shards whose positions a session keeps at most: as many as a read may name. One that has seen more reads at the home.
pub const POSITIONS_MAX: usize = 256;

/// Digits of a token at most.
const TOKEN_DIGITS_MAX: usize = 32 << 10;

/// A token that no session gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session's token is what Session::token gave")]
pub struct TokenError;

/// The furthest position of each shard that was written or read. To be shared by what belongs together: a request's handling, a
/// user's visit. It can be handed over to another process, in another region, as [`Session::token`].
#[derive(Debug, Default)]
pub struct Session {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    /// By zone and shard: epoch and sequence number.
    positions: BTreeMap<(String, u32), (u64, u64)>,
    /// There were more than it keeps.
    full: bool,
}

impl Session {
    /// One that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a position, as every answer has one.
    pub fn note(&self, position: &Position) {
        let Position { zone, shard, epoch, sequence } = position;
        let mut seen = self.lock();
        let full = seen.positions.len() >= POSITIONS_MAX;
        match seen.positions.entry((zone.clone(), *shard)) {
            Entry::Occupied(mut known) => {
                let (known_epoch, known_sequence) = *known.get();
                known.insert((known_epoch.max(*epoch), known_sequence.max(*sequence)));
            }
            Entry::Vacant(place) if !full => {
                place.insert((*epoch, *sequence));
            }
            Entry::Vacant(_) => seen.full = true,
        }
    }

    /// How a read is to be asked for: near by, with at least what the session has seen.
    pub fn read(&self) -> ReadOptions {
        let seen = self.lock();
        if seen.full { ReadOptions { level: ReadLevel::Home.into(), ..ReadOptions::default() } } else { seen.options() }
    }

    /// The session for another process: letters and digits, some thirty for each shard. Its text is no secret and no proof.
    pub fn token(&self) -> String {
        let seen = self.lock();
        let level = if seen.full { ReadLevel::Home } else { ReadLevel::Local };
        let encoded = ReadOptions { level: level.into(), ..seen.options() }.encode_to_vec();
        encoded.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
    }
}

impl Seen {
    fn options(&self) -> ReadOptions {
        let at_least = self.positions.iter().map(|((zone, shard), (epoch, sequence))| Position {
            zone: zone.clone(),
            shard: *shard,
            epoch: *epoch,
            sequence: *sequence,
        });
        ReadOptions { level: ReadLevel::Local.into(), max_staleness_ms: None, at_least: at_least.collect() }
    }
}

impl FromStr for Session {
    type Err = TokenError;

    fn from_str(token: &str) -> Result<Self, TokenError> {
        let digits = token.as_bytes();
        if !token.len().is_multiple_of(2) || token.len() > TOKEN_DIGITS_MAX {
            return Err(TokenError);
        }
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(TokenError);
        let bytes =
            digits.chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect::<Result<Vec<u8>, TokenError>>()?;
        let options = ReadOptions::decode(bytes.as_slice()).map_err(|_| TokenError)?;
        if options.at_least.len() > POSITIONS_MAX {
            return Err(TokenError);
        }
        let session = Self::new();
        options.at_least.iter().for_each(|position| session.note(position));
        session.lock().full = options.level() != ReadLevel::Local;
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(zone: &str, shard: u32, epoch: u64, sequence: u64) -> Position {
        Position { zone: zone.to_owned(), shard, epoch, sequence }
    }

    #[test]
    fn the_furthest_position_of_each_shard_is_kept_and_handed_over() {
        let session = Session::new();
        for (shard, epoch, sequence) in [(1, 2, 10), (1, 1, 12), (0, 1, 5), (1, 2, 3)] {
            session.note(&position("eu", shard, epoch, sequence));
        }
        session.note(&position("global", 1, 7, 8));
        let read = session.read();
        assert_eq!(read.level(), ReadLevel::Local);
        assert_eq!(read.at_least, [position("eu", 0, 1, 5), position("eu", 1, 2, 12), position("global", 1, 7, 8)]);
        let elsewhere: Session = session.token().parse().expect("a token");
        assert_eq!(elsewhere.read(), read);
        let nothing: Session = Session::new().token().parse().expect("a token");
        assert_eq!(nothing.read(), Session::new().read());
    }

    #[test]
    fn a_session_that_has_seen_more_than_a_read_can_name_reads_at_the_home() {
        let session = Session::new();
        (0..256).for_each(|shard| session.note(&position("eu", shard, 1, 1)));
        assert_eq!((session.read().level(), session.read().at_least.len()), (ReadLevel::Local, 256));
        session.note(&position("eu", 256, 1, 1));
        assert_eq!(session.read().level(), ReadLevel::Home);
        let elsewhere: Session = session.token().parse().expect("a token");
        assert_eq!(elsewhere.read().level(), ReadLevel::Home);
        session.note(&position("eu", 3, 1, 9));
        assert_eq!(session.read().level(), ReadLevel::Home, "what it has missed stays missed");
    }

    #[test]
    fn what_no_session_gave_is_no_token() {
        for wrong in ["0", "xy", "0g", "ff", &"00".repeat(20_000), "é0"] {
            assert_eq!(wrong.parse::<Session>().err(), Some(TokenError), "{wrong}");
        }
    }
}
