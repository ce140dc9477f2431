//! The client: tries, pauses and deadlines.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use paymesh_contract::{
    Fault, code_name,
    common::v1::ReadLevel,
    payments::v1::{GetRequestOutcomeRequest, GetRequestOutcomeResponse},
};
use paymesh_identity::Trust;
use tokio::time::Instant;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    Call, Error, Session,
    budget::Budget,
    calls::{go_home, name},
    token::{Shown, Token},
};

/// Reasons that say that the call was turned away before anything was done.
const NOTHING_DONE: [&str; 6] =
    ["NODE_STARTING", "NODE_OVERLOADED", "PEER_OVERLOADED", "PEER_SILENT", "SHARD_OVERLOADED", "SHARD_HISTORY_MISSING"];
/// How long a connection may take to be made.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// Where `https` is, unless the endpoint says otherwise.
const HTTPS_PORT: u16 = 443;
/// How often a connection with calls in flight is asked whether its other end lives, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How much longer than its deadline a try is waited for: the node says better what it came to.
const GRACE: Duration = Duration::from_millis(100);
/// Between tries, at first and at most; each is made up to half shorter by chance.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The bounds of each call.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a call may take, all its tries together.
    pub call_timeout: Duration,
    /// How long one try may take.
    pub try_timeout: Duration,
    /// How long a copy may take to come to what the session has seen; then the home is asked.
    pub local_timeout: Duration,
    /// Tries at most.
    pub tries_max: u32,
    /// The authorities that are believed at `https` endpoints. Without it, there are none that can be called.
    pub trust: Option<Trust>,
    /// What each call shows of its caller. Without it, `trust` may have a certificate that does.
    pub token: Option<Token>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(15),
            try_timeout: Duration::from_secs(5),
            local_timeout: Duration::from_secs(1),
            tries_max: 6,
            trust: None,
            token: None,
        }
    }
}

/// The nodes of a region, or the load balancer before them. Cheap to clone; all clones share connections and retry budget.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channels: Vec<Channel>,
    next: AtomicUsize,
    budget: Budget,
    shown: Shown,
    options: Options,
}

