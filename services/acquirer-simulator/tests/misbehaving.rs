//! What the connector says of an acquirer that misbehaves, and what was done there in truth.

#![forbid(unsafe_code)]

mod common;

use std::time::{Duration, Instant as StdInstant};

use common::{Simulated, acquirer, authorization, card, euros, now};
use paymesh_acquirer_simulator::{Error, Settings, serve};
use paymesh_acquirers::{
    Authentication, Authorization, Capture, Certainty, ChargeState, Class, Decision, DeclineReason, Exemption, Settlement, Sought,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(700)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn sought(asked: &Authorization) -> Sought {
    Sought { reference: asked.reference.clone(), begun_at: asked.begun_at, amount: asked.amount, charge: None }
}

/// (number, the failure's class, whether it is certain, whether there is a charge in truth)
const FAILURES: &[(&str, Class, Certainty, bool)] = &[
    ("4000009999000014", Class::Timeout, Certainty::Unknown, true),
    ("4000009999000030", Class::ServerError, Certainty::Unknown, false),
    ("4000009999000048", Class::ServerError, Certainty::Unknown, true),
    ("4000009999000055", Class::Malformed, Certainty::Unknown, true),
    ("4000009999000063", Class::Malformed, Certainty::Unknown, true),
    ("4000009999000071", Class::Mismatch, Certainty::Unknown, true),
    ("4000009999000089", Class::Broken, Certainty::Unknown, true),
    ("4000009999000097", Class::Overloaded, Certainty::NotDone, false),
    ("4000009999000022", Class::Timeout, Certainty::Unknown, true),
];

#[tokio::test]
async fn nothing_is_certain_that_may_have_been_done_and_a_look_up_says_what_was() {
    let simulator = Simulated::start(Settings::default()).await;
    for (index, (number, class, certainty, done)) in FAILURES.iter().enumerate() {
        let asked = authorization(&format!("fails.{index}"), 1_000);
        let failure = simulator.acquirer.authorize(&card(number), &asked, soon()).await.expect_err(number);
        // A connection that breaks before the head of an answer and one that breaks after it are the same to us.
        let class_fits = failure.class == *class || (*class == Class::Broken && failure.class == Class::Malformed);
        assert!(class_fits && failure.certainty == *certainty, "{number}: {failure}");
        assert!(!failure.to_string().contains(&number[..8]), "{failure}");
        let found = simulator.acquirer.look_up(&sought(&asked), later()).await.expect("a look-up");
        assert_eq!(found.is_some(), *done, "{number}");
        if *done {
            assert_eq!(found.expect("it is there").state, ChargeState::Authorized, "{number}");
            let again = simulator.acquirer.authorize(&card(number), &asked, later()).await;
            assert!(matches!(again, Ok(Decision::Approved(_))), "{number}: {again:?}");
        }
    }
    simulator.stop().await;
}

#[tokio::test]
async fn declines_have_their_reasons() {
    let simulator = Simulated::start(Settings::default()).await;
    let table = [
        ("4000000000000002", DeclineReason::DoNotHonor, "generic_decline"),
        ("4000000000009995", DeclineReason::InsufficientFunds, "insufficient_funds"),
        ("4000000000009987", DeclineReason::LostOrStolen, "lost_card"),
        ("4000000000009979", DeclineReason::LostOrStolen, "stolen_card"),
        ("4000000000000069", DeclineReason::ExpiredCard, "expired_card"),
        ("4000000000000119", DeclineReason::IssuerUnavailable, "processing_error"),
        ("4000000000006975", DeclineReason::LimitExceeded, "card_velocity_exceeded"),
    ];
    for (number, reason, code) in table {
        let asked = authorization(&format!("declined.{code}"), 1_000);
        match simulator.acquirer.authorize(&card(number), &asked, later()).await {
            Ok(Decision::Declined(decline)) => assert_eq!((decline.reason, decline.code.as_str()), (reason, code)),
            other => panic!("{number}: {other:?}"),
        }
    }
    // An agreement is enough for one card, and not for the other.
    for (number, approved) in [("4000002500003155", true), ("4000002760003184", false)] {
        let asked = Authorization { recurring: true, ..authorization(&format!("recurring.{number}"), 1_000) };
        match simulator.acquirer.authorize(&card(number), &asked, later()).await {
            Ok(Decision::Approved(_)) if approved => {}
            Ok(Decision::Declined(decline)) if !approved => assert_eq!(decline.reason, DeclineReason::AuthenticationRequired),
            other => panic!("{number}: {other:?}"),
        }
    }
    // No exemption is good enough for this one, nor that nobody says anything; a challenge is, under another reference.
    let soft = card("4000009999000105");
    for (index, (authentication, recurring)) in [
        (Authentication::IssuerDecides, false),
        (Authentication::Exempt(Exemption::LowValue), false),
        (Authentication::Exempt(Exemption::Recurring), true),
    ]
    .into_iter()
    .enumerate()
    {
        let asked = Authorization { authentication, recurring, ..authorization(&format!("soft.{index}"), 1_000) };
        match simulator.acquirer.authorize(&soft, &asked, later()).await {
            Ok(Decision::Declined(decline)) => assert_eq!(decline.reason, DeclineReason::AuthenticationRequired),
            other => panic!("{other:?}"),
        }
        // What was decided under a reference stays so.
        let again = Authorization { authentication: Authentication::Challenge, recurring: false, ..asked };
        assert!(matches!(simulator.acquirer.authorize(&soft, &again, later()).await, Ok(Decision::Declined(_))));
    }
    let asked = Authorization { authentication: Authentication::Challenge, ..authorization("soft.challenged", 1_000) };
    assert!(matches!(simulator.acquirer.authorize(&soft, &asked, later()).await, Ok(Decision::ActionRequired { .. })));
    let answered = Authorization { authentication: Authentication::Answered { answer: Some("123456".to_owned()) }, ..asked };
    assert!(matches!(simulator.acquirer.authorize(&soft, &answered, later()).await, Ok(Decision::Approved(_))));
    // The right answer, and then the issuer says no.
    let asked = authorization("challenged.declined", 1_000);
    assert!(matches!(simulator.acquirer.authorize(&card("4000008260003178"), &asked, later()).await, Ok(Decision::ActionRequired { .. })));
    let answered = Authorization { authentication: Authentication::Answered { answer: Some("123456".to_owned()) }, ..asked };
    match simulator.acquirer.authorize(&card("4000008260003178"), &answered, later()).await {
        Ok(Decision::Declined(decline)) => assert_eq!(decline.reason, DeclineReason::InsufficientFunds),
        other => panic!("{other:?}"),
    }
    simulator.stop().await;
}

#[tokio::test]
async fn what_never_left_was_not_done() {
    // Nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let dead = acquirer(&format!("http://{address}"));
    let failure = dead.authorize(&card("4242424242424242"), &authorization("dead", 1), later()).await.expect_err("nobody is there");
    assert_eq!((failure.class, failure.certainty), (Class::Unreachable, Certainty::NotDone), "{failure}");
    // A backlog that is full takes no connection, in any time.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let _full: Vec<_> = (0..4200).map_while(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok()).collect();
    let silent = acquirer(&format!("http://{address}"));
    let begun = StdInstant::now();
    let failure = silent.authorize(&card("4242424242424242"), &authorization("full", 1), soon()).await.expect_err("no connection");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((failure.class, failure.certainty), (Class::Timeout, Certainty::NotDone), "{failure}");
    // A question is never certain: what it asks about may have been done.
    let failure = dead.look_up(&sought(&authorization("dead", 1)), later()).await.expect_err("nobody is there");
    assert_eq!(failure.certainty, Certainty::Unknown, "{failure}");
}

/// Says these bytes to whoever has sent a request.
async fn answering(bytes: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 8192];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn answers_that_are_none_are_failures_with_words_and_without_numbers() {
    let table = [
        ("", Class::Broken, Certainty::Unknown),
        ("HTTP/1.1 200 OK\r\n", Class::Broken, Certainty::Unknown),
        ("SSH-2.0-nothing\r\n\r\n", Class::Broken, Certainty::Unknown),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"charge\":", Class::Malformed, Certainty::Unknown),
        ("HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n\"4242424242424242\"", Class::Malformed, Certainty::Unknown),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Class::Malformed, Certainty::Unknown),
        ("HTTP/1.1 204 No Content\r\n\r\n", Class::Malformed, Certainty::Unknown),
        ("HTTP/1.1 302 Found\r\nlocation: http://example/\r\ncontent-length: 0\r\n\r\n", Class::Malformed, Certainty::Unknown),
        // A page of some proxy in between, which may have passed the request on.
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>", Class::Malformed, Certainty::Unknown),
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>", Class::ServerError, Certainty::Unknown),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", Class::Configuration, Certainty::NotDone),
    ];
    for (answer, class, certainty) in table {
        let acquirer = acquirer(&answering(answer).await);
        let failure = acquirer.authorize(&card("4242424242424242"), &authorization("odd", 1), later()).await.expect_err(answer);
        assert_eq!((failure.class, failure.certainty), (class, certainty), "{answer:?}: {failure}");
        assert!(!failure.to_string().contains("4242"), "{failure}");
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_and_a_line_that_was_cut_off_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::default() };
    let simulator = Simulated::start(settings.clone()).await;
    let asked = authorization("kept", 1_000);
    simulator.acquirer.authorize(&card("4242424242424242"), &asked, later()).await.expect("approved");
    let capture = Capture { charge: sought(&asked), reference: "kept.capture".parse().expect("a reference"), amount: euros(900) };
    assert!(matches!(simulator.acquirer.capture(&capture, later()).await, Ok(Settlement::Done(_))));
    // Nobody else may write there.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let second = serve(listener, settings.clone(), std::future::pending()).await;
    assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    simulator.stop().await;

    let file = folder.path().join("charges.jsonl");
    let whole = std::fs::read_to_string(&file).expect("there");
    assert!(!whole.contains("4242424242424242"), "no number is kept");
    std::fs::write(&file, format!("{whole}{{\"id\":\"ch_2\",")).expect("written");
    let simulator = Simulated::start(settings.clone()).await;
    let charge = simulator.acquirer.look_up(&sought(&asked), later()).await.expect("a look-up").expect("it is there");
    assert_eq!((charge.state, charge.captured_minor), (ChargeState::Captured, 900));
    assert!(matches!(simulator.acquirer.capture(&capture, later()).await, Ok(Settlement::Done(_))), "the same once more");
    let next = authorization("next", 5);
    simulator.acquirer.authorize(&card("4242424242424242"), &next, later()).await.expect("approved");
    simulator.stop().await;
    assert_eq!(std::fs::read_to_string(&file).expect("there").lines().count(), 3);

    std::fs::write(&file, format!("{{}}\n{whole}")).expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let damaged = serve(listener, settings, std::future::pending()).await.expect_err("damaged");
    assert!(damaged.to_string().ends_with("charges.jsonl:1: is no charge"), "{damaged}");
    let _ = now();
}

#[tokio::test]
async fn what_fails_at_random_is_done_once_however_often_it_is_asked_for() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("SEED={seed}");
    let simulator = Simulated::start(Settings { fail_permille: 400, seed, ..Settings::default() }).await;
    for index in 0..100 {
        let asked = authorization(&format!("random.{index}"), 1_000 + index);
        let mut tries = 0;
        let charge = loop {
            tries += 1;
            assert!(tries < 60, "random.{index}");
            if let Ok(decision) = simulator.acquirer.authorize(&card("4242424242424242"), &asked, later()).await {
                let Decision::Approved(charge) = decision else { panic!("{decision:?}") };
                break charge;
            }
        };
        assert_eq!(charge.id.as_str(), format!("ch_{}", index + 1), "one charge for each reference");
    }
    simulator.stop().await;
}
