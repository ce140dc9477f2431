//! Before localstripe: what Stripe documents and localstripe leaves out, and answers that do not arrive.
//!
//! Stripe's words (docs.stripe.com/api): a request under an idempotency key that was used is answered as before, with `idempotent-replayed: true`, and is an
//! error of type `idempotency_error` where its parameters differ; a confirmation takes `payment_method`, `off_session`, `setup_future_usage` and `return_url`; a capture takes metadata;
//! a card needs no verification code; what the state of an intent does not allow has the code `payment_intent_unexpected_state`; lists are filtered by `created`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::Response,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Done, and the connection breaks.
    Lost,
    /// Not done, and 500.
    ServerError,
    /// Not done, and 429.
    TooMany,
    /// Done, and a page of HTML.
    Html,
    /// Done, and half of the answer.
    Truncated,
    /// Done, and the answer is about another amount.
    OtherAmount,
    /// Done, and the answer is about another reference.
    OtherReference,
    /// Done, and waiting.
    Pending,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    port: u16,
    /// Parameters, status and body, by key.
    keys: Mutex<HashMap<String, (String, u16, String)>>,
    fault: Mutex<Option<(String, Fault)>>,
    numbers_elsewhere: AtomicUsize,
    confirmed: Mutex<String>,
}

impl Proxy {
    pub(crate) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            port,
            keys: Mutex::default(),
            fault: Mutex::default(),
            numbers_elsewhere: AtomicUsize::new(0),
            confirmed: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    /// What becomes of the next call whose path ends so.
    pub(crate) fn fail_next(&self, path: &str, fault: Fault) {
        *self.shared.fault.lock().expect("a lock") = Some((path.to_owned(), fault));
    }

    /// As after 24 hours.
    pub(crate) fn forget_keys(&self) {
        self.shared.keys.lock().expect("a lock").clear();
    }

    pub(crate) fn numbers_outside_of_payment_methods(&self) -> usize {
        self.shared.numbers_elsewhere.load(Ordering::Relaxed)
    }

    /// What the last confirmation said.
    pub(crate) fn last_confirmed(&self) -> String {
        self.shared.confirmed.lock().expect("a lock").clone()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.shared.ask(method, path, body).await
    }
}

async fn pass(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let (path, body) = (uri.path().to_owned(), String::from_utf8(body.to_vec()).expect("a form"));
    if path != "/v1/payment_methods" && (body.contains("4242424242424242") || uri.to_string().contains("4242424242424242")) {
        shared.numbers_elsewhere.fetch_add(1, Ordering::Relaxed);
    }
    assert!(headers["authorization"] == "Bearer sk_test_paymesh" && headers.contains_key("stripe-version"));
    let fault = {
        let mut next = shared.fault.lock().expect("a lock");
        let here = next.as_ref().is_some_and(|(end, _)| path.ends_with(end.as_str()) && method == Method::POST);
        if here { next.take().map(|(_, fault)| fault) } else { None }
    };
    match fault {
        Some(Fault::ServerError) => return respond(500, "{\"error\":{\"type\":\"api_error\"}}", false),
        Some(Fault::TooMany) => return respond(429, "{\"error\":{\"type\":\"rate_limit_error\"}}", false),
        _ => {}
    }
    let key = headers.get("idempotency-key").map(|key| key.to_str().expect("text").to_owned());
    let parameters = format!("{path}?{body}");
    let before = key.as_ref().and_then(|key| shared.keys.lock().expect("a lock").get(key).cloned());
    if let Some((same, status, answer)) = before {
        return if same == parameters {
            respond(status, &answer, true)
        } else {
            respond(400, "{\"error\":{\"type\":\"idempotency_error\"}}", false)
        };
    }
    let (status, answer) = if method == Method::GET {
        let query = uri.query().unwrap_or_default();
        let kept: Vec<&str> = query.split('&').filter(|part| !part.starts_with("created")).collect();
        shared.ask("GET", &format!("{path}?{}", kept.join("&")), "").await
    } else {
        shared.post(&path, &body).await
    };
    if let Some(key) = key
        && status != 400
    {
        shared.keys.lock().expect("a lock").insert(key, (parameters, status, answer.clone()));
    }
    let altered = |pointer: &str, value: Value| {
        let mut json: Value = serde_json::from_str(&answer).expect("JSON");
        *json.pointer_mut(pointer).expect(pointer) = value;
        respond(status, &json.to_string(), false)
    };
    match fault {
        Some(Fault::Lost) => {
            Response::new(Body::from_stream(futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("lost")) })))
        }
        Some(Fault::Html) => respond(200, "<html><body>maintenance</body></html>", false),
        Some(Fault::Truncated) => respond(status, &answer[..answer.len() / 2], false),
        Some(Fault::OtherAmount) => altered("/amount", json!(1_001)),
        Some(Fault::OtherReference) => altered("/metadata/paymesh_reference", json!("another")),
        Some(Fault::Pending) => altered("/status", json!("pending")),
        _ => respond(status, &answer, false),
    }
}

impl Shared {
    async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let (mut known, mut metadata) = (Vec::new(), Vec::new());
        let mut payment_method = None;
        let (confirm, capture) = (path.ends_with("/confirm"), path.ends_with("/capture"));
        if confirm {
            body.clone_into(&mut self.confirmed.lock().expect("a lock"));
        }
        for part in body.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("payment_method", method)) if confirm => payment_method = Some(method.to_owned()),
                Some(("off_session" | "return_url" | "setup_future_usage", _)) => {}
                Some((name, _)) if name.starts_with("payment_method_options") => {}
                Some((name, _)) if capture && name.starts_with("metadata") => metadata.push(part),
                _ => known.push(part),
            }
        }
        if path == "/v1/payment_methods" {
            known.push("card%5Bcvc%5D=123");
        }
        let intent = path.trim_end_matches("/confirm").trim_end_matches("/capture");
        if let Some(method) = payment_method {
            let (status, _) = self.ask("POST", intent, &format!("payment_method={method}")).await;
            assert_eq!(status, 200, "an update");
        }
        let (status, answer) = self.ask("POST", path, &known.join("&")).await;
        if status == 200 && !metadata.is_empty() {
            self.ask("POST", intent, &metadata.join("&")).await;
            return self.ask("GET", &format!("{intent}?expand%5B%5D=latest_charge"), "").await;
        }
        if status == 400 && (confirm || capture || path.ends_with("/cancel")) {
            return (400, "{\"error\":{\"type\":\"invalid_request_error\",\"code\":\"payment_intent_unexpected_state\"}}".to_owned());
        }
        (status, answer)
    }

    /// Asks localstripe.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("localstripe listens");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localstripe\r\nconnection: close\r\nauthorization: Bearer sk_test_paymesh\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }
}

fn respond(status: u16, body: &str, replayed: bool) -> Response {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if replayed {
        response.headers_mut().insert("idempotent-replayed", "true".parse().expect("a value"));
    }
    response
}
