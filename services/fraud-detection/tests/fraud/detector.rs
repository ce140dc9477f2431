//! The detector over a real store: replays, restarts, new rules, and a disk that stands still.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use paymesh_cache::{Cache, InProcess};
use paymesh_contract::fraud::v1::{Assessment, Decision, ReasonCode};
use paymesh_fraud_detection::{Error, memory::Payment};
use paymesh_types::RequestId;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::support::{Place, RULES, Running, payment, request, rules};

const BODY: [u8; 32] = [1; 32];

impl Running {
    async fn score(&self, request: RequestId, payment: &Payment) -> Assessment {
        self.detector.score(request, BODY, payment.clone()).await.expect("a score")
    }

    async fn count(&self, payer: u64) -> u64 {
        // Rules by which one payment counts already.
        let yaml = RULES.replace("from: 2, full: 4, weight: 0.9", "from: 0, full: 100, weight: 1");
        let before = self.rules.send_replace(Some(Arc::new(rules(&yaml))));
        let explained = self.detector.explain(payment(payer, 9, 1, 60)).await.expect("an explanation");
        self.rules.send_replace(before);
        let reason = explained.reasons.iter().find(|reason| reason.code() == ReasonCode::UserCount).expect("it is counted");
        reason.value - 1
    }
}

/// A cache that cannot be had.
#[derive(Debug)]
struct Gone;

#[async_trait]
impl Cache for Gone {
    async fn get(&self, _: &[u8]) -> Result<Option<bytes::Bytes>, paymesh_cache::Error> {
        Err(paymesh_cache::Error { place: "nowhere".to_owned(), why: "it is gone".to_owned() })
    }

    async fn insert(&self, _: &[u8], _: bytes::Bytes, _: Duration) -> Result<(), paymesh_cache::Error> {
        Err(paymesh_cache::Error { place: "nowhere".to_owned(), why: "it is gone".to_owned() })
    }

    async fn invalidate(&self, _: &[u8]) -> Result<(), paymesh_cache::Error> {
        Ok(())
    }
}

#[tokio::test]
async fn the_same_request_is_the_same_answer_and_counts_once_wherever_it_is_found() {
    let caches: [Arc<dyn Cache>; 3] = [Arc::new(InProcess::new(1 << 20)), Arc::new(InProcess::new(0)), Arc::new(Gone)];
    for cache in caches {
        let place = Place::new();
        let running = place.open_with(cache, rules(RULES)).await.expect("it opens");
        let id = request();
        let first = running.score(id, &payment(1, 9, 1_000, 0)).await;
        // Found by the thread, before it is recorded, and in the store after.
        for flushed in [false, true] {
            place.time.pass(10);
            assert_eq!(running.score(id, &payment(1, 9, 1_000, 0)).await, first, "{flushed}");
            let other = running.detector.score(id, [2; 32], payment(1, 9, 2_000, 0)).await;
            assert!(matches!(other, Err(Error::RequestIdReused)), "{other:?}");
            assert_eq!(running.count(1).await, 1);
            assert!(running.detector.flush().await);
        }
    }
}

