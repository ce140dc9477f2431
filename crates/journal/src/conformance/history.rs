//! The checks of the tables: statements, payments, holds and request ids.

use paymesh_ledger::{Command, CreatePayment, LineId, Missing, Phase, Request};
use paymesh_types::{Money, RequestId, Sequence, ShardRef, Timestamp};

use super::{
    Engine, empty,
    stream::{Stream, currency, user},
};
use crate::{LINES_WALKED_MAX, Line, LineKind, Projection, Tables};

pub(super) async fn statements_add_up_and_are_walked_backwards<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let stream = Stream::with(60, 2_500);
    store.tables.project(&stream.projection(0, 2_500)).await.expect("entries are projected");
    let mut kinds = Vec::new();
    for ((owner, currency), wallet) in stream.records().wallets {
        let lines = statement(store.tables.as_ref(), wallet.last_line).await;
        let mut balance = wallet.balance;
        for line in &lines {
            assert_eq!((line.user, line.currency, line.balance), (owner, currency, balance), "{line:?}");
            assert!(line.previous < line.id, "{line:?} stands after what follows it");
            balance -= line.amount;
            kinds.push(line.kind as u8);
            let (_, entry) = &stream.committed()[usize::try_from(line.id.sequence().0).expect("small") - 1];
            assert_eq!(line.at, entry.at);
        }
        assert_eq!(balance, 0, "the lines of {owner:?} in {currency} make up its balance");
        let postings = stream.committed().iter().flat_map(|(position, entry)| {
            entry.lines(position.sequence).map(|(_, user, posting)| (user, posting.currency)).collect::<Vec<_>>()
        });
        assert_eq!(lines.len(), postings.filter(|of| *of == (owner, currency)).count(), "none is missing");
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (1..=7).collect::<Vec<u8>>(), "lines of every kind");
}

async fn statement(tables: &dyn Tables, newest: LineId) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut next = newest;
    while next != LineId(0) {
        let page = tables.lines(next, 7).await.expect("lines are read");
        assert!(!page.is_empty() && page.len() <= 7 && page[0].id == next, "a page begins where it was asked to");
        next = page[page.len() - 1].previous;
        lines.extend(page);
    }
    lines
}

pub(super) async fn walks_end_at_their_limit<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    let (stream, count) = busy_account();
    tables.project(&stream.projection(0, stream.committed().len())).await.expect("entries are projected");
    let wallet = stream.records().wallets.first().expect("the payer's").1;
    for limit in [0, 1, 2, 999, LINES_WALKED_MAX, LINES_WALKED_MAX + 1, u32::MAX] {
        let lines = tables.lines(wallet.last_line, limit).await.expect("lines are read");
        let payments = tables.payments(wallet.last_payment, limit).await.expect("payments are read");
        let most = limit.min(LINES_WALKED_MAX) as usize;
        assert_eq!((lines.len(), payments.len()), (most, most), "at most {limit}");
        assert!(lines.windows(2).all(|pair| pair[0].previous == pair[1].id), "newest first, without gaps");
        assert!(payments.windows(2).all(|pair| pair[0].previous == pair[1].payment.sequence), "newest first, without gaps");
        assert!(lines.first().is_none_or(|line| line.id == wallet.last_line));
        assert!(payments.first().is_none_or(|row| row.payment.sequence == wallet.last_payment));
    }
    assert!(count > LINES_WALKED_MAX as usize);
}

/// An account with more history than one walk gives.
fn busy_account() -> (Stream, usize) {
    let mut stream = Stream::new(61);
    let mut submit = |command: Command| stream.submit(Request { id: None, command }).expect("it is accepted");
    let money = |minor| Money::new(minor, currency(0)).expect("within the bounds");
    for number in [1, 2] {
        submit(Command::EnrollUser {
            user: user(number),
            country: "DE".parse().expect("a country"),
            currencies: [currency(0)].into_iter().collect(),
        });
    }
    submit(Command::Deposit { user: user(1), money: money(1_000_000), reference: String::new() });
    let count = LINES_WALKED_MAX as usize + 50;
    for _ in 0..count {
        submit(pay(1, 2, None, 5, 0));
    }
    (stream, count)
}

