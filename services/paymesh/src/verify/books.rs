//! Do the books add up? Pure: reports in, findings out.
//!
//! The first pass of reports says what each shard had received, and up to where it had read the others' journals (its inbox
//! cursors). The second pass says what each shard had sent by those very cursors. The two must be the same to the cent,
//! also while payments go on; that is the cut at which pairs are compared.

use std::collections::BTreeMap;

use paymesh_contract::mesh::v1::{InboxCursor, ShardReport};
use paymesh_types::ShardRef;

use crate::{clearing::Ways, output::money, place, status::InTransit};

/// Reports of every shard that could be asked.
pub(crate) type Reports = BTreeMap<ShardRef, ShardReport>;

/// What the second pass asks of `sender`: what it had sent by where the others had read it.
pub(crate) fn cursors_on(sender: &ShardRef, first: &Reports) -> anyhow::Result<Vec<InboxCursor>> {
    let mut cursors = Vec::new();
    for (receiver, report) in first {
        for cursor in &report.inbox {
            if place::shard(cursor.source.as_ref())? == *sender {
                cursors.push(InboxCursor { source: Some(receiver.into()), sequence: cursor.sequence, ..InboxCursor::default() });
            }
        }
    }
    Ok(cursors)
}

/// What the comparison found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What does not add up; empty when all does.
    pub(crate) problems: Vec<String>,
    /// Money that had left one shard and not reached the other.
    pub(crate) in_transit: Vec<InTransit>,
}

/// Checks every shard's own books, and every pair of shards.
pub(crate) fn compare(first: &Reports, second: &Reports) -> anyhow::Result<Findings> {
    let mut problems = Vec::new();
    for (shard, report) in second {
        own_books(shard, report, &mut problems);
    }
    for (shard, report) in first {
        let mut earlier = Vec::new();
        own_books(shard, report, &mut earlier);
        // A fault that both passes saw is told once.
        problems
            .extend(earlier.into_iter().filter(|problem| !second.contains_key(shard) || !problems.contains(problem)).collect::<Vec<_>>());
        if let Some(later) = second.get(shard) {
            if sequence(later) < sequence(report) {
                problems.push(format!("{shard}: its journal went back from {} to {} between two reads", sequence(report), sequence(later)));
            } else if sequence(later) == sequence(report) && later.chain_hash != report.chain_hash {
                problems.push(format!("{shard}: two reads of its journal up to {} gave two chain hashes", sequence(report)));
            }
        }
    }

    // At the cut: received by the first pass, sent by the cursors of the first pass.
    let mut at_cut = Ways::default();
    // Now: sent by the second pass, received by the first. The difference is in transit.
    let mut now = Ways::default();
    for (shard, report) in first {
        at_cut.add_received(shard, &report.clearing)?;
        now.add_received(shard, &report.clearing)?;
    }
    for (shard, report) in second {
        at_cut.add_sent(shard, &report.sent_by)?;
        now.add_sent(shard, &report.clearing)?;
    }
    at_cut.fill(|shard| first.contains_key(shard) && second.contains_key(shard));
    now.fill(|shard| first.contains_key(shard) && second.contains_key(shard));
    for (way, totals) in at_cut.iter() {
        if let Some(missing) = totals.in_transit().filter(|missing| *missing != 0) {
            let show = |minor: Option<i64>| money(minor.unwrap_or(0).into(), &way.currency);
            problems.push(format!(
                "{} -> {}: {} says it had sent {}, {} says it received {}: they differ by {}",
                way.from,
                way.to,
                way.from,
                show(totals.sent),
                way.to,
                show(totals.received),
                money(missing, &way.currency)
            ));
        }
    }
    let mut in_transit = Vec::new();
    for (way, totals) in now.iter() {
        let minor = totals.in_transit();
        if let Some(minor) = minor.filter(|minor| *minor < 0) {
            problems.push(format!("{} -> {}: {} more arrived than left", way.from, way.to, money(-minor, &way.currency)));
        }
        in_transit.push(InTransit {
            from: way.from.to_string(),
            to: way.to.to_string(),
            currency: way.currency.clone(),
            sent_minor_units: totals.sent,
            unacknowledged_ms: None,
            in_transit_minor_units: minor,
        });
    }
    Ok(Findings { problems, in_transit })
}

/// What one shard's report says of itself, checked again where it can be.
fn own_books(shard: &ShardRef, report: &ShardReport, problems: &mut Vec<String>) {
    problems.extend(report.problems.iter().map(|problem| format!("{shard}: {problem}")));
    for sum in &report.sums {
        let code = &sum.currency_code;
        let parts = [sum.wallets_minor_units, sum.external_minor_units, sum.clearing_minor_units, sum.cards_minor_units];
        let total: i128 = parts.into_iter().map(i128::from).sum();
        if total != 0 || sum.total_minor_units != 0 {
            problems.push(format!("{shard}: its accounts sum to {} instead of zero", money(total, code)));
        }
        let clearing: i128 = report
            .clearing
            .iter()
            .filter(|line| line.currency_code == *code)
            .map(|line| i128::from(line.sent_minor_units) - i128::from(line.received_minor_units))
            .sum();
        if clearing != i128::from(sum.clearing_minor_units) {
            let claimed = money(sum.clearing_minor_units.into(), code);
            problems.push(format!("{shard}: its clearing accounts hold {} one by one and {claimed} together", money(clearing, code)));
        }
        if sum.held_minor_units < 0 || sum.held_minor_units > sum.wallets_minor_units {
            problems.push(format!("{shard}: holds of {} exceed its wallets", money(sum.held_minor_units.into(), code)));
        }
    }
    for line in report.clearing.iter().filter(|line| line.sent_minor_units != 0 || line.received_minor_units != 0) {
        if !report.sums.iter().any(|sum| sum.currency_code == line.currency_code) {
            problems.push(format!("{shard}: it has a clearing account in {} and no sum of that currency", line.currency_code));
        }
    }
}

