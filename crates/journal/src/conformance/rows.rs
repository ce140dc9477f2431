//! The checks of the tables: what goes in comes out, all of it or nothing.

use std::collections::BTreeMap;

use paymesh_ledger::{Authentication, Exemption, LineId, Missing, Monitored, Payment, PaymentMethod, Phase, Records, Wallet};
use paymesh_types::{Currency, RequestId, Sequence, Timestamp, UserId};

use super::{
    Engine, empty, open,
    stream::{self, Stream, currency, user},
};
use crate::{Committed, Error, Line, PaymentRow, Projection, Row, Snapshot, Tables, memory::Dice};

/// All that tables hold, in order.
#[derive(Debug, PartialEq)]
pub(super) struct Everything {
    cursor: Sequence,
    records: Records,
    lines: BTreeMap<LineId, Line>,
    payments: BTreeMap<Sequence, PaymentRow>,
    expired: Vec<Sequence>,
    in_progress: Vec<Payment>,
}

/// Reads all that tables can hold of these entries, and what other entries may have left in the places around them.
pub(super) async fn everything(tables: &dyn Tables, entries: &[Committed]) -> Everything {
    let users: Vec<UserId> = (1..=10_001).map(user).collect();
    let currencies = (0..stream::CURRENCIES.len()).map(currency);
    let wallets = currencies.flat_map(|currency| (0..=stream::USERS).map(move |number| (user(number + 1), currency))).collect();
    let mut requests: Vec<RequestId> = entries.iter().filter_map(|(_, entry)| entry.request_id).collect();
    requests.sort_unstable();
    requests.dedup();
    let all = (1..=entries.len() as u64 + 1).map(Sequence);
    let methods = (1..=stream::USERS + 1).map(user).collect();
    let missing = Missing { users: users.clone(), claims: users, wallets, payments: all.collect(), requests, methods };
    let mut records = tables.records(&missing).await.expect("records are read");
    assert_eq!((&records.system, &records.inbox, &records.delivered), (&Vec::new(), &Vec::new(), &Vec::new()), "those are the books");
    let books = tables.books().await.expect("the books are read");
    let cursor = tables.cursor().await.expect("the cursor is read");
    let recorded = entries.iter().filter(|(position, _)| position.sequence <= cursor).filter_map(|(_, entry)| entry.request_id);
    assert_eq!(books.newest_request_ms, Some(recorded.filter_map(|id| id.named_at_ms()).max().unwrap_or(0)));
    let others = Records {
        system: Vec::new(),
        inbox: Vec::new(),
        delivered: Vec::new(),
        monitored: Monitored::default(),
        newest_request_ms: None,
        ..books.clone()
    };
    assert_eq!(others, Records::default(), "the books are few");
    (records.system, records.inbox, records.delivered) = (books.system, books.inbox, books.delivered);
    records.monitored = books.monitored;
    sort(&mut records);
    let mut lines = BTreeMap::new();
    let mut payments = BTreeMap::new();
    for (sequence, slot) in (1..=entries.len() as u64).flat_map(|sequence| [(sequence, 0), (sequence, 1)]) {
        let id = LineId::new(Sequence(sequence), slot);
        for line in tables.lines(id, 1).await.expect("lines are read") {
            assert_eq!(line.id, id);
            lines.insert(id, line);
        }
        if let Some(row) = tables.payment(Sequence(sequence)).await.expect("a payment is read") {
            payments.insert(Sequence(sequence), row);
        }
    }
    let mut expired = tables.expired(Timestamp(u64::MAX / 2), 1_000_000).await.expect("holds are read");
    expired.sort_unstable();
    let mut in_progress = Vec::new();
    // A page at a time.
    loop {
        let after = in_progress.last().map_or(Sequence(0), |payment: &Payment| payment.sequence);
        let page = tables.in_progress(after, 3).await.expect("what is in progress is read");
        if page.is_empty() {
            break;
        }
        in_progress.extend(page);
    }
    Everything { cursor, records, lines, payments, expired, in_progress }
}

