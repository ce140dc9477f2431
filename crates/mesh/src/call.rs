//! What a node knows of a call besides its message: where it entered, who passed it on, who it is from, how long it may take.
//!
//! Between nodes this travels in headers. They are believed from a connection whose other end has shown a certificate of the region
//! that it says it is; on a listener in plain text, which is for loopback alone, whoever reaches it can set them. The caller's own
//! credential goes along, and every node looks at it by itself (`credential.rs`).

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use paymesh_access::Caller;
use paymesh_contract::Fault;
use paymesh_types::{RegionName, UserId, VaultToken};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    credential,
    methods::{self, Method},
    trail::Trail,
};

/// The regions whose nodes sent the call on, in order, parted by commas. Absent: it comes from a caller.
pub const HOPS_HEADER: &str = "paymesh-hops";

/// The region where the call entered the mesh. The first node to send it on sets it and no other changes it. The
/// last node on the way is shown to be one; what it says of those before it is believed.
pub const ENTRY_REGION_HEADER: &str = "paymesh-entry-region";

/// How often a call is sent on at most. Once is usual; twice while a change of leaders or region-config goes around.
pub const HOPS_MAX: usize = 2;

/// gRPC's own header for the time that is left.
pub(crate) const TIMEOUT_HEADER: &str = "grpc-timeout";

/// Digits of a grpc-timeout at most (PROTOCOL-HTTP2.md, "TimeoutValue").
const TIMEOUT_DIGITS_MAX: usize = 8;

/// A call's way and its deadline. The edge puts it into the request's extensions, where handlers find it.
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) entry_region: RegionName,
    pub(crate) passed: Vec<RegionName>,
    /// Whether an edge of the last of those sent it, and not a node.
    pub(crate) by_edge: bool,
    pub(crate) caller: Caller,
    /// Where it leaves its record. None: it is recorded where it came in, or not at all.
    pub(crate) trail: Option<Trail>,
    /// Why it must not be made, where its headers say so.
    pub(crate) refused: Option<Fault>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) method: Option<&'static Method>,
}

