//! `paymesh acquirer`: the simulator that stands for what is outside.

use std::{io::ErrorKind, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use paymesh_acquirer_simulator::{CHALLENGE_ANSWER, Error, Settings, TEST_CARDS, serve};
use paymesh_topology::{ConnectorKind, Gateways};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};

use crate::{
    args::AcquirerArgs,
    exit::{Exit, unusable},
    note,
};

/// Bytes of a page of charges at most, and how long it may take.
const PAGE_BYTES_MAX: u64 = 4 << 20;
const PAGE_TIME_MAX: Duration = Duration::from_secs(10);

/// The end of its help: the numbers that it knows.
pub(crate) fn after_help() -> String {
    let mut help = String::from(
        "\
Examples:
  paymesh acquirer --data ./acquirer-a
  paymesh acquirer --listen 127.0.0.1:7302 --latency-ms 50 --fail-rate 2.5 --seed 7

Numbers of cards that make it do something; all others are approved:\n",
    );
    for card in TEST_CARDS {
        help.push_str(&format!("  {}  {}\n", card.number, card.words));
    }
    help.push_str(&format!(
        "
A challenge is approved with the answer {CHALLENGE_ANSWER}: in the authorization that goes on, or as
{{\"answer\": \"{CHALLENGE_ANSWER}\"}} in a POST to its URL.

Exit codes:
  0  SIGTERM or Ctrl-C
  1  the disk did not take what was done
  2  the command line, the data directory or the port cannot be used"
    ));
    help
}

/// Runs the command.
pub(crate) async fn run(args: AcquirerArgs) -> anyhow::Result<Exit> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("Ctrl-C cannot be waited for")?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| unusable(format!("{}: {error}", args.listen)))?;
    let address = listener.local_addr()?;
    let kept = args
        .data
        .as_ref()
        .map_or_else(|| "charges are kept in memory only".to_owned(), |data| format!("charges are kept in {}", data.display()));
    let settings =
        Settings { data: args.data, latency: Duration::from_millis(args.latency_ms), fail_permille: args.fail_rate, seed: args.seed };
    note!("paymesh acquirer: a simulator, no money moves; http://{address}; {kept}");
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    match serve(listener, settings, stopped).await {
        Ok(()) => Ok(Exit::Good),
        Err(error @ (Error::InUse { .. } | Error::Damaged { .. })) => Err(unusable(error)),
        Err(error) => Err(error.into()),
    }
}

/// Starts a simulator in this process for each gateway that stands for one on this machine and where nobody listens yet, with its charges in `data`. They end
/// when the set is dropped, and may: what they have answered is on the disk. Says which were started.
///
/// # Errors
/// An address cannot be listened on.
pub(crate) async fn stand_in(gateways: &Gateways, data: &Path) -> anyhow::Result<(Vec<String>, JoinSet<anyhow::Result<()>>)> {
    let (mut started, mut simulators) = (Vec::new(), JoinSet::new());
    for gateway in gateways.gateways().iter().filter(|gateway| gateway.connector == ConnectorKind::Simulator) {
        let Some(address) = gateway.url.strip_prefix("http://").and_then(|address| address.parse::<SocketAddr>().ok()) else { continue };
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            // `paymesh acquirer`, most likely.
            Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
            Err(error) => return Err(unusable(format!("gateway {}: {address}: {error}", gateway.name))),
        };
        let settings = Settings { data: Some(data.join(&gateway.name)), ..Settings::default() };
        let name = gateway.name.clone();
        started.push(format!("{name} on {address}"));
        simulators.spawn(async move {
            serve(listener, settings, std::future::pending()).await.with_context(|| format!("the simulator behind gateway {name}"))
        });
    }
    Ok((started, simulators))
}

/// What a simulator has taken from cards less what it has sent back, in minor units of whatever currency, by its list.
pub(crate) async fn taken(url: &str) -> anyhow::Result<i64> {
    let address = url.strip_prefix("http://").context("a simulator is on this machine")?;
    let (mut taken, mut after) = (0, 0);
    loop {
        let page: Page = serde_json::from_str(&get(address, &format!("/charges?after={after}")).await?)?;
        taken += page.charges.iter().map(|charge| charge.captured_minor - charge.refunded_minor).sum::<i64>();
        match page.next {
            Some(next) => after = next,
            None => return Ok(taken),
        }
    }
}

#[derive(Deserialize)]
struct Page {
    charges: Vec<Listed>,
    next: Option<u64>,
}

#[derive(Deserialize)]
struct Listed {
    captured_minor: i64,
    refunded_minor: i64,
}

/// A page of a simulator, which answers at once and is on this machine.
async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PAGE_TIME_MAX, asked).await.context("it does not answer")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("what it answered is not HTTP")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "it answered {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

/// A rate in per cent with one digit after the point at most, in per mille.
pub(crate) fn parse_rate(text: &str) -> Result<u16, String> {
    let wrong = || "is 0 to 100, with one digit after the point at most".to_owned();
    let (whole, tenths) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(tenths) || tenths.len() > 1 {
        return Err(wrong());
    }
    let permille = whole.parse::<u16>().ok().and_then(|whole| whole.checked_mul(10)?.checked_add(tenths.parse().ok()?));
    permille.filter(|permille| *permille <= 1000).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_cent_with_a_digit_after_the_point() {
        for (text, permille) in
            [("0", Some(0)), ("2.5", Some(25)), ("100", Some(1000)), ("100.1", None), ("-1", None), ("1.25", None), ("", None)]
        {
            assert_eq!(parse_rate(text).ok(), permille, "{text}");
        }
    }
}