fn sort(records: &mut Records) {
    records.users.sort_unstable();
    records.wallets.sort_unstable_by_key(|(key, _)| *key);
    records.payments.sort_unstable_by_key(|payment| payment.sequence);
    records.requests.sort_unstable();
    records.claims.sort_unstable();
    records.methods.sort_unstable();
    records.system.sort_unstable();
    records.inbox.sort_unstable();
    records.delivered.sort_unstable();
}

/// What tables are to hold of a stream, by the ledger's own state and one entry at a time.
fn expected(stream: &Stream) -> Everything {
    let records = stream.records();
    let mut lines = BTreeMap::new();
    let mut payments = BTreeMap::new();
    for entry in stream.committed() {
        let one = Projection::of([entry]);
        lines.extend(one.lines.into_iter().map(|line| (line.id, line)));
        payments.extend(one.created.into_iter().map(|row| (row.payment.sequence, row)));
    }
    for payment in &records.payments {
        let row = payments.get_mut(&payment.sequence).expect("a payment has an entry that created it");
        let shard = payment.payee_shard.as_ref();
        let delivered = records.delivered.iter().find(|(to, _)| Some(to) == shard);
        row.delivered = delivered.map_or(Sequence(0), |(_, sequence)| *sequence);
        row.payment = payment.clone();
    }
    let asked = |payment: &&Payment| payment.card.as_deref().is_some_and(|charge| !charge.operations.is_empty());
    let (in_progress, others): (Vec<_>, Vec<_>) = records.payments.iter().partition(asked);
    let held = others.into_iter().filter(|payment| matches!(payment.phase, Phase::Authorized | Phase::ActionRequired));
    let expired = held.filter(|payment| payment.expires_at.is_some()).map(|payment| payment.sequence).collect();
    let in_progress = in_progress.into_iter().cloned().collect();
    Everything { cursor: Sequence(stream.committed().len() as u64), records, lines, payments, expired, in_progress }
}

pub(super) async fn empty_tables_have_nothing_in_them<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    let nothing = everything(tables, &[]).await;
    assert_eq!(
        nothing,
        Everything {
            cursor: Sequence(0),
            records: Records::default(),
            lines: BTreeMap::new(),
            payments: BTreeMap::new(),
            expired: Vec::new(),
            in_progress: Vec::new(),
        }
    );
    assert_eq!(tables.records(&Missing::default()).await.expect("nothing is read"), Records::default());
    assert_eq!(tables.user(user(1)).await.expect("nobody is read"), None);
    assert_eq!(tables.wallets(user(1)).await.expect("nothing is read"), []);
    assert_eq!(tables.methods(user(1)).await.expect("nothing is read"), []);
    assert_eq!(tables.payments(Sequence(1), 10).await.expect("nothing is read"), []);
    assert_eq!(tables.purge_requests(Timestamp(u64::MAX / 2), 10).await.expect("nothing is purged"), 0);
}

pub(super) async fn every_kind_of_record_comes_back<E: Engine>(engine: &E) {
    for seed in [20, 21] {
        let (_place, store) = empty(engine).await;
        let stream = Stream::with(seed, if seed == 20 { 5_000 } else { 600 });
        if seed == 20 {
            check_variety(&stream);
        }
        for chunk in stream.committed().chunks(200) {
            store.tables.project(&Projection::of(chunk)).await.expect("entries are projected");
        }
        let found = everything(store.tables.as_ref(), stream.committed()).await;
        let expected = expected(&stream);
        assert_eq!(found.records, expected.records, "seed {seed}: the tables are the ledger's state");
        assert_eq!(found, expected, "seed {seed}");
        for number in 1..=stream::USERS {
            let owner = user(number);
            let mine: Vec<(Currency, Wallet)> = expected
                .records
                .wallets
                .iter()
                .filter(|((of, _), _)| *of == owner)
                .map(|((_, currency), wallet)| (*currency, *wallet))
                .collect();
            assert_eq!(store.tables.wallets(owner).await.expect("accounts are read"), mine, "seed {seed}: by currency number");
            let methods = expected.records.methods.iter().filter(|(of, _)| *of == owner).map(|(_, method)| method.clone());
            let methods: Vec<PaymentMethod> = methods.collect();
            assert_eq!(store.tables.methods(owner).await.expect("methods are read"), methods, "seed {seed}: oldest first");
            let country = expected.records.users.iter().find(|(of, _)| *of == owner).map(|(_, country)| *country);
            assert!(store.tables.user(owner).await.expect("a user is read") == country, "seed {seed}: the country of {owner:?}");
        }
    }
}