#[tokio::test]
async fn of_many_that_race_with_one_id_one_counts() {
    let running = Arc::new(Place::new().open().await);
    let id = request();
    let racing: Vec<_> = (0..50)
        .map(|_| {
            let running = running.clone();
            tokio::spawn(async move { running.score(id, &payment(1, 9, 1_000, 0)).await })
        })
        .collect();
    let mut answers = Vec::new();
    for one in racing {
        answers.push(one.await.expect("it ran"));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(running.count(1).await, 1);
}

#[tokio::test]
async fn to_explain_changes_nothing_and_says_what_a_score_would() {
    let running = Place::new().open().await;
    for _ in 0..3 {
        running.score(request(), &payment(1, 9, 1_000, 0)).await;
    }
    let explained = running.detector.explain(payment(1, 9, 1_000, 1)).await.expect("an explanation");
    assert_eq!(running.detector.explain(payment(1, 9, 1_000, 1)).await.expect("an explanation"), explained);
    assert_eq!(running.count(1).await, 3);
    assert_eq!(running.score(request(), &payment(1, 9, 1_000, 1)).await, explained);
    assert_eq!(explained.decision(), Decision::Decline, "the fourth in five minutes: {explained:?}");
}

#[tokio::test]
async fn a_start_knows_what_was_known_before_it() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::new();
    let mut asked = Vec::new();
    let running = place.open().await;
    for step in 0..500 {
        let card = random.random_range(0..6_u8);
        let payment = Payment {
            card: (card > 0).then_some([card; 16]),
            device: Some([random.random_range(1..4); 16]),
            ..payment(random.random_range(1..8), random.random_range(8..12), random.random_range(1..90_000), step * 7)
        };
        let id = request();
        asked.push((id, payment.clone(), running.score(id, &payment).await));
    }
    let questions: Vec<Payment> = (0..40).map(|step| payment(1 + step % 8, 8 + step % 5, 50_000, 3_600)).collect();
    let mut before = Vec::new();
    for question in &questions {
        before.push(running.detector.explain(question.clone()).await.expect("an explanation"));
    }
    assert!(running.detector.flush().await);
    drop(running);

    let running = place.open().await;
    for (question, wanted) in questions.iter().zip(&before) {
        assert_eq!(&running.detector.explain(question.clone()).await.expect("an explanation"), wanted);
    }
    for (id, payment, wanted) in &asked {
        assert_eq!(&running.score(*id, payment).await, wanted, "the same request, a process later");
    }
    for (question, wanted) in questions.iter().zip(&before) {
        let explained = running.detector.explain(question.clone()).await.expect("an explanation");
        assert_eq!(&explained, wanted, "and nothing was counted twice");
    }
}

#[tokio::test]
async fn what_was_not_recorded_when_it_was_killed_is_scored_anew_and_counts_once() {
    let place = Place::new();
    let running = place.open().await;
    running.score(request(), &payment(1, 9, 1_000, 0)).await;
    assert!(running.detector.flush().await);
    // Nobody records any more.
    running.tending.abort();
    tokio::task::yield_now().await;
    let lost = request();
    running.score(lost, &payment(1, 9, 1_000, 1)).await;
    assert_eq!(running.count(1).await, 2);
    drop(running);
    let running = place.open().await;
    assert_eq!(running.count(1).await, 1);
    running.score(lost, &payment(1, 9, 1_000, 1)).await;
    assert_eq!(running.count(1).await, 2);
}

#[tokio::test]
async fn new_rules_hold_from_the_next_payment_on_and_each_answer_says_which() {
    let running = Place::new().open().await;
    let id = request();
    let first = running.score(id, &payment(1, 9, 1_000, 0)).await;
    assert_eq!((first.score, first.rules_version.as_str()), (1_000, rules(RULES).version()));
    let changed = rules(&RULES.replace("first_payment: {weight: 0.1}", "first_payment: {weight: 0.95}"));
    running.rules.send_replace(Some(Arc::new(changed.clone())));
    let second = running.score(request(), &payment(2, 9, 1_000, 0)).await;
    assert_eq!((second.score, second.decision(), second.rules_version.as_str()), (9_500, Decision::Decline, changed.version()));
    assert_eq!(running.score(id, &payment(1, 9, 1_000, 0)).await, first, "what was answered stays answered");
    running.rules.send_replace(None);
    let none = running.detector.score(request(), BODY, payment(3, 9, 1_000, 0)).await;
    assert!(matches!(none, Err(Error::NoRules)), "{none:?}");
}