/// Who is at the other end of a call's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sender<'a> {
    /// Nobody knows: the connection is in plain text, and what it says is believed.
    Unproven,
    /// Somebody who is no node.
    Caller,
    /// A node of this region.
    Node(&'a RegionName),
    /// An edge of this region.
    Edge(&'a RegionName),
}

impl Call {
    /// A call that enters the mesh at a node of this region, and is that node's own.
    pub(crate) fn entering(region: &RegionName, path: &str) -> Self {
        Self {
            entry_region: region.clone(),
            passed: Vec::new(),
            by_edge: false,
            caller: Caller::Node(region.clone()),
            trail: None,
            refused: None,
            deadline: None,
            method: methods::method(path),
        }
    }

    /// A call as its headers say it, which reaches a node of `region` from this sender. What they must not say is its refusal.
    pub(crate) fn arrived(region: &RegionName, path: &str, headers: &HeaderMap, sender: Sender<'_>) -> Self {
        Self::arriving(region, path, headers, sender).unwrap_or_else(|fault| Self {
            caller: Caller::Nobody,
            refused: Some(fault),
            ..Self::entering(region, path)
        })
    }

    /// Reads a call's headers.
    fn arriving(region: &RegionName, path: &str, headers: &HeaderMap, sender: Sender<'_>) -> Result<Self, Fault> {
        // Until it is known who.
        let mut call = Self { caller: Caller::Nobody, ..Self::entering(region, path) };
        if let Some(hops) = headers.get(HOPS_HEADER) {
            call.passed = parse_hops(hops)?;
            let claimed = call.passed.last();
            let other = match sender {
                Sender::Unproven => None,
                Sender::Caller => Some("has shown no certificate of a node that holds now".to_owned()),
                Sender::Node(region) if Some(region) == claimed => None,
                // Calls enter the mesh at an edge: there is nobody before it.
                Sender::Edge(region) if call.passed == [region.clone()] => None,
                Sender::Edge(region) => {
                    Some(format!("has shown the certificate of an edge of {region}, which passes on what callers send it"))
                }
                Sender::Node(region) => Some(format!("has shown the certificate of a node of {region}")),
            };
            if let (Some(other), Some(claimed)) = (other, claimed) {
                let message = format!("`{HOPS_HEADER}` says that a node of {claimed} sends this; the other end of the connection {other}");
                return Err(Fault::new(Code::PermissionDenied, "NOT_THAT_NODE", message));
            }
            call.by_edge = matches!(sender, Sender::Edge(_));
            call.entry_region = match (headers.get(ENTRY_REGION_HEADER), sender) {
                // At an edge it entered in the edge's region, whatever that says.
                (Some(_), Sender::Edge(region)) => region.clone(),
                (Some(entry), _) => parse_region(ENTRY_REGION_HEADER, entry)?,
                (None, _) => {
                    return Err(Fault::invalid_field(ENTRY_REGION_HEADER, format!("`{ENTRY_REGION_HEADER}` comes with `{HOPS_HEADER}`")));
                }
            };
        }
        Ok(call)
    }

    /// The region where the call entered the mesh.
    pub fn entry_region(&self) -> &RegionName {
        &self.entry_region
    }

    /// Whether a node or an edge sent the call, rather than a caller.
    pub fn is_from_peer(&self) -> bool {
        !self.passed.is_empty()
    }

    /// The region whose node sent the call: the one at the other end of its connection. None: a caller or an edge did.
    pub fn node(&self) -> Option<&RegionName> {
        self.passed.last().filter(|_| !self.by_edge)
    }

    /// The region whose edge sent the call. None: a caller or a node did.
    pub fn edge(&self) -> Option<&RegionName> {
        self.passed.last().filter(|_| self.by_edge)
    }

    /// Who the call is from, and what it may do.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether who sends a request may see what is about the users of every zone. What was sent inside the node has no caller, and may.
    ///
    /// # Errors
    /// `NOT_YOUR_USERS`.
    pub fn sees_everybody<T>(request: &tonic::Request<T>) -> Result<(), Fault> {
        Self::of(request).map_or(Ok(()), |call| call.caller().acts_for_everybody().map_err(Fault::from))
    }

    /// Notes in the audit log that the call is about these users.
    pub fn is_about(&self, users: impl Iterator<Item = UserId>) {
        if let Some(trail) = &self.trail {
            trail.note(|record| users.for_each(|user| record.subjects.add_user(user)));
        }
    }

    /// Notes in the audit log that the call is about the card that this token stands for.
    pub fn is_about_card(&self, token: &VaultToken) {
        if let Some(trail) = &self.trail {
            trail.note(|record| record.subjects.add_card(token));
        }
    }

    /// When the call ends with DEADLINE_EXCEEDED. None: a stream without a deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Makes `request` a part of this call: the same deadline, the same entry, the same count of hops. To be used by a
    /// handler on what it sends through a [`MeshChannel`](crate::MeshChannel); without it, the request is a new call.
    pub fn carry<T>(&self, request: &mut tonic::Request<T>) {
        request.extensions_mut().insert(self.clone());
    }

    /// What of a request's call context a handler passes on, if it came through the mesh.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// The call as it leaves a node of `region` for another.
    pub(crate) fn write_headers(&self, region: &RegionName, headers: &mut HeaderMap) {
        let passed: Vec<&str> = self.passed.iter().chain([region]).map(RegionName::as_str).collect();
        headers.insert(HOPS_HEADER, name_value(&passed.join(",")));
        headers.insert(ENTRY_REGION_HEADER, name_value(self.entry_region.as_str()));
        credential::write(&self.caller, headers);
    }
}

fn name_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("the names of regions are ASCII letters, digits and underscores")
}

fn parse_region(header: &'static str, value: &HeaderValue) -> Result<RegionName, Fault> {
    let region = value.to_str().ok().and_then(|text| text.parse().ok());
    region.ok_or_else(|| Fault::invalid_field(header, format!("`{header}` is set by nodes only, to names of regions")))
}