impl Client {
    /// A client of these endpoints, such as `https://payments.example:443`, or `http://127.0.0.1:7101` of a node in plain text: calls go to one after the other. Connections are made when first
    /// needed. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::NoEndpoints`], [`Error::Endpoint`].
    pub fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>, options: Options) -> Result<Self, Error> {
        let channels = endpoints.into_iter().map(|endpoint| channel(endpoint.into(), options.trust.as_ref()));
        let channels = channels.collect::<Result<Vec<_>, Error>>()?;
        if channels.is_empty() {
            return Err(Error::NoEndpoints);
        }
        Ok(Self {
            inner: Arc::new(Inner { channels, next: AtomicUsize::new(0), budget: Budget::default(), shown: Shown::default(), options }),
        })
    }

    /// Makes a call, and has the session know of it. A write without a request id gets one. A read that does not say how old its answer
    /// may be has at least what the session has seen.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Unknown`] of a write that may have had its effect.
    pub async fn call<C: Call>(&self, session: &Session, mut call: C) -> Result<C::Answer, Error> {
        let options = &self.inner.options;
        let request_id = name(&mut call);
        if let Some(read) = call.read() {
            read.get_or_insert_with(|| session.read());
        }
        self.inner.budget.earn();
        let deadline = Instant::now() + options.call_timeout;
        let mut place = self.inner.next.fetch_add(1, Relaxed);
        let mut tries = 1;
        // Whether a try before may have had its effect, or may have it yet.
        let mut doubtful = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let token = match &options.token {
                Some(token) => Some(self.inner.shown.now(token).await?),
                None => None,
            };
            let fault = match self.attempt(&call, place, left, token).await {
                Ok(answer) => {
                    if let Some(position) = C::position(&answer) {
                        session.note(position);
                    }
                    return Ok(answer);
                }
                Err(status) => Fault::from_status(&status),
            };
            if !may_be_tried_again(&fault) {
                return Err(match request_id {
                    Some(request_id) if doubtful => Error::Unknown { request_id, fault: Box::new(fault) },
                    _ => Error::Refused(Box::new(fault)),
                });
            }
            doubtful |= !NOTHING_DONE.contains(&&*fault.reason);
            let behind = fault.reason == "REPLICA_BEHIND";
            let pause = if behind { Duration::ZERO } else { pause(tries, fault.retry_after) };
            let in_time = Instant::now() + pause < deadline && tries < options.tries_max;
            if !in_time || !self.inner.budget.spend() {
                let fault = Box::new(fault);
                return Err(match request_id {
                    Some(request_id) if doubtful => Error::Unknown { request_id, fault },
                    _ => Error::Refused(fault),
                });
            }
            if behind || matches!(fault.code, Code::DeadlineExceeded | Code::Cancelled) {
                // Near by there was too little time for it.
                go_home(&mut call);
            }
            if !behind {
                place += 1;
            }
            tokio::time::sleep(pause).await;
            tries += 1;
        }
    }

    /// What became of a write; `None`: nothing is recorded of it, and once its last deadline has passed, nothing will be. Outcomes are
    /// kept for the mesh's outcome retention, a day at least: `None` for an older write says nothing. Always answered by the user's
    /// home.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn outcome(&self, session: &Session, user_id: u64, request_id: String) -> Result<Option<GetRequestOutcomeResponse>, Error> {
        match self.call(session, GetRequestOutcomeRequest { user_id, request_id }).await {
            Ok(outcome) => Ok(Some(outcome)),
            Err(Error::Refused(fault)) if fault.reason == "REQUEST_NOT_FOUND" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn attempt<C: Call>(
        &self,
        call: &C,
        place: usize,
        left: Duration,
        token: Option<MetadataValue<Ascii>>,
    ) -> Result<C::Answer, Status> {
        let Inner { channels, options, .. } = &*self.inner;
        let mut call = call.clone();
        let local = call.read().and_then(|read| read.as_ref()).is_some_and(|read| read.level() == ReadLevel::Local);
        let limit = if local { options.local_timeout } else { options.try_timeout }.min(left);
        let mut request = Request::new(call);
        request.set_timeout(limit);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let channel = channels[place % channels.len()].clone();
        match tokio::time::timeout(limit + GRACE, C::send(request, channel)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} ms", limit.as_millis()))),
        }
    }
}

/// The connection to an endpoint, made when first needed.
fn channel(endpoint: String, trust: Option<&Trust>) -> Result<Channel, Error> {
    let secured = endpoint.strip_prefix("https://").map(|place| format!("http://{place}"));
    if secured.is_some() && trust.is_none() {
        return Err(Error::NoTrust { endpoint });
    }
    // tonic's own connector would refuse `https`; ours makes the same of either.
    let dialled = Endpoint::from_shared(secured.clone().unwrap_or_else(|| endpoint.clone()));
    let dialled = dialled.map_err(|source| Error::Endpoint { endpoint, source })?;
    let dialled = dialled.connect_timeout(CONNECT_WAIT_MAX).tcp_nodelay(true);
    let dialled = dialled.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    Ok(match trust.filter(|_| secured.is_some()) {
        None => dialled.connect_lazy(),
        Some(trust) => {
            let host = dialled.uri().host().unwrap_or_default().trim_matches(['[', ']']);
            let connector = trust.connector(host, dialled.uri().port_u16().unwrap_or(HTTPS_PORT), CONNECT_WAIT_MAX);
            dialled.connect_with_connector_lazy(connector)
        }
    })
}

/// Whether another try may end otherwise. Every write has an id, so that one that was done is not done again.
fn may_be_tried_again(fault: &Fault) -> bool {
    // What has no reason of ours, the code's name standing for it, came from the transport or from a proxy: it says nothing of what
    // was done. tonic's own timer says CANCELLED, and a broken stream any of these.
    let by_transport = matches!(fault.code, Code::Unknown | Code::Internal | Code::ResourceExhausted | Code::Aborted | Code::DataLoss)
        && fault.reason == code_name(fault.code);
    matches!(fault.code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) || fault.retry_after.is_some() || by_transport
}

/// The pause before the next try: twice the one before, or what the node asks for.
fn pause(tries: u32, asked: Option<Duration>) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1 << (tries - 1).min(16)).min(PAUSE_MAX);
    let whole = doubled.max(asked.unwrap_or_default());
    rand::random_range(whole / 2..=whole)
}
