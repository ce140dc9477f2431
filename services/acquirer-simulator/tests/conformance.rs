//! The simulator and its connector keep the port's promises.

#![forbid(unsafe_code)]

mod common;

use async_trait::async_trait;
use common::{Simulated, card, now};
use paymesh_acquirer_simulator::{CHALLENGE_ANSWER, Settings};
use paymesh_acquirers::{
    Acquirer, Challenge,
    conformance::{self, Kind, Subject},
};
use paymesh_cards::Card;
use paymesh_types::Timestamp;

#[async_trait]
impl Subject for Simulated {
    fn acquirer(&self) -> &dyn Acquirer {
        &*self.acquirer
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn card(&self, kind: Kind) -> Card {
        card(match kind {
            Kind::Approved => "4242424242424242",
            Kind::Declined => "4000000000000002",
            Kind::Challenged => "4000002760003184",
        })
    }

    async fn answer(&self, challenge: &Challenge, approve: bool) -> Option<String> {
        assert!(challenge.url.as_ref().is_some_and(|url| url.starts_with(&self.url)), "a whole URL");
        Some(if approve { CHALLENGE_ANSWER } else { "000000" }.to_owned())
    }

    fn prefix(&self) -> &str {
        "test"
    }
}

#[tokio::test]
async fn the_simulator_keeps_the_ports_promises() {
    let folder = tempfile::tempdir().expect("a folder");
    let simulator = Simulated::start(Settings { data: Some(folder.path().to_owned()), ..Settings::default() }).await;
    conformance::run(&simulator).await;
    simulator.stop().await;
}
