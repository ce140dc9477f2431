//! Connections to the mesh's regions, and what their errors mean to a client.
//!
//! Every call has a deadline, sent along as `grpc-timeout`; should the node not keep it, the call ends here a little
//! later. Connections are made when first used, and again when they break.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use paymesh_contract::{
    Fault,
    mesh::v1::{GetStatusRequest, GetStatusResponse, mesh_service_client::MeshServiceClient},
    replication::v1::{GetReplicationRequest, GetReplicationResponse, replication_service_client::ReplicationServiceClient},
};
use paymesh_identity::Trust;
use paymesh_topology::Topology;
use paymesh_types::RegionName;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{args::Setting, certs, exit};

/// How long a connection may take to be made: longer than [`THERE_WAIT`], which says better what is wrong.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much longer than the deadline a client waits for the node to say that it has passed.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);
/// Deadline of the questions that a node answers from memory.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);
/// How long a node may take to say that it is there at all: one that is busy says that at once, however long the rest takes.
const THERE_WAIT: Duration = Duration::from_secs(2);
/// How often an idle connection asks whether the other side still lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The mesh as a client sees it.
pub(crate) struct Mesh {
    /// What the configuration says.
    pub(crate) topology: Topology,
    /// Whom it believes. None: it calls in plain text.
    pub(crate) trust: Option<Trust>,
    channels: BTreeMap<RegionName, Channel>,
}

impl Mesh {
    /// Reads the configuration and prepares a connection to every region.
    pub(crate) fn open(setting: &Setting) -> anyhow::Result<Self> {
        let topology = load(&setting.config)?;
        let trust = setting.credentials.as_deref().map(|directory| match certs::of_operator(directory) {
            Some(own) => Trust::load_with_certificate(directory, &own),
            None => Trust::load(directory),
        });
        let trust = trust.transpose().map_err(no_credentials)?;
        let mut channels = BTreeMap::new();
        for region in topology.regions() {
            let endpoint = Endpoint::from_shared(format!("http://{}", region.grpc))
                .map_err(|error| exit::unusable(format!("the gRPC endpoint of {}: {error}", region.name)))?
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .tcp_nodelay(true);
            let channel = match &trust {
                None => endpoint.connect_lazy(),
                Some(trust) => {
                    let connector = trust.connector(region.grpc.host(), region.grpc.port(), CONNECT_TIMEOUT);
                    endpoint.connect_with_connector_lazy(connector)
                }
            };
            channels.insert(region.name.clone(), channel);
        }
        Ok(Self { topology, trust, channels })
    }

    /// The names of all regions, in their order.
    pub(crate) fn regions(&self) -> impl ExactSizeIterator<Item = &RegionName> {
        self.channels.keys()
    }

    /// The names of those that take every call.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &RegionName> {
        self.topology.entries().map(|region| &region.name)
    }

    /// The connection to a region of the configuration.
    pub(crate) fn channel(&self, region: &RegionName) -> Channel {
        self.channels.get(region).expect("every region of the configuration has a channel").clone()
    }

    /// A client of a region's MeshService.
    pub(crate) fn operator(&self, region: &RegionName) -> MeshServiceClient<Channel> {
        MeshServiceClient::new(self.channel(region))
    }

    /// Asks a region for its state.
    pub(crate) async fn status(&self, region: &RegionName) -> Result<GetStatusResponse, Status> {
        let mut client = self.operator(region);
        let answer = call(STATUS_DEADLINE, GetStatusRequest {}, async |request| client.get_status(request).await);
        self.if_there(region, answer).await
    }

    /// Asks a region how its copies and its followers are.
    pub(crate) async fn replication(&self, region: &RegionName) -> Result<GetReplicationResponse, Status> {
        let mut client = ReplicationServiceClient::new(self.channel(region));
        let answer = call(STATUS_DEADLINE, GetReplicationRequest {}, async |request| client.get_replication(request).await);
        self.if_there(region, answer).await
    }

    /// Whether a region's node is there; an error where nothing comes from it for [`THERE_WAIT`].
    pub(crate) async fn there(&self, region: &RegionName) -> Result<(), Status> {
        let mut client = HealthClient::new(self.channel(region));
        let asked = client.check(HealthCheckRequest::default());
        match tokio::time::timeout(THERE_WAIT, asked).await {
            Ok(Err(status)) if is_broken_connection(&status) => Err(status),
            // Whatever it says, it says something.
            Ok(_) => Ok(()),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "nothing has come from it for {} s: look whether its process runs and is not stopped, and whether its network is up",
                THERE_WAIT.as_secs()
            ))),
        }
    }

    /// The answer; or that the node is not there, without waiting for the answer's deadline.
    async fn if_there<T>(&self, region: &RegionName, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let gone = async {
            match self.there(region).await {
                Ok(()) => std::future::pending().await,
                Err(status) => status,
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            status = gone => Err(status),
        }
    }

    /// Asks every region for its state, all at the same time.
    pub(crate) async fn statuses(&self) -> BTreeMap<RegionName, Result<GetStatusResponse, Status>> {
        let asked = self.regions().map(async |region| (region.clone(), self.status(region).await));
        futures::future::join_all(asked).await.into_iter().collect()
    }

    /// Asks every region how its copies and its followers are, all at the same time.
    pub(crate) async fn replications(&self) -> BTreeMap<RegionName, Result<GetReplicationResponse, Status>> {
        let asked = self.regions().map(async |region| (region.clone(), self.replication(region).await));
        futures::future::join_all(asked).await.into_iter().collect()
    }
}

