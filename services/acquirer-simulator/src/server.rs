//! The simulator's HTTP server.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use paymesh_cards::{CardNumber, Expiry};
use paymesh_types::Timestamp;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    Behavior, CHALLENGE_ANSWER, Error,
    book::{Book, Charge, Done, Kind, Order, Refusal, State as ChargeState, Terms, Verdict},
    log::{Entry, Log, WAITING_MAX},
};

/// Connections served at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 2048;
/// How long a client may take to send its request's head.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of a request's body at most.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long an answer that never comes does not come.
const SILENCE: Duration = Duration::from_secs(120);
/// Charges in a page at most.
const PAGE_MAX: usize = 1000;
/// How long to wait after the listener failed to accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long calls that are being answered may take when the simulator leaves.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How the simulator behaves.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where charges are kept. None: in memory.
    pub data: Option<PathBuf>,
    /// How long every call takes at least.
    pub latency: Duration,
    /// Of a thousand calls that change something, how many go wrong: 500 or a closed connection, before or after it is done.
    pub fail_permille: u16,
    /// What those are picked by.
    pub seed: u64,
}

struct Shared {
    book: Mutex<Book>,
    entries: mpsc::Sender<Entry>,
    chance: Mutex<StdRng>,
    settings: Settings,
}

type Calls = State<Arc<Shared>>;