fn pay(payer: u64, payee: u64, payee_shard: Option<ShardRef>, minor: i64, hold_s: u32) -> Command {
    let money = Money::new(minor, currency(0)).expect("within the bounds");
    Command::CreatePayment(CreatePayment {
        payer: user(payer),
        payee: user(payee),
        payee_shard,
        money,
        hold_s,
        reference: String::new(),
        card: None,
    })
}

pub(super) async fn payments_are_walked_by_account_and_say_whether_they_arrived<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let stream = Stream::with(62, 2_500);
    store.tables.project(&stream.projection(0, 2_500)).await.expect("entries are projected");
    let records = stream.records();
    let mut arrived = [0, 0];
    for ((owner, currency), wallet) in &records.wallets {
        let rows = store.tables.payments(wallet.last_payment, LINES_WALKED_MAX).await.expect("payments are read");
        let mine = records.payments.iter().rev().filter(|payment| (payment.payer, payment.currency) == (*owner, *currency));
        assert_eq!(rows.iter().map(|row| row.payment.clone()).collect::<Vec<_>>(), mine.cloned().collect::<Vec<_>>());
        for row in rows {
            let delivered = records.delivered.iter().find(|(to, _)| Some(to) == row.payment.payee_shard.as_ref());
            assert_eq!(row.delivered, delivered.map_or(Sequence(0), |(_, sequence)| *sequence));
            assert_eq!(store.tables.payment(row.payment.sequence).await.expect("a payment is read").as_ref(), Some(&row));
            if row.payment.payee_shard.is_some() && row.payment.phase == Phase::Captured {
                arrived[usize::from(row.payment.sent <= row.delivered)] += 1;
            }
        }
    }
    assert!(arrived[1] > 0, "some have arrived: {arrived:?}");
}

pub(super) async fn holds_are_due_in_the_order_they_run_out<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    let stream = Stream::with(63, 3_000);
    let mut projected = 0;
    for at in [1_000, 3_000] {
        tables.project(&stream.projection(projected, at)).await.expect("entries are projected");
        projected = at;
        let records = Stream::with(63, at).records();
        // What an acquirer is being asked about is on its way to an end already.
        let idle = |payment: &&paymesh_ledger::Payment| payment.card.as_deref().is_none_or(|charge| charge.operations.is_empty());
        let held =
            records.payments.iter().filter(|payment| matches!(payment.phase, Phase::Authorized | Phase::ActionRequired)).filter(idle);
        let mut held: Vec<(Timestamp, Sequence)> =
            held.map(|payment| (payment.expires_at.expect("a hold ends"), payment.sequence)).collect();
        held.sort_unstable();
        assert!(held.len() > 3);
        for (end, _) in &held {
            for now in [Timestamp(end.0 - 1), *end] {
                let due: Vec<Sequence> = held.iter().filter(|(end, _)| *end <= now).map(|(_, sequence)| *sequence).collect();
                assert_eq!(tables.expired(now, 1_000).await.expect("holds are read"), due);
                let few = due.iter().take(2).copied().collect::<Vec<_>>();
                assert_eq!(tables.expired(now, 2).await.expect("holds are read"), few, "the longest due come first");
            }
        }
    }
}

