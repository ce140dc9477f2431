//! `paymesh acquirer`: the simulator that stands for what is outside.

use std::{io::ErrorKind, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use paymesh_acquirer_simulator::{CHALLENGE_ANSWER, Error, Settings, TEST_CARDS, serve};
use paymesh_topology::{ConnectorKind, Gateways};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    args::AcquirerArgs,
    exit::{Exit, unusable},
    note,
};

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