/// What goes wrong at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    FailBefore,
    HangupBefore,
    FailAfter,
    HangupAfter,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorize {
    reference: String,
    amount_minor: i64,
    currency: String,
    card: CardFields,
    authentication: Authentication,
    #[serde(default, rename = "exemption")]
    _exemption: Option<String>,
    #[serde(default)]
    answer: Option<String>,
    recurring: bool,
    #[serde(default, rename = "sets_up")]
    _sets_up: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CardFields {
    number: String,
    expiry_month: u32,
    expiry_year: u32,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Authentication {
    IssuerDecides,
    Challenge,
    Exempt,
    Answered,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    charge_reference: String,
    charge_amount_minor: i64,
    reference: String,
    #[serde(default)]
    amount_minor: Option<i64>,
    currency: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    answer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    reference: Option<String>,
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// Serves until `shutdown` ends. The caller owns the task and notices its end.
///
/// # Errors
/// The data directory cannot be used, or the disk does not take what was done.
pub async fn serve(listener: TcpListener, settings: Settings, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let (log, book) = Log::open(settings.data.as_deref())?;
    let (entries, waiting) = mpsc::channel(WAITING_MAX);
    let chance = Mutex::new(StdRng::seed_from_u64(settings.seed));
    let router = router(Arc::new(Shared { book: Mutex::new(book), entries, chance, settings }));
    // Owned here, like the connections: they end with the server.
    let mut writer = JoinSet::new();
    writer.spawn(log.run(waiting));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let (leave, leaving) = watch::channel(());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            // What is in memory is ahead of what is on the disk then: nothing more is answered.
            Some(ended) = writer.join_next() => {
                return ended.unwrap_or_else(|error| Err(Error::Listener(std::io::Error::other(error))));
            }
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the acquirer's listener could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let mut leaving = leaving.clone();
        connections.spawn(async move {
            let _slot = slot;
            // Answers are small and waited for: no delay for company.
            let _ = stream.set_nodelay(true);
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WAIT_MAX)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            // A client that breaks off or breaks the protocol is its own problem.
            tokio::select! {
                _ = connection.as_mut() => {}
                _ = leaving.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    drop(leave);
    // An answer that never comes is not waited for.
    let _ = tokio::time::timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/charges", post(authorize).get(list))
        .route("/captures", post(|state, body| operate(state, Kind::Capture, body)))
        .route("/voids", post(|state, body| operate(state, Kind::Void, body)))
        .route("/refunds", post(|state, body| operate(state, Kind::Refund, body)))
        .route("/challenges/{id}", post(answer_challenge))
        .route("/health", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn authorize(State(shared): Calls, body: Result<Json<Authorize>, JsonRejection>) -> Response {
    let Ok(Json(asked)) = body else { return refuse(Refusal::Malformed("body")) };
    let mishap = shared.mishap().await;
    if let Some(response) = before(mishap) {
        return response;
    }
    let behavior = Behavior::of(&asked.card.number);
    match behavior {
        Behavior::FailBefore => return failed(),
        Behavior::Overloaded => return error(StatusCode::TOO_MANY_REQUESTS, "overloaded", "too many calls"),
        _ => {}
    }
    let done = shared.commit(|book| {
        if asked.authentication != Authentication::Answered {
            return book.authorize(&asked.terms(behavior));
        }
        book.find(&asked.reference).ok_or(Refusal::NoCharge)?;
        let waiting = book.authorize(&asked.terms(behavior))?;
        // Without an answer here, the one that the cardholder has given at the challenge's URL counts, or there is none yet.
        match (waiting.charge.state, &asked.answer) {
            (ChargeState::ActionRequired, Some(answer)) => book.answer(&asked.reference, answer == CHALLENGE_ANSWER),
            _ => Ok(waiting),
        }
    });
    let done = match done.await {
        Ok(done) => done,
        Err(response) => return response,
    };
    if let Some(response) = after(mishap) {
        return response;
    }
    let new = done.new && asked.authentication != Authentication::Answered;
    let mut answer = shown(&done);
    match behavior {
        Behavior::AnswerLost if new => {
            tokio::time::sleep(SILENCE).await;
            hang_up()
        }
        Behavior::Slow { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Json(answer).into_response()
        }
        Behavior::Hangup if new => hang_up(),
        Behavior::FailAfter if new => failed(),
        Behavior::Html if new => {
            // As pages of errors do that repeat the request.
            let page =
                format!("<!doctype html><html><body><h1>We are doing maintenance</h1><pre>{}</pre></body></html>", asked.card.number);
            ([(header::CONTENT_TYPE, "text/html")], page).into_response()
        }
        Behavior::Truncated if new => {
            let text = answer.to_string();
            ([(header::CONTENT_TYPE, "application/json")], text[..text.len() / 2].to_owned()).into_response()
        }
        Behavior::WrongAmount if new => {
            answer["charge"]["amount_minor"] = json!(done.charge.amount_minor + 1);
            Json(answer).into_response()
        }
        _ => Json(answer).into_response(),
    }
}

impl Authorize {
    fn terms(&self, behavior: Behavior) -> Terms<'_> {
        let number = CardNumber::parse(&self.card.number);
        let expired = match Expiry::new(self.card.expiry_month, self.card.expiry_year) {
            Ok(expiry) => expiry.is_over(now()),
            Err(_) => true,
        };
        let verdict = match behavior {
            _ if number.is_err() => Verdict::Decline("incorrect_number"),
            _ if expired => Verdict::Decline("expired_card"),
            Behavior::Decline(code) => Verdict::Decline(code),
            Behavior::Challenge { unless_recurring: true, .. } if self.recurring => Verdict::Approve,
            Behavior::Challenge { .. } if self.recurring => Verdict::Decline("authentication_required"),
            Behavior::Challenge { then, .. } => Verdict::Challenge { then },
            Behavior::AuthenticationRequired if self.recurring || self.authentication != Authentication::Challenge => {
                Verdict::Decline("authentication_required")
            }
            _ if self.authentication == Authentication::Challenge => Verdict::Challenge { then: None },
            _ => Verdict::Approve,
        };
        let card = match &number {
            Ok(number) => format!("{} {}", number.bin(), number.last_four()),
            Err(_) => "no card".to_owned(),
        };
        Terms { reference: &self.reference, amount_minor: self.amount_minor, currency: &self.currency, card, verdict }
    }
}

async fn operate(State(shared): Calls, kind: Kind, body: Result<Json<Move>, JsonRejection>) -> Response {
    let Ok(Json(asked)) = body else { return refuse(Refusal::Malformed("body")) };
    let mishap = shared.mishap().await;
    if let Some(response) = before(mishap) {
        return response;
    }
    let order = Order {
        kind,
        charge_reference: &asked.charge_reference,
        charge_amount_minor: asked.charge_amount_minor,
        reference: &asked.reference,
        amount_minor: asked.amount_minor,
        currency: &asked.currency,
    };
    match shared.commit(|book| book.operate(&order)).await {
        Ok(done) => after(mishap).unwrap_or_else(|| {
            let mut answer = json!({ "charge": charge_fields(&done.charge) });
            if let Some(code) = done.declined {
                answer["declined"] = json!(code);
            }
            Json(answer).into_response()
        }),
        Err(response) => response,
    }
}

async fn answer_challenge(State(shared): Calls, Path(id): Path<String>, body: Result<Json<Answer>, JsonRejection>) -> Response {
    let Ok(Json(answer)) = body else { return refuse(Refusal::Malformed("body")) };
    let done = shared.commit(|book| {
        let reference = book.challenged(&id).ok_or(Refusal::NoCharge)?.reference.clone();
        book.answer(&reference, answer.answer == CHALLENGE_ANSWER)
    });
    match done.await {
        Ok(done) => Json(shown(&done)).into_response(),
        Err(response) => response,
    }
}

async fn list(State(shared): Calls, Query(asked): Query<Listed>) -> Response {
    shared.wait().await;
    let limit = asked.limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        return refuse(Refusal::Malformed("limit"));
    }
    let charges = {
        let book = shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        match &asked.reference {
            Some(reference) => book.find(reference).cloned().into_iter().collect(),
            None => book.page(asked.after, limit),
        }
    };
    // Nobody is told what is not on the disk.
    if !shared.written().await {
        return error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the disk does not take what was done");
    }
    let next = (charges.len() == limit).then(|| charges.last().map(|charge| charge.sequence)).flatten();
    Json(json!({ "charges": charges.iter().map(charge_fields).collect::<Vec<_>>(), "next": next })).into_response()
}

impl Shared {
    /// Changes the book, and comes back once that is on the disk.
    async fn commit(&self, change: impl FnOnce(&mut Book) -> Result<Done, Refusal>) -> Result<Done, Response> {
        let unavailable = || error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the disk does not take what was done");
        // A place in the queue first: what has changed in memory is sure to be written, in the order in which it changed.
        let place = self.entries.reserve().await.map_err(|_| unavailable())?;
        let (written, wait) = oneshot::channel();
        let done = {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            let done = change(&mut book).map_err(refuse)?;
            let line = done.new.then(|| {
                let mut line = serde_json::to_vec(&done.charge).expect("a charge is JSON");
                line.push(b'\n');
                line
            });
            place.send(Entry { line, written });
            done
        };
        wait.await.map_err(|_| unavailable())?;
        Ok(done)
    }

    /// Waits until all that came before is on the disk.
    async fn written(&self) -> bool {
        let (written, wait) = oneshot::channel();
        self.entries.send(Entry { line: None, written }).await.is_ok() && wait.await.is_ok()
    }

    async fn wait(&self) {
        if !self.settings.latency.is_zero() {
            tokio::time::sleep(self.settings.latency).await;
        }
    }

    /// Takes its time, and says what goes wrong.
    async fn mishap(&self) -> Option<Mishap> {
        self.wait().await;
        if self.settings.fail_permille == 0 {
            return None;
        }
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        let all = [Mishap::FailBefore, Mishap::HangupBefore, Mishap::FailAfter, Mishap::HangupAfter];
        (chance.random_range(0..1000) < self.settings.fail_permille).then(|| all[chance.random_range(0..all.len())])
    }
}

fn before(mishap: Option<Mishap>) -> Option<Response> {
    match mishap? {
        Mishap::FailBefore => Some(failed()),
        Mishap::HangupBefore => Some(hang_up()),
        Mishap::FailAfter | Mishap::HangupAfter => None,
    }
}

fn after(mishap: Option<Mishap>) -> Option<Response> {
    match mishap? {
        Mishap::FailAfter => Some(failed()),
        Mishap::HangupAfter => Some(hang_up()),
        Mishap::FailBefore | Mishap::HangupBefore => None,
    }
}

/// What came of an authorization.
fn shown(done: &Done) -> Value {
    let mut answer = json!({ "charge": charge_fields(&done.charge) });
    if let Some(code) = &done.declined {
        answer["declined"] = json!(code);
    }
    if done.charge.state == ChargeState::ActionRequired {
        let id = done.charge.challenge();
        answer["challenge"] = json!({ "url": format!("/challenges/{id}"), "id": id });
    }
    answer
}

/// What is told of a charge.
fn charge_fields(charge: &Charge) -> Value {
    json!({
        "id": charge.id,
        "sequence": charge.sequence,
        "reference": charge.reference,
        "state": charge.state,
        "amount_minor": charge.amount_minor,
        "currency": charge.currency,
        "card": charge.card,
        "captured_minor": charge.captured_minor,
        "refunded_minor": charge.refunded_minor,
        "capture_reference": charge.capture_reference,
        "refunds": charge.refunds,
        "decline_code": charge.decline_code,
    })
}

fn refuse(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Reused => error(StatusCode::CONFLICT, "reference_reused", "the reference stands for something else"),
        Refusal::NoCharge => error(StatusCode::NOT_FOUND, "no_charge", "no charge has that reference"),
        Refusal::Malformed(field) => error(StatusCode::BAD_REQUEST, "malformed", &format!("{field} is malformed")),
        Refusal::Full => error(StatusCode::SERVICE_UNAVAILABLE, "full", "there is no room left"),
    }
}

fn failed() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong")
}

/// Closes the connection in place of an answer.
fn hang_up() -> Response {
    let broken = futures::stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("hung up")) });
    Response::new(Body::from_stream(broken))
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