fn sequence(report: &ShardReport) -> u64 {
    report.position.as_ref().map_or(0, |position| position.sequence)
}

#[cfg(test)]
mod tests {
    use paymesh_contract::{common::v1::Position, mesh::v1::CurrencySum};

    use super::*;
    use crate::clearing::tests::{clearing, shard};

    /// A sound report: one currency, the outside world's account balancing the rest.
    fn report(name: &str, at: u64, wallets: i64, lines: &[(&str, i64, i64)], sent_by: &[(&str, i64)]) -> (ShardRef, ShardReport) {
        let clearing_sum: i64 = lines.iter().map(|(_, sent, received)| sent - received).sum();
        let report = ShardReport {
            position: Some(Position { sequence: at, ..Position::default() }),
            sums: vec![CurrencySum {
                currency_code: "EUR".to_owned(),
                wallets_minor_units: wallets,
                external_minor_units: -wallets - clearing_sum,
                clearing_minor_units: clearing_sum,
                ..CurrencySum::default()
            }],
            clearing: lines.iter().map(|(peer, sent, received)| clearing(peer, *sent, *received)).collect(),
            inbox: lines
                .iter()
                .map(|(peer, ..)| InboxCursor { source: Some((&shard(peer)).into()), sequence: 5, ..InboxCursor::default() })
                .collect(),
            sent_by: sent_by.iter().map(|(peer, sent)| clearing(peer, *sent, 0)).collect(),
            ..ShardReport::default()
        };
        (shard(name), report)
    }

    /// 100 of 250 had been sent when eu/1 had read up to it; 250 have been sent since.
    fn sound() -> (Reports, Reports) {
        let first = [report("eu/0", 9, 500, &[("eu/1", 200, 0)], &[]), report("eu/1", 7, 100, &[("eu/0", 0, 100)], &[])];
        let second = [report("eu/0", 12, 500, &[("eu/1", 250, 0)], &[("eu/1", 100)]), report("eu/1", 8, 100, &[("eu/0", 0, 200)], &[])];
        (first.into_iter().collect(), second.into_iter().collect())
    }

    #[test]
    fn books_that_mirror_at_the_cut_add_up_while_payments_go_on() {
        let (first, second) = sound();
        let findings = compare(&first, &second).expect("valid reports");
        assert_eq!(findings.problems, Vec::<String>::new());
        assert_eq!(findings.in_transit.len(), 1);
        assert_eq!(findings.in_transit[0].in_transit_minor_units, Some(150));
        let cursors = cursors_on(&shard("eu/0"), &first).expect("valid reports");
        assert_eq!(cursors, [InboxCursor { source: Some((&shard("eu/1")).into()), sequence: 5, ..InboxCursor::default() }]);
    }

    #[test]
    fn each_fault_is_found_and_named() {
        type Fault = fn(&mut Reports, &mut Reports);
        let table: [(&str, Fault); 7] = [
            ("differ by 0.01 EUR", |_, second| second.get_mut(&shard("eu/0")).expect("eu/0").sent_by[0].sent_minor_units += 1),
            ("more arrived than left", |_, second| second.get_mut(&shard("eu/0")).expect("eu/0").clearing[0].sent_minor_units = 50),
            ("sum to 0.01 EUR", |first, _| first.get_mut(&shard("eu/1")).expect("eu/1").sums[0].wallets_minor_units += 1),
            ("one by one", |_, second| second.get_mut(&shard("eu/0")).expect("eu/0").clearing[0].sent_minor_units += 1),
            ("the chain breaks at 4", |_, second| {
                second.get_mut(&shard("eu/1")).expect("eu/1").problems.push("the chain breaks at 4".to_owned());
            }),
            ("went back from 9 to 3", |_, second| {
                second.get_mut(&shard("eu/0")).expect("eu/0").position = Some(Position { sequence: 3, ..Position::default() });
            }),
            ("holds of", |_, second| second.get_mut(&shard("eu/1")).expect("eu/1").sums[0].held_minor_units = 101),
        ];
        for (name, fault) in table {
            let (mut first, mut second) = sound();
            fault(&mut first, &mut second);
            let problems = compare(&first, &second).expect("valid reports").problems;
            assert!(problems.iter().any(|problem| problem.contains(name)), "{name}: {problems:?}");
        }
    }

    #[test]
    fn money_that_arrived_without_ever_being_sent_is_found() {
        let first = [report("eu/0", 9, 500, &[], &[]), report("eu/1", 7, 100, &[("eu/0", 0, 100)], &[])].into_iter().collect();
        let second = [report("eu/0", 9, 500, &[], &[]), report("eu/1", 7, 100, &[("eu/0", 0, 100)], &[])].into_iter().collect();
        let problems = compare(&first, &second).expect("valid reports").problems;
        assert!(problems.iter().any(|problem| problem.contains("they differ by -1.00 EUR")), "{problems:?}");
    }
}