#[tokio::test]
async fn a_disk_that_stands_still_holds_up_no_score() {
    let running = Place::new().open().await;
    running.tending.abort();
    tokio::task::yield_now().await;
    let begun = Instant::now();
    for step in 0..2_000 {
        running.score(request(), &payment(1 + step % 100, 9, 1_000, step)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(!tokio::time::timeout(Duration::from_secs(20), running.detector.flush()).await.expect("it ends"), "nothing was recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_than_may_wait_are_refused_at_once_and_the_others_are_answered() {
    const ASKED: u64 = 3_000;
    let running = Arc::new(Place::new().open().await);
    // Whoever changes the rules holds up the thread that looks at them.
    let (go, stopped) = std::sync::mpsc::sync_channel::<()>(0);
    let (is_held, held) = tokio::sync::oneshot::channel();
    let changing = running.clone();
    let changer = std::thread::spawn(move || {
        changing.rules.send_modify(|_| {
            let _ = is_held.send(());
            let _ = stopped.recv();
        });
    });
    held.await.expect("it is held up");
    let asking: Vec<_> = (0..ASKED)
        .map(|step| {
            let running = running.clone();
            tokio::spawn(async move { running.detector.score(request(), BODY, payment(1 + step % 1_000, 9, 1_000, 0)).await })
        })
        .collect();
    let (mut refused, mut waiting) = (0, Vec::new());
    // Those who wait do so in the order in which they came; nobody who is refused waits for the thread.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for one in asking {
        if one.is_finished() {
            assert!(matches!(one.await.expect("it ran"), Err(Error::Overloaded)));
            refused += 1;
        } else {
            waiting.push(one);
        }
    }
    assert!(refused > 1_000 && waiting.len() >= 1_024, "{refused} refused, {} wait", waiting.len());
    go.send(()).expect("it waits");
    changer.join().expect("it ran");
    for one in waiting {
        let answer = tokio::time::timeout(Duration::from_secs(60), one).await.expect("it ends").expect("it ran");
        assert!(matches!(answer, Ok(_) | Err(Error::Overloaded)), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_old_is_let_go_of_and_the_last_day_is_kept() {
    let place = Place::new();
    let running = place.open().await;
    let ids: Vec<RequestId> = (0..10).map(|_| request()).collect();
    for (day, id) in (0..10).zip(&ids) {
        running.score(*id, &payment(1, 9, 1_000, day * 86_400)).await;
    }
    assert!(running.detector.flush().await);
    let at = |day: u64| payment(1, 9, 1, day * 86_400).at;
    let kept = async || {
        let mut kept = Vec::new();
        for (day, id) in ids.iter().enumerate() {
            if running.store.answer(*id).await.expect("it can be had").is_some() {
                kept.push(day);
            }
        }
        kept
    };
    running.store.forget(at(2), at(9), 100).await.expect("it can be had");
    assert_eq!(kept().await, [2, 3, 4, 5, 6, 7, 8, 9], "by age");
    running.store.forget(at(2), at(8), 4).await.expect("it can be had");
    assert_eq!(kept().await, [6, 7, 8, 9], "by number");
    running.store.forget(at(2), at(8), 1).await.expect("it can be had");
    assert_eq!(kept().await, [8, 9], "but what is young is kept, however many there are");
}

#[tokio::test]
async fn a_store_of_another_region_is_refused_and_damage_is_named() {
    let place = Place::new();
    drop(place.open().await);
    let (us, us_east) = ("us".parse().expect("a zone"), "us_east".parse().expect("a region"));
    let other = paymesh_fraud_detection::Store::open(place.path(), "test", &us, &us_east);
    let error = other.await.expect_err("it is another's").to_string();
    assert!(
        error.ends_with("is fraud detection of zone eu in region eu_west of mesh test, and not of zone us in region us_east of mesh test"),
        "{error}"
    );
    let place = Place::new();
    let file = place.path().join("fraud.sqlite");
    std::fs::write(&file, vec![7; 8_192]).expect("it is ours");
    let damaged = place.open_with(Arc::new(Gone), rules(RULES)).await.err().expect("it is damaged").to_string();
    assert!(damaged.contains("is damaged"), "{damaged}");
}