/// The stream has every kind of entry, or the checks check less than they say.
fn check_variety(stream: &Stream) {
    let seen: std::collections::BTreeSet<String> = stream
        .committed()
        .iter()
        .map(|(_, entry)| match &entry.body {
            paymesh_ledger::Body::Received { effect, .. } => {
                format!("{effect:?}").split('(').next().unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
            }
            _ => entry.kind().to_owned(),
        })
        .collect();
    let all = [
        "user_enrolled",
        "user_claimed",
        "account_opened",
        "account_closed",
        "payment_method_added",
        "payment_method_removed",
        "deposited",
        "withdrawn",
        "withdrawal_declined",
        "payment_created",
        "payment_captured",
        "payment_voided",
        "payment_expired",
        "refund_completed",
        "refund_requested",
        "payment_confirmed",
        "gateway_left",
        "payment_challenged",
        "payment_authorized",
        "payment_declined",
        "exemption_refused",
        "mandate_cancelled",
        "capture_asked",
        "capture_refused",
        "void_asked",
        "expiry_asked",
        "refund_asked",
        "refund_refused",
        "fraud_reported",
        "delivered",
        "Credited",
        "Bounced",
        "RefundPaid",
        "RefundRefused",
        "PaymentReturned",
        "RefundReceived",
        "RefundFailed",
    ];
    for kind in all {
        assert!(seen.contains(kind), "the stream has no {kind}, it has {seen:?}");
    }
    let phases: std::collections::BTreeSet<_> = stream.records().payments.iter().map(|payment| payment.phase).collect();
    assert_eq!(phases.len(), 8, "payments stand in every phase: {phases:?}");
    let by_card = |phase| stream.records().payments.iter().any(|payment| payment.card.is_some() && payment.phase == phase);
    assert!([Phase::Captured, Phase::Returned, Phase::Voided, Phase::Expired, Phase::Declined].into_iter().all(by_card));
    assert!(stream.records().wallets.iter().any(|(_, wallet)| wallet.closed));
    let methods = stream.records().methods;
    assert!(methods.iter().any(|(owner, _)| methods.iter().filter(|(of, _)| of == owner).count() > 1), "somebody has several: {methods:?}");
    assert!(stream.records().wallets.iter().any(|(_, wallet)| wallet.exempted.payments > 0 && wallet.exempted.minor > 0));
    assert!(stream.committed().iter().any(|(_, entry)| entry.authenticated_payer().is_some()), "some are authenticated");
    let authentication =
        |wanted| stream.records().payments.iter().any(|payment| payment.card.as_ref().is_some_and(|card| card.authentication == wanted));
    let exempt =
        [Exemption::LowValue, Exemption::Recurring, Exemption::TrustedPayee, Exemption::TransactionRisk].map(Authentication::Exempt);
    for wanted in [Authentication::NotRequired, Authentication::Required].into_iter().chain(exempt) {
        assert!(authentication(wanted), "no payment is {wanted:?}");
    }
    let standings: std::collections::BTreeSet<_> = stream.records().payments.iter().filter_map(Payment::mandate).collect();
    assert!(standings.len() >= 8, "mandates of both kinds, in all states but one or two: {standings:?}");
    let monitored = stream.records().monitored;
    assert!(monitored.since() < monitored.oldest_kept(), "some days are not kept any more: {monitored:?}");
    assert!(monitored.days().any(|(_, totals)| totals.fraud_minor > 0) && monitored.days().any(|(_, totals)| totals.minor > 0));
    assert!(stream.records().payments.iter().any(|payment| payment.refunded > 0 && payment.refunded < payment.captured));
    assert!(stream.committed().iter().any(|(_, entry)| entry.reference.contains('\0')));
}

