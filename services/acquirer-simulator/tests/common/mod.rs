//! A simulator in this process, and its connector.

#![allow(dead_code, reason = "each test program has the parts that it is about")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use paymesh_acquirer_simulator::{Error, Settings, serve};
use paymesh_acquirers::{Acquirer, Authentication, Authorization, connector};
use paymesh_cards::{Card, CardNumber, Expiry};
use paymesh_topology::{BreakerRule, ConnectorKind, Cost, Gateway, ZoneGrant};
use paymesh_types::{Currency, Money, Timestamp};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub(crate) struct Simulated {
    pub(crate) url: String,
    pub(crate) acquirer: Arc<dyn Acquirer>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl Simulated {
    pub(crate) async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, settings, async {
            let _ = stopped.await;
        }));
        let acquirer = acquirer(&url);
        Self { url, acquirer, stop, task }
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("it does not panic").expect("it does not fail");
    }
}

pub(crate) fn acquirer(url: &str) -> Arc<dyn Acquirer> {
    connector(&gateway(url), Path::new(""), Arc::new(now)).expect("a connector")
}

pub(crate) fn gateway(url: &str) -> Gateway {
    Gateway {
        name: "simulator".to_owned(),
        connector: ConnectorKind::Simulator,
        url: url.to_owned(),
        authorities: None,
        credentials: None::<PathBuf>,
        return_url: None,
        zones: ZoneGrant::Any,
        cost: Cost::default(),
        timeout: Duration::from_secs(1),
        calls_in_flight: 64,
        breaker: BreakerRule { failures: 3, open_for: Duration::from_secs(30), probes: 1 },
    }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_micros()).expect("it fits"))
}

pub(crate) fn card(number: &str) -> Card {
    Card { number: CardNumber::parse(number).expect("a number"), expiry: Expiry::new(12, 2034).expect("an expiry") }
}

pub(crate) fn euros(minor: i64) -> Money {
    Money::new(minor, Currency::from_code("EUR").expect("EUR")).expect("an amount")
}

pub(crate) fn authorization(reference: &str, minor: i64) -> Authorization {
    Authorization {
        reference: reference.parse().expect("a reference"),
        begun_at: now(),
        amount: euros(minor),
        authentication: Authentication::IssuerDecides,
        recurring: false,
        sets_up: false,
    }
}