/// Reads the configuration.
pub(crate) fn load(config: &Path) -> anyhow::Result<Topology> {
    Topology::load(config).map_err(exit::unusable)
}

/// Makes a call that ends within `deadline`, give or take [`DEADLINE_GRACE`].
pub(crate) async fn call<M, R>(
    deadline: Duration,
    message: M,
    send: impl AsyncFnOnce(Request<M>) -> Result<Response<R>, Status>,
) -> Result<R, Status> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    match tokio::time::timeout(deadline + DEADLINE_GRACE, send(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} ms", deadline.as_millis()))),
    }
}

/// Whether a write that ended so may be sent again with the same request id. What a node refused for good is not; what
/// may or may not have been done (a broken connection, a deadline) is, because the request id makes it happen once.
pub(crate) fn is_retryable(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        || is_broken_connection(status)
        || retry_after(status).is_some()
}

/// Whether a node said so, rather than nobody.
pub(crate) fn is_answer(status: &Status) -> bool {
    let unsaid = status.code() == Code::DeadlineExceeded && status.details().is_empty();
    is_turned_away(status) || (!is_broken_connection(status) && !unsaid)
}

/// Whether a node does not like the certificate that it was shown.
fn is_turned_away(status: &Status) -> bool {
    is_broken_connection(status) && innermost(status).contains(ALERT)
}

/// Whether the error was made here because the connection failed, and not sent by a node.
fn is_broken_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// What rustls says when the other end does not like the handshake.
const ALERT: &str = "received fatal alert";

fn innermost(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// What the connection ended with, in the words of who found it, and what to do where that says so.
fn broken_by(status: &Status) -> String {
    let cause = innermost(status);
    // Said by rustls of what is no TLS, and by h2 of what is.
    let advice = if cause.contains("InvalidContentType") {
        "; it speaks plain text: add --plain-text"
    } else if cause.contains("frame with invalid size") || cause.contains("http2 error") {
        "; it may speak TLS: leave --plain-text out, and give its --credentials where they are not in ./credentials"
    } else if cause.contains(ALERT) {
        "; the node is there, and does not believe the certificate in --credentials: it has ended, or its authority was taken out"
    } else if cause.contains("invalid peer certificate") {
        "; it is not the node that --credentials and region-config say, or its certificate is of another authority"
    } else {
        ""
    };
    format!("{cause}{advice}")
}

/// How long the node asks to wait before another try.
pub(crate) fn retry_after(status: &Status) -> Option<Duration> {
    Fault::from_status(status).retry_after
}

/// The error for a person: its reason, what happened, and the field at fault.
pub(crate) fn explain(status: &Status) -> String {
    if is_broken_connection(status) {
        // tonic's own timer ends a call with this code; see `call`.
        if status.code() == Code::Cancelled {
            return "no answer within the deadline".to_owned();
        }
        if is_turned_away(status) {
            return broken_by(status);
        }
        return format!("the node does not answer: {}", broken_by(status));
    }
    if status.code() == Code::DeadlineExceeded && status.details().is_empty() {
        // Said here, of a node that said nothing.
        return status.message().to_owned();
    }
    let fault = Fault::from_status(status);
    match &fault.field {
        Some(field) => format!("{fault} ({field})"),
        None => fault.to_string(),
    }
}

fn no_credentials(error: paymesh_identity::Error) -> anyhow::Error {
    exit::unusable(format!(
        "{error}; `paymesh up` makes credentials where it is run, --credentials names another directory, and a mesh in plain text is \
         called with --plain-text"
    ))
}

/// Microseconds since 1970, as a seed for the jitter of retries: it needs to differ, not to be secret.
pub(crate) fn jitter_seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_refused_for_good_is_not_sent_again() {
        assert!(!is_retryable(&Status::invalid_argument("no")));
        assert!(!is_retryable(&Status::already_exists("no")));
        assert!(is_retryable(&Status::unavailable("later")));
        assert!(is_retryable(&Status::deadline_exceeded("later")));
        let busy = Status::from(Fault::new(Code::ResourceExhausted, "BUSY", "later").with_retry(Duration::from_millis(30)));
        assert!(is_retryable(&busy));
        assert_eq!(retry_after(&busy), Some(Duration::from_millis(30)));
    }

    #[test]
    fn an_error_names_its_reason_and_its_field() {
        let status = Status::from(Fault::invalid_field("amount.currency_code", "a currency is an ISO 4217 code such as EUR"));
        assert_eq!(explain(&status), "INVALID_FIELD: a currency is an ISO 4217 code such as EUR (amount.currency_code)");
    }
}
