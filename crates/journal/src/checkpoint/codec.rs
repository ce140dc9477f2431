//! Manifests and rows as messages of `paymesh.events.v1`.

use std::collections::BTreeMap;

use paymesh_contract::{events::v1 as pb, has_more_fields};
use paymesh_ledger::{Account, Day, Exempted, LineId, Monitored, PaymentMethod, Records, Wallet};
use paymesh_types::{Currency, Cursor, Epoch, HistoryMark, Invalid, RequestId, Sequence, ShardRef, Timestamp, UserId};
use prost::Message as _;

use super::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, CHUNKS_MAX, COMPRESSION_LEVEL, Manifest, kind, ordered};
use crate::{Digest, Line, LineKind, PaymentRow, Row, codec};

/// Why a message is not a checkpoint's.
#[derive(Debug, thiserror::Error)]
pub enum BadCheckpoint {
    /// A value that nobody writes.
    #[error("it does not make sense: {0}")]
    Value(#[from] Invalid),
    /// The bytes are no message.
    #[error("it does not decode: {0}")]
    Wire(#[from] prost::DecodeError),
    /// A payment that nobody writes.
    #[error(transparent)]
    Payment(#[from] codec::DecodeError),
    /// A field is absent or out of its range.
    #[error("it does not make sense: {0}")]
    Missing(&'static str),
}

impl From<&Manifest> for pb::Checkpoint {
    fn from(manifest: &Manifest) -> Self {
        let books = ordered(manifest.books.clone());
        let system = books.system.iter().filter_map(|((account, currency), balance)| {
            let (kind, peer) = kind(account)?;
            let (zone, shard) = parts(peer);
            let gateway = match account {
                Account::Acquirer(gateway) => gateway.to_string(),
                _ => String::new(),
            };
            Some(pb::SystemBalance { kind, zone, shard, currency: currency.numeric().into(), balance: *balance, gateway })
        });
        let mut cursors: BTreeMap<ShardRef, (Option<Cursor>, Option<u64>)> = BTreeMap::new();
        books.inbox.iter().for_each(|(peer, at)| cursors.entry(peer.clone()).or_default().0 = Some(*at));
        books.delivered.iter().for_each(|(peer, at)| cursors.entry(peer.clone()).or_default().1 = Some(at.0));
        let cursors = cursors.into_iter().map(|(peer, (taken_in, delivered_sequence))| {
            let (zone, shard) = parts(Some(&peer));
            let taken_in_mark = codec::mark(taken_in.and_then(|taken_in| taken_in.mark));
            pb::PeerCursor {
                zone,
                shard,
                taken_in_sequence: taken_in.map(|taken_in| taken_in.sequence.0),
                delivered_sequence,
                taken_in_mark,
            }
        });
        Self {
            zone: manifest.shard.zone.to_string(),
            shard: manifest.shard.index.into(),
            epoch: manifest.epoch.0,
            sequence: manifest.sequence.0,
            hash: manifest.hash.to_vec(),
            committed_at_us: manifest.committed_at.0,
            system: system.collect(),
            cursors: cursors.collect(),
            newest_request_ms: books.newest_request_ms.unwrap_or(0),
            rows: manifest.digest.rows,
            rows_digest: manifest.digest.to_bytes().to_vec(),
            chunk_hashes: manifest.chunks.iter().map(|hash| hash.to_vec()).collect(),
            monitored: books
                .monitored
                .days()
                .map(|((day, means), totals)| pb::MonitoredDay { day: day.0, totals: Some(codec::charge::monitored(means, &totals)) })
                .collect(),
            monitored_since: books.monitored.since().map(|day| day.0),
        }
    }
}

impl TryFrom<&pb::Checkpoint> for Manifest {
    type Error = BadCheckpoint;

    fn try_from(message: &pb::Checkpoint) -> Result<Self, BadCheckpoint> {
        if message.chunk_hashes.len() > CHUNKS_MAX {
            return Err(BadCheckpoint::Missing("it has more chunks than one may have"));
        }
        if message.sequence >= i64::MAX as u64 || message.epoch >= i64::MAX as u64 || message.committed_at_us >= i64::MAX as u64 {
            return Err(BadCheckpoint::Missing("a number is out of range"));
        }
        let mut books = Records { newest_request_ms: Some(message.newest_request_ms), ..Records::default() };
        for each in &message.system {
            let peer = || shard(&each.zone, each.shard);
            let account = match each.kind {
                0 => Account::External,
                1 => Account::Sent(peer()?),
                2 => Account::Received(peer()?),
                3 => Account::Acquirer(each.gateway.parse()?),
                4 => Account::RefundsPayable,
                _ => return Err(BadCheckpoint::Missing("an account of no kind")),
            };
            books.system.push(((account, currency(each.currency)?), each.balance));
        }
        for each in &message.cursors {
            let peer = shard(&each.zone, each.shard)?;
            let taken_in = each.taken_in_sequence.map(|at| Cursor { sequence: Sequence(at), mark: HistoryMark::new(each.taken_in_mark) });
            books.inbox.extend(taken_in.map(|taken_in| (peer.clone(), taken_in)));
            books.delivered.extend(each.delivered_sequence.map(|at| (peer, Sequence(at))));
        }
        books.monitored = monitored(message)?;
        let hash = |bytes: &Vec<u8>| bytes.as_slice().try_into().map_err(|_| BadCheckpoint::Missing("a hash that is not 32 bytes"));
        let digest = message.rows_digest.as_slice().try_into().map_err(|_| BadCheckpoint::Missing("a digest that is not 16 bytes"))?;
        Ok(Self {
            shard: shard(&message.zone, message.shard)?,
            epoch: Epoch(message.epoch),
            sequence: Sequence(message.sequence),
            hash: hash(&message.hash)?,
            committed_at: Timestamp(message.committed_at_us),
            books: ordered(books),
            digest: Digest::from_bytes(message.rows, digest),
            chunks: message.chunk_hashes.iter().map(hash).collect::<Result<_, _>>()?,
        })
    }
}

fn monitored(message: &pb::Checkpoint) -> Result<Monitored, BadCheckpoint> {
    let day = |each: &pb::MonitoredDay| {
        let totals = each.totals.as_ref().ok_or(BadCheckpoint::Missing("a day without payments"))?;
        let (means, totals) = codec::charge::from_monitored(totals)?;
        Ok(((Day(each.day), means.ok_or(BadCheckpoint::Missing("payments that are counted by no means"))?), totals))
    };
    let days = message.monitored.iter().map(day).collect::<Result<Vec<_>, BadCheckpoint>>()?;
    Ok(Monitored::new(message.monitored_since.map(Day), days))
}

fn parts(shard: Option<&ShardRef>) -> (String, u32) {
    shard.map_or((String::new(), 0), |shard| (shard.zone.to_string(), shard.index.into()))
}

fn shard(zone: &str, index: u32) -> Result<ShardRef, BadCheckpoint> {
    let index = u16::try_from(index).map_err(|_| BadCheckpoint::Missing("a shard number out of range"))?;
    Ok(ShardRef { zone: zone.parse()?, index })
}

fn currency(number: u32) -> Result<Currency, BadCheckpoint> {
    let number = u16::try_from(number).map_err(|_| BadCheckpoint::Missing("a currency number out of range"))?;
    Ok(Currency::from_numeric(number)?)
}

/// A row as a message.
enum Encoded {
    User(pb::UserRow),
    Claim(pb::ClaimRow),
    Account(pb::AccountRow),
    Line(pb::LineRow),
    Payment(Box<pb::PaymentRow>),
    Request(pb::RequestRow),
    Method(pb::PaymentMethodRow),
}

/// Fields of a chunk at most: its rows, and some that a later version may know.
const FIELDS_MAX: usize = CHUNK_ROWS_MAX + 64;

pub(super) fn pack(rows: &[Row]) -> Vec<u8> {
    let raw = raw(rows);
    assert!(raw.len() <= CHUNK_BYTES_MAX, "a chunk has {CHUNK_BYTES_MAX} bytes at most");
    zstd::bulk::compress(&raw, COMPRESSION_LEVEL).expect("compressing into memory does not fail")
}

fn raw(rows: &[Row]) -> Vec<u8> {
    let mut chunk = pb::CheckpointChunk::default();
    for row in rows {
        match encoded(row) {
            Encoded::User(row) => chunk.users.push(row),
            Encoded::Claim(row) => chunk.claims.push(row),
            Encoded::Account(row) => chunk.accounts.push(row),
            Encoded::Line(row) => chunk.lines.push(row),
            Encoded::Payment(row) => chunk.payments.push(*row),
            Encoded::Request(row) => chunk.requests.push(row),
            Encoded::Method(row) => chunk.methods.push(row),
        }
    }
    chunk.encode_to_vec()
}

/// The same for every build: its table's number, and the message.
pub(super) fn bytes(row: &Row) -> Vec<u8> {
    let (table, message) = match encoded(row) {
        Encoded::User(row) => (1, row.encode_to_vec()),
        Encoded::Claim(row) => (2, row.encode_to_vec()),
        Encoded::Account(row) => (3, row.encode_to_vec()),
        Encoded::Line(row) => (4, row.encode_to_vec()),
        Encoded::Payment(row) => (5, row.encode_to_vec()),
        Encoded::Request(row) => (6, row.encode_to_vec()),
        Encoded::Method(row) => (7, row.encode_to_vec()),
    };
    std::iter::once(table).chain(message).collect()
}

/// The rows of a chunk.
pub(super) fn unpack(chunk: &[u8]) -> Result<Vec<Row>, String> {
    decode(&decompress(chunk)?)
}

/// The same, of a chunk in which there is nothing that this version does not know.
pub(super) fn unpack_known(chunk: &[u8]) -> Result<Vec<Row>, String> {
    let packed = decompress(chunk)?;
    let rows = decode(&packed)?;
    if raw(&rows) == packed { Ok(rows) } else { Err("it has more than its rows".to_owned()) }
}

fn decompress(chunk: &[u8]) -> Result<Vec<u8>, String> {
    let claimed = zstd::zstd_safe::get_frame_content_size(chunk)
        .ok()
        .flatten()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes <= CHUNK_BYTES_MAX)
        .ok_or("it is not a frame of a size that a chunk has")?;
    zstd::bulk::decompress(chunk, claimed).map_err(|error| format!("it does not unpack: {error}"))
}

fn decode(raw: &[u8]) -> Result<Vec<Row>, String> {
    // Counted while they are bytes: two of them can be a row that takes a hundred times as much, and a chunk has millions.
    if has_more_fields(raw, FIELDS_MAX).map_err(|error| error.to_string())? {
        return Err(format!("it has more than {FIELDS_MAX} rows, or fields that are none"));
    }
    let decoded = pb::CheckpointChunk::decode(raw).map_err(|error| error.to_string())?;
    rows(decoded).map_err(|error| error.to_string())
}

fn rows(chunk: pb::CheckpointChunk) -> Result<Vec<Row>, BadCheckpoint> {
    let pb::CheckpointChunk { users, claims, accounts, lines, payments, requests, methods } = chunk;
    let encoded = users.into_iter().map(Encoded::User);
    let encoded = encoded.chain(claims.into_iter().map(Encoded::Claim)).chain(accounts.into_iter().map(Encoded::Account));
    let encoded =
        encoded.chain(lines.into_iter().map(Encoded::Line)).chain(payments.into_iter().map(|row| Encoded::Payment(Box::new(row))));
    let encoded = encoded.chain(requests.into_iter().map(Encoded::Request)).chain(methods.into_iter().map(Encoded::Method));
    let rows: Vec<Row> = encoded.map(row).collect::<Result<_, _>>()?;
    if rows.len() > CHUNK_ROWS_MAX { Err(BadCheckpoint::Missing("it has more rows than a chunk")) } else { Ok(rows) }
}

fn encoded(row: &Row) -> Encoded {
    match row {
        Row::User(user, country) => Encoded::User(pb::UserRow { user_id: user.get(), residence_country: country.code().to_owned() }),
        Row::Claim(user, zone) => Encoded::Claim(pb::ClaimRow { user_id: user.get(), zone: zone.to_string() }),
        Row::Wallet((user, currency), wallet) => Encoded::Account(pb::AccountRow {
            user_id: user.get(),
            currency: currency.numeric().into(),
            balance: wallet.balance,
            held: wallet.held,
            closed: wallet.closed,
            last_line: wallet.last_line.0,
            last_payment: wallet.last_payment.0,
            exempted_payments: wallet.exempted.payments,
            exempted_minor: u64::try_from(wallet.exempted.minor).expect("amounts of payments add up to no less than nothing"),
        }),
        Row::Line(line) => Encoded::Line(pb::LineRow {
            id: line.id.0,
            user_id: line.user.get(),
            currency: line.currency.numeric().into(),
            kind: line.kind as u32,
            amount: line.amount,
            balance: line.balance,
            at_us: line.at.0,
            payment_id: line.payment.as_ref().map(ToString::to_string).unwrap_or_default(),
            counterparty_id: line.counterparty.map_or(0, UserId::get),
            reference: line.reference.clone(),
            previous_line: line.previous.0,
        }),
        Row::Payment(row) => Encoded::Payment(Box::new(pb::PaymentRow {
            payment: Some(codec::state(&row.payment)),
            previous_payment: row.previous.0,
            reference: row.reference.clone(),
            charge: row.payment.card.as_deref().map(codec::charge::charge),
        })),
        Row::Method(user, method) => Encoded::Method(pb::PaymentMethodRow {
            user_id: user.get(),
            vault_token: method.token.to_string(),
            added_sequence: method.added.0,
            added_at_us: method.added_at.0,
        }),
        Row::Request(sequence, id, at) => {
            Encoded::Request(pb::RequestRow { sequence: sequence.0, request_id: id.as_bytes().to_vec(), at_us: at.0 })
        }
    }
}

fn row(encoded: Encoded) -> Result<Row, BadCheckpoint> {
    Ok(match encoded {
        Encoded::User(it) => Row::User(UserId::try_from(it.user_id)?, it.residence_country.parse()?),
        Encoded::Claim(it) => Row::Claim(UserId::try_from(it.user_id)?, it.zone.parse()?),
        Encoded::Account(it) => {
            let minor = i64::try_from(it.exempted_minor).map_err(|_| BadCheckpoint::Missing("an amount out of range"))?;
            let wallet = Wallet {
                balance: it.balance,
                held: it.held,
                closed: it.closed,
                last_line: LineId(it.last_line),
                last_payment: Sequence(it.last_payment),
                exempted: Exempted { payments: it.exempted_payments, minor },
            };
            Row::Wallet((UserId::try_from(it.user_id)?, currency(it.currency)?), wallet)
        }
        Encoded::Line(it) => Row::Line(Line {
            id: LineId(it.id),
            user: UserId::try_from(it.user_id)?,
            currency: currency(it.currency)?,
            kind: LineKind::from_number(it.kind.into()).ok_or(BadCheckpoint::Missing("a line of no kind"))?,
            amount: it.amount,
            balance: it.balance,
            at: Timestamp(it.at_us),
            payment: if it.payment_id.is_empty() { None } else { Some(it.payment_id.parse()?) },
            counterparty: if it.counterparty_id == 0 { None } else { Some(UserId::try_from(it.counterparty_id)?) },
            reference: it.reference,
            previous: LineId(it.previous_line),
        }),
        Encoded::Payment(it) => Row::Payment(PaymentRow {
            payment: codec::charge::with(codec::from_state(it.payment)?, it.charge.as_ref())?,
            previous: Sequence(it.previous_payment),
            reference: it.reference,
            delivered: Sequence(0),
        }),
        Encoded::Method(it) => {
            let (added, added_at) = (Sequence(it.added_sequence), Timestamp(it.added_at_us));
            Row::Method(UserId::try_from(it.user_id)?, PaymentMethod { added, added_at, token: it.vault_token.parse()? })
        }
        Encoded::Request(it) => Row::Request(Sequence(it.sequence), RequestId::from_slice(&it.request_id)?, Timestamp(it.at_us)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few bytes can unpack to many, and many to more when they are decoded.
    #[test]
    fn a_small_chunk_cannot_ask_for_much_memory() {
        let refusal = |raw: &[u8]| {
            let chunk = zstd::bulk::compress(raw, 19).expect("compressing into memory does not fail");
            assert!(chunk.len() < 20_000, "{} bytes", chunk.len());
            unpack(&chunk).expect_err("nobody wrote it")
        };
        assert!(refusal(&vec![0; CHUNK_BYTES_MAX + 1]).contains("size"), "nothing is inflated");
        // Empty payments without end: of as many bytes as a chunk may have, they would take gigabytes.
        assert!(refusal(&[0x2a, 0x00].repeat(CHUNK_BYTES_MAX / 2)).contains("rows"));
        let most = [0x2a, 0x00].repeat(CHUNK_ROWS_MAX);
        assert!(!refusal(&most).contains("rows"), "they are looked at, and are none");
        // A frame that does not say how much it unpacks to.
        let mut packer = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
        std::io::Write::write_all(&mut packer, &[0; 100]).expect("memory has room");
        assert!(unpack(&packer.finish().expect("a frame")).expect_err("no size").contains("size"));
    }
}