pub(super) async fn request_ids_are_forgotten_by_age_and_oldest_first<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    let stream = Stream::with(64, 900);
    tables.project(&stream.projection(0, 900)).await.expect("entries are projected");
    let mut kept: Vec<(RequestId, Sequence, Timestamp)> = Vec::new();
    for (position, entry) in stream.committed() {
        kept.extend(entry.request_id.map(|id| (id, position.sequence, entry.at)));
    }
    let all: Vec<RequestId> = kept.iter().map(|(id, ..)| *id).collect();
    let known = async |kept: &[(RequestId, Sequence, Timestamp)]| {
        let found = tables.records(&Missing { requests: all.clone(), ..Missing::default() }).await.expect("records are read");
        let mut found = found.requests;
        found.sort_unstable_by_key(|(_, sequence)| *sequence);
        assert_eq!(found, kept.iter().map(|(id, sequence, _)| (*id, *sequence)).collect::<Vec<_>>());
    };
    known(&kept).await;
    assert_eq!(tables.purge_requests(kept[0].2, 1_000).await.expect("ids are purged"), 0, "none is older than the oldest");
    let before = kept[300].2;
    let old = kept.iter().filter(|(_, _, at)| *at < before).count();
    assert_eq!(tables.purge_requests(before, 100).await.expect("ids are purged"), 100, "no more at once than asked for");
    known(&kept[100..]).await;
    assert_eq!(tables.purge_requests(before, 1_000).await.expect("ids are purged"), old as u64 - 100);
    known(&kept[old..]).await;
    assert_eq!(tables.purge_requests(before, 1_000).await.expect("ids are purged"), 0);
    assert_eq!(tables.cursor().await.expect("the cursor is read"), Sequence(900), "nothing else changes");
    assert_eq!(tables.purge_requests(Timestamp(u64::MAX / 2), 1_000).await.expect("ids are purged"), (kept.len() - old) as u64);
    known(&[]).await;
}

/// Also where the tables are made again from the journal, in which both uses stand.
pub(super) async fn a_request_id_that_was_forgotten_can_be_used_again<E: Engine>(engine: &E) {
    let mut stream = Stream::new(65);
    let id = RequestId::from_slice(&[7; 16]).expect("sixteen bytes");
    let claim = |number: u64| Command::ClaimUser { user: user(number), zone: "eu".parse().expect("a zone's name") };
    stream.submit(Request { id: Some(id), command: claim(1) }).expect("it is accepted");
    stream.submit(Request { id: None, command: claim(2) }).expect("it is accepted");
    // A leader that forgot the id, as its tables did, takes it for a new one.
    let (mut position, entry) = stream.committed()[0].clone();
    position.sequence = Sequence(3);
    let body = paymesh_ledger::Body::UserClaimed { user: user(3), zone: "eu".parse().expect("a zone's name") };
    let again = (position, std::sync::Arc::new(paymesh_ledger::Entry { body, ..entry.as_ref().clone() }));
    let entries: Vec<_> = stream.committed().iter().cloned().chain([again]).collect();

    for splits in [vec![1, 2, 3], vec![2, 3], vec![3]] {
        for purged in [false, true] {
            let (_place, store) = empty(engine).await;
            let mut from = 0;
            for to in &splits {
                if purged && from > 0 {
                    store.tables.purge_requests(Timestamp(u64::MAX / 2), 10).await.expect("ids are purged");
                }
                store.tables.project(&Projection::of(&entries[from..*to])).await.expect("the second use is projected");
                from = *to;
            }
            let found = store.tables.records(&Missing { requests: vec![id], ..Missing::default() }).await.expect("records are read");
            assert_eq!(found.requests, [(id, Sequence(3))], "the newest use counts");
        }
    }
}

/// Callers make up page tokens and ids.
pub(super) async fn numbers_that_nobody_gave_out_name_nothing<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let tables = store.tables.as_ref();
    let stream = Stream::with(66, 50);
    tables.project(&stream.projection(0, 50)).await.expect("entries are projected");
    for number in [0, 51, 1_000, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        assert_eq!(tables.lines(LineId(number.max(102)), 10).await.expect("nothing is read"), [], "line {number}");
        assert_eq!(tables.lines(LineId(0), 10).await.expect("nothing is read"), []);
        assert_eq!(tables.payments(Sequence(number), 10).await.expect("nothing is read"), [], "payment {number}");
        assert_eq!(tables.payment(Sequence(number)).await.expect("nothing is read"), None, "payment {number}");
        let missing = Missing { payments: vec![Sequence(number)], ..Missing::default() };
        assert_eq!(tables.records(&missing).await.expect("nothing is read").payments, [], "payment {number}");
    }
    tables.expired(Timestamp(u64::MAX), 10).await.expect("holds are read, however far the clock is");
    tables.purge_requests(Timestamp(u64::MAX), 10).await.expect("ids are purged, however far the clock is");
    // Every kind that a line can be has its number.
    assert!((1..=7).all(|number| LineKind::from_number(number).is_some()));
}
