//! Compares what the mesh says of every user with what the trace says: at the users' homes, and in the copies of other regions.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use paymesh_contract::{
    common::v1::{ReadLevel, ReadOptions},
    wallet::v1::{GetBalanceRequest, GetStatementRequest, wallet_service_client::WalletServiceClient},
};
use tonic::transport::Channel;
use xtask::{
    bank_trace::{CURRENCY, Trace},
    mesh::{Mesh, refused, timed},
};

/// Lines of a statement that are asked for at once: few, so that most statements need several pages.
const PAGE_LINES: u32 = 25;
/// Differences that are printed; all are counted.
const DIFFERENCES_SHOWN_MAX: usize = 20;

/// A user's whole statement and balance, as one region says it.
struct Said {
    /// Amounts and running balances, oldest line first.
    lines: Vec<(i64, i64)>,
    pages: usize,
    balance: i64,
    /// The region that read it, if it was one for all.
    read_at: Option<String>,
}

/// What was compared, and how much of it is different.
#[derive(Default)]
struct Compared {
    lines: usize,
    pages: usize,
    different: usize,
}

/// Compares every statement and balance at the users' homes. Every region in turn is asked, whoever's home it is.
pub(super) async fn homes(mesh: &Mesh, trace: &Trace) -> Result<()> {
    let begun = Instant::now();
    let mut compared = Compared::default();
    let mut regions = mesh.channels().values().cycle();
    for user in users(trace) {
        let channel = regions.next().context("the mesh has no regions")?;
        compared.add(trace, user, &said(channel, user, None).await.with_context(|| format!("user {user}"))?);
    }
    compared.agree()?;
    println!(
        "compared {} statement lines of {} accounts and {} other ends of transfers, {} pages, in {:.1?}: all agree",
        compared.lines,
        trace.accounts.len(),
        trace.counters().len(),
        compared.pages,
        begun.elapsed()
    );
    Ok(())
}

/// Compares the same in every region that keeps a copy of the user's shard, with nothing missing that was committed before.
pub(super) async fn copies(mesh: &Mesh, trace: &Trace) -> Result<()> {
    let begun = Instant::now();
    let mut compared = Compared::default();
    let mut of_copies: BTreeMap<&str, usize> = BTreeMap::new();
    let local = ReadOptions { level: ReadLevel::Local.into(), max_staleness_ms: Some(0), at_least: Vec::new() };
    for user in users(trace) {
        let any = mesh.channels().values().next().context("the mesh has no regions")?;
        let home = said(any, user, None).await.with_context(|| format!("user {user}"))?.read_at;
        for (region, channel) in mesh.channels().iter().filter(|(region, _)| Some(*region) != home.as_ref()) {
            let said = said(channel, user, Some(&local)).await.with_context(|| format!("user {user} in {region}"))?;
            // A region without a copy asks the home.
            if said.read_at.as_ref() == Some(region) {
                compared.add(trace, user, &said);
                *of_copies.entry(region).or_default() += said.lines.len();
            }
        }
    }
    compared.agree()?;
    ensure!(!of_copies.is_empty(), "no region has answered from a copy");
    println!("compared {} statement lines in copies in {:.1?}: all agree {of_copies:?}", compared.lines, begun.elapsed());
    Ok(())
}

fn users(trace: &Trace) -> impl Iterator<Item = u64> {
    trace.accounts.keys().chain(trace.counters().keys()).copied()
}

impl Compared {
    fn add(&mut self, trace: &Trace, user: u64, said: &Said) {
        self.lines += said.lines.len();
        self.pages += said.pages;
        let Said { lines, balance, .. } = said;
        if let Some(counter) = trace.counters().get(&user) {
            let booked = counter.transfers + usize::from(counter.pays > 0);
            if *balance != counter.gets || lines.len() != booked || lines.last().map(|line| line.1) != Some(*balance) {
                let found =
                    format!("{} lines and a balance of {balance} minor units instead of {booked} and {}", lines.len(), counter.gets);
                self.differ(&format!("user {user}, the other end of {} transfers: {found}", counter.transfers));
            }
            return;
        }
        for difference in trace.compare(user, lines) {
            self.differ(&difference.to_string());
        }
        let last = trace.accounts.get(&user).and_then(|account| account.expected.last()).map_or(0, |line| line.balance);
        if *balance != last {
            self.differ(&format!("account {user}: the balance is {balance} minor units, the trace ends at {last}"));
        }
    }

    fn differ(&mut self, difference: &str) {
        self.different += 1;
        if self.different <= DIFFERENCES_SHOWN_MAX {
            println!("{difference}");
        }
    }

    fn agree(&self) -> Result<()> {
        ensure!(self.different == 0, "{} differences between the mesh and the trace", self.different);
        Ok(())
    }
}

/// Reads a user's statement and balance, all of it available.
async fn said(channel: &Channel, user_id: u64, read: Option<&ReadOptions>) -> Result<Said> {
    let mut client = WalletServiceClient::new(channel.clone());
    let (mut lines, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    let mut read_at: Vec<String> = Vec::new();
    loop {
        let request =
            GetStatementRequest { user_id, currency_code: CURRENCY.into(), page_size: PAGE_LINES, page_token, read: read.cloned() };
        let page = client.get_statement(timed(request)).await.map_err(refused)?.into_inner();
        ensure!(page.lines.len() <= PAGE_LINES as usize, "a page has {} lines, {PAGE_LINES} were asked for", page.lines.len());
        ensure!(!page.lines.is_empty() || page.next_page_token.is_empty(), "a page without lines is not the last");
        lines.extend(page.lines.iter().map(|line| (line.amount_minor_units, line.balance_minor_units)));
        read_at.extend(page.source.map(|source| source.region));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    lines.reverse();
    let answer = client.get_balance(timed(GetBalanceRequest { user_id, read: read.cloned() })).await.map_err(refused)?.into_inner();
    let [balance] = &answer.balances[..] else { bail!("{} balances, one account was opened", answer.balances.len()) };
    ensure!(balance.currency_code == CURRENCY, "the account is in {}", balance.currency_code);
    ensure!(balance.available_minor_units == balance.booked_minor_units, "money is held, and nothing held it");
    read_at.extend(answer.source.map(|source| source.region));
    let everywhere = read_at.len() == pages + 1 && read_at.windows(2).all(|two| two[0] == two[1]);
    Ok(Said { lines, pages, balance: balance.booked_minor_units, read_at: read_at.pop().filter(|_| everywhere) })
}