pub(super) async fn projecting_at_once_is_projecting_one_by_one<E: Engine>(engine: &E) {
    for seed in 30..33 {
        let stream = Stream::with(seed, 300);
        let expected = expected(&stream);
        for chunks_max in [1, 17, 300] {
            let (_place, store) = empty(engine).await;
            let mut dice = Dice::new(seed + chunks_max);
            let mut from = 0;
            while from < 300 {
                let to = if chunks_max == 300 { 300 } else { (from + 1 + dice.below(chunks_max) as usize).min(300) };
                store.tables.project(&stream.projection(from, to)).await.expect("entries are projected");
                from = to;
            }
            let found = everything(store.tables.as_ref(), stream.committed()).await;
            assert_eq!(found, expected, "seed {seed}, up to {chunks_max} entries at once");
        }
    }
}

pub(super) async fn rows_and_cursor_are_written_together_or_not_at_all<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    let stream = Stream::with(40, 400);
    tables.project(&stream.projection(0, 300)).await.expect("entries are projected");
    let before = everything(tables, stream.committed()).await;
    let next = stream.projection(300, 400);
    let known = before.records.users[0];
    let kept = before.records.methods[0].clone();
    // What can be made only once is in each of them once too often, and everything else is as it should be.
    let twice = [
        Projection { users: vec![known], ..next.clone() },
        Projection { claims: before.records.claims[..1].to_vec(), ..next.clone() },
        Projection { opened: vec![before.records.wallets[0].0], ..next.clone() },
        Projection { methods: BTreeMap::from([((kept.0, kept.1.added), Some(kept.1.clone()))]), ..next.clone() },
        Projection { lines: before.lines.values().take(1).cloned().collect(), ..next.clone() },
        Projection { created: before.payments.values().take(1).cloned().collect(), ..next.clone() },
    ];
    for (which, wrong) in twice.iter().enumerate() {
        let failed = tables.project(wrong).await;
        assert!(matches!(failed, Err(Error::Engine { .. })), "projection {which} came to {failed:?}");
        assert_eq!(everything(tables, stream.committed()).await, before, "projection {which} left something behind");
    }
    tables.project(&next).await.expect("entries are projected");
    assert_eq!(everything(tables, stream.committed()).await, expected(&stream));
}

pub(super) async fn a_projection_that_does_not_follow_the_cursor_is_refused<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    let stream = Stream::with(41, 300);
    tables.project(&stream.projection(0, 200)).await.expect("entries are projected");
    let before = everything(tables, stream.committed()).await;
    for (from, to) in [(0, 200), (0, 300), (199, 300), (201, 300), (299, 300)] {
        match tables.project(&stream.projection(from, to)).await {
            Err(Error::NotNext { head: Sequence(200), offered }) => assert_eq!(offered, Sequence(from as u64 + 1)),
            other => panic!("projecting {from} to {to} onto 200 came to {other:?}"),
        }
        assert_eq!(everything(tables, stream.committed()).await, before, "{from} to {to}");
    }
    tables.project(&stream.projection(200, 300)).await.expect("entries are projected");
}

/// Rows of a snapshot, in the order of `everything`.
async fn rows_of(
    snapshot: &mut dyn Snapshot,
) -> (Records, BTreeMap<LineId, Line>, BTreeMap<Sequence, PaymentRow>, BTreeMap<Sequence, Timestamp>) {
    let mut records = snapshot.books().clone();
    records.newest_request_ms = None;
    let (mut lines, mut payments, mut recorded) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    loop {
        let rows = snapshot.next().await.expect("rows are read");
        if rows.is_empty() {
            break;
        }
        for row in rows {
            match row {
                Row::User(user, country) => records.users.push((user, country)),
                Row::Claim(user, zone) => records.claims.push((user, zone)),
                Row::Wallet(key, wallet) => records.wallets.push((key, wallet)),
                Row::Method(user, method) => records.methods.push((user, method)),
                Row::Line(line) => assert!(lines.insert(line.id, line).is_none()),
                Row::Payment(row) => {
                    records.payments.push(row.payment.clone());
                    assert!(payments.insert(row.payment.sequence, row).is_none());
                }
                Row::Request(sequence, id, at) => {
                    records.requests.push((id, sequence));
                    assert!(recorded.insert(sequence, at).is_none());
                }
            }
        }
    }
    sort(&mut records);
    (records, lines, payments, recorded)
}