fn parse_hops(value: &HeaderValue) -> Result<Vec<RegionName>, Fault> {
    let invalid = || Fault::invalid_field(HOPS_HEADER, format!("`{HOPS_HEADER}` is set by nodes only, to names of regions"));
    let text = value.to_str().map_err(|_| invalid())?;
    // One more than may be, so that too many can be told from the most there may be.
    let regions: Vec<RegionName> = text.split(',').take(HOPS_MAX + 1).map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
    if regions.len() > HOPS_MAX {
        return Err(forwarding_loop(&regions, "was forwarded more often than nodes do"));
    }
    Ok(regions)
}

/// FAILED_PRECONDITION `FORWARDING_LOOP`, naming the regions that passed the call on.
pub(crate) fn forwarding_loop(passed: &[RegionName], problem: &str) -> Fault {
    let way = passed.iter().map(RegionName::as_str).collect::<Vec<_>>().join(" -> ");
    let message = format!("a call that went {way} {problem}: those regions disagree on who leads what, give them the same region-config");
    Fault::new(Code::FailedPrecondition, "FORWARDING_LOOP", message).with_metadata("hops", way)
}

/// The time that a caller gives a call. None: no such header.
pub(crate) fn parse_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(None) };
    let invalid = || Fault::invalid_field(TIMEOUT_HEADER, format!("`{TIMEOUT_HEADER}` is 1 to 8 digits and one of H, M, S, m, u, n"));
    let text = value.to_str().map_err(|_| invalid())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(invalid)?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(invalid());
    }
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(invalid()),
    }))
}