pub(super) async fn a_snapshot_has_every_row_of_one_moment<E: Engine>(engine: &E) {
    // More rows of a kind than are read at once.
    const ENTRIES: usize = 12_000;
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    assert_eq!(tables.snapshot().await.expect("it is taken").next().await.expect("nothing is read"), []);
    let stream = Stream::with(42, ENTRIES);
    tables.project(&stream.projection(0, ENTRIES - 500)).await.expect("entries are projected");
    let mut snapshot = tables.snapshot().await.expect("it is taken");
    let mut begun = tables.snapshot().await.expect("another is taken");
    let first = begun.next().await.expect("rows are read");
    assert!(!first.is_empty());
    tables.project(&stream.projection(ENTRIES - 500, ENTRIES)).await.expect("entries are projected while snapshots are held");
    let so_far = Stream::with(42, ENTRIES - 500);
    let Everything { cursor, records, lines, mut payments, .. } = expected(&so_far);
    payments.values_mut().for_each(|row| row.delivered = Sequence(0));
    assert_eq!((snapshot.cursor(), begun.cursor()), (cursor, cursor));
    let (found, found_lines, found_payments, recorded) = rows_of(snapshot.as_mut()).await;
    assert_eq!(found, records);
    assert_eq!(found_lines, lines);
    assert_eq!(found_payments, payments);
    let recorded_at = so_far.committed().iter().filter(|(_, entry)| entry.request_id.is_some());
    assert_eq!(recorded, recorded_at.map(|(position, entry)| (position.sequence, entry.at)).collect());
    assert_eq!(snapshot.next().await.expect("nothing is read"), [], "the end stays the end");
    assert_eq!(tables.snapshot().await.expect("it is taken").cursor(), Sequence(ENTRIES as u64));
}

pub(super) async fn tables_are_the_same_when_they_are_opened_again<E: Engine>(engine: &E) {
    let (place, store) = empty(engine).await;
    let stream = Stream::with(43, 500);
    store.tables.project(&stream.projection(0, 500)).await.expect("entries are projected");
    drop(store);
    let store = open(engine, &place).await;
    assert_eq!(everything(store.tables.as_ref(), stream.committed()).await, expected(&stream));
}

/// The tables may lose their newest projections, but never half of one; the journal has them still.
pub(super) async fn after_a_crash_rows_and_cursor_still_belong_together<E: Engine>(engine: &E) {
    let mut dice = Dice::new(44);
    for seed in 44..47 {
        let (mut place, store) = empty(engine).await;
        drop(store);
        let stream = Stream::with(seed, 150);
        let mut crashes = 0;
        loop {
            let store = open(engine, &place).await;
            let tables = store.tables.as_ref();
            let mut at = usize::try_from(tables.cursor().await.expect("the cursor is read").0).expect("small");
            let so_far = Stream::with(seed, at);
            assert_eq!(
                everything(tables, stream.committed()).await,
                expected(&so_far),
                "seed {seed}, {at} entries after {crashes} crashes"
            );
            for _ in 0..1 + dice.below(8) {
                let to = (at + 1 + dice.below(20) as usize).min(150);
                if at < to {
                    tables.project(&stream.projection(at, to)).await.expect("entries are projected");
                    at = to;
                }
            }
            if at == 150 {
                break;
            }
            place = engine.crash(place).await;
            crashes += 1;
            assert!(crashes < 1_000, "the tables never get anywhere");
        }
    }
}