/// The header for the time that is left, rounded down to what eight digits can say.
pub(crate) fn timeout_value(left: Duration) -> HeaderValue {
    const LIMIT: u128 = 10_u128.pow(TIMEOUT_DIGITS_MAX as u32);
    let (number, unit) = [(left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')]
        .into_iter()
        .find(|(number, _)| *number < LIMIT)
        .unwrap_or((LIMIT - 1, 'S'));
    HeaderValue::from_str(&format!("{number}{unit}")).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    fn region(name: &str) -> RegionName {
        name.parse().expect("a region")
    }

    #[test]
    fn a_call_remembers_its_way_over_two_hops() {
        let call = Call::arriving(&region("us_east"), "/x", &HeaderMap::new(), Sender::Unproven).expect("no headers are fine");
        assert!(!call.is_from_peer());
        assert_eq!(call.entry_region(), &region("us_east"));
        let mut sent = HeaderMap::new();
        call.write_headers(&region("us_east"), &mut sent);
        let call = Call::arriving(&region("eu_west"), "/x", &sent, Sender::Unproven).expect("a node's headers");
        assert!(call.is_from_peer());
        call.write_headers(&region("eu_west"), &mut sent);
        assert_eq!([&sent[HOPS_HEADER], &sent[ENTRY_REGION_HEADER]], ["us_east,eu_west", "us_east"]);
    }

    #[test]
    fn who_sends_it_on_is_the_one_that_the_connection_shows() {
        let (here, there, other) = (region("us_east"), region("eu_west"), region("us_west"));
        let mut sent = HeaderMap::new();
        Call::entering(&there, "/x").write_headers(&there, &mut sent);
        for (sender, wanted) in [
            (Sender::Unproven, Ok(())),
            (Sender::Node(&there), Ok(())),
            (Sender::Node(&other), Err("NOT_THAT_NODE")),
            (Sender::Node(&here), Err("NOT_THAT_NODE")),
            (Sender::Caller, Err("NOT_THAT_NODE")),
            (Sender::Edge(&other), Err("NOT_THAT_NODE")),
        ] {
            let call = Call::arriving(&here, "/x", &sent, sender);
            assert_eq!(call.as_ref().map(|_| ()).map_err(|fault| &*fault.reason), wanted, "{sender:?}");
            assert_eq!(call.ok().and_then(|call| call.node().cloned()), wanted.ok().map(|()| there.clone()));
            // Over two hops it is the last that sends it, whoever else it says was on the way.
            let mut twice = HeaderMap::new();
            Call::arriving(
                &there,
                "/x",
                &{
                    let mut first = HeaderMap::new();
                    Call::entering(&other, "/x").write_headers(&other, &mut first);
                    first
                },
                Sender::Unproven,
            )
            .expect("a node's headers")
            .write_headers(&there, &mut twice);
            let call = Call::arriving(&here, "/x", &twice, sender);
            assert_eq!(call.map(|_| ()).map_err(|fault| fault.reason.into_owned()), wanted.map_err(str::to_owned), "{sender:?}");
            // Without what nodes say, it is a call of its own, whoever sends it.
            let call = Call::arriving(&here, "/x", &HeaderMap::new(), sender).expect("no headers are fine");
            assert_eq!(call.node(), None, "{sender:?}");
        }
    }

    #[test]
    fn an_edge_is_the_first_on_a_calls_way_and_no_node() {
        let (here, there) = (region("us_east"), region("eu_west"));
        let mut sent = HeaderMap::new();
        Call::entering(&there, "/x").write_headers(&there, &mut sent);
        let call = Call::arriving(&here, "/x", &sent, Sender::Edge(&there)).expect("an edge's headers");
        assert!(call.is_from_peer() && call.node().is_none());
        assert_eq!((call.edge(), call.entry_region()), (Some(&there), &there));
        let lies = headers(&[(HOPS_HEADER, "eu_west"), (ENTRY_REGION_HEADER, "us_west")]);
        assert_eq!(Call::arriving(&here, "/x", &lies, Sender::Edge(&there)).expect("an edge's headers").entry_region(), &there);
        // What it says of others on the way is not believed.
        for (hops, entry) in
            [("us_west,eu_west", "us_west"), ("us_east,eu_west", "us_east"), ("us_east", "us_east"), ("eu_west,eu_west", "eu_west")]
        {
            let said = headers(&[(HOPS_HEADER, hops), (ENTRY_REGION_HEADER, entry)]);
            let fault = Call::arriving(&here, "/x", &said, Sender::Edge(&there)).expect_err(hops);
            assert_eq!(fault.reason, "NOT_THAT_NODE", "{hops}: {fault}");
        }
    }

    #[test]
    fn headers_that_no_node_sets_are_refused() {
        for (hops, entry, reason) in [
            ("", Some("us_east"), "INVALID_FIELD"),
            ("US", Some("us_east"), "INVALID_FIELD"),
            ("us_east", None, "INVALID_FIELD"),
            ("us_east", Some("!"), "INVALID_FIELD"),
            ("a,b,c", Some("a"), "FORWARDING_LOOP"),
        ] {
            let mut pairs = vec![(HOPS_HEADER, hops)];
            pairs.extend(entry.map(|entry| (ENTRY_REGION_HEADER, entry)));
            let fault = Call::arriving(&region("eu_west"), "/x", &headers(&pairs), Sender::Unproven).expect_err(hops);
            assert_eq!(fault.reason, reason, "{hops}: {fault}");
        }
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, wanted) in
            [("1H", Duration::from_secs(3_600)), ("30S", Duration::from_secs(30)), ("99999999m", Duration::from_millis(99_999_999))]
        {
            assert_eq!(parse_timeout(&headers(&[(TIMEOUT_HEADER, text)])), Ok(Some(wanted)));
        }
        for wrong in ["", "S", "5", "5s", "-5S", "123456789S", "5 S", "5SS"] {
            assert!(parse_timeout(&headers(&[(TIMEOUT_HEADER, wrong)])).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_timeout_sent_on_is_never_longer(left in 0..u64::MAX / 1_000) {
            let left = Duration::from_micros(left);
            let mut sent = HeaderMap::new();
            sent.insert(TIMEOUT_HEADER, timeout_value(left));
            let read = parse_timeout(&sent).expect("what we write we can read").expect("it is there");
            prop_assert!(read <= left);
        }

        #[test]
        fn any_header_gives_a_call_or_a_fault(hops: Vec<u8>, entry: Vec<u8>, timeout: Vec<u8>) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(HOPS_HEADER, hops), (ENTRY_REGION_HEADER, entry), (TIMEOUT_HEADER, timeout)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let _ = Call::arriving(&region("eu_west"), "/x", &headers, Sender::Unproven);
            let _ = parse_timeout(&headers);
        }
    }
}
