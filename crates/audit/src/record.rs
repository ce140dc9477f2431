//! What is recorded of a call, and how it becomes the contract's message.
//!
//! Nothing here is a word that a caller may choose freely: methods and scopes are the contract's, ids are ids, and what a token says of its
//! holder was verified by whoever makes a [`Caller::Token`]. What has no bound elsewhere is cut here.

use std::{borrow::Cow, cell::RefCell, net::SocketAddr, sync::Arc, time::Duration};

use paymesh_contract::{
    MethodPolicy,
    audit::v1::{self as audit, AuditRecord, CallerKind, LogNote, log_note::Event},
};
use paymesh_types::{PaymentId, RegionName, RequestId, Timestamp, UserId, VaultToken};
use prost::Message as _;
use tonic::Code;

/// Users, payments and cards that a record lists at most, together; of more, it has the first and their number.
pub const SUBJECTS_MAX: usize = 32;
/// Bytes of a name at most: of a principal, an issuer, a token's id, an error's reason.
const TEXT_BYTES_MAX: usize = 128;
/// Bytes of a problem with the log at most, in a note.
const PROBLEM_BYTES_MAX: usize = 1_024;

/// A call, as it is known before it has ended. Cheap to make, and nothing is copied out of what it refers to before it is written.
#[derive(Debug, Clone)]
pub struct Record {
    /// When the call reached the node.
    pub at: Timestamp,
    /// Who calls.
    pub caller: Caller,
    /// The method and the scopes that it needs; `None` for what is not in the contract.
    pub method: Option<&'static MethodPolicy>,
    /// Where the call entered the mesh.
    pub entry_region: Option<RegionName>,
    /// The region whose edge sent it, by the certificate of its connection.
    pub edge_region: Option<RegionName>,
    /// The connection's other end.
    pub peer: Option<SocketAddr>,
    /// Whose money or data it is about.
    pub subjects: Subjects,
    /// The call's request id.
    pub request_id: Option<RequestId>,
}

impl Record {
    /// Of a call that reached the node then; what else is known of it is set afterwards.
    pub fn new(at: Timestamp, caller: Caller, method: Option<&'static MethodPolicy>) -> Self {
        Self { at, caller, method, entry_region: None, edge_region: None, peer: None, subjects: Subjects::default(), request_id: None }
    }
}

/// Who calls, as far as was proven.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The holder of a token that was verified.
    Token(Arc<Token>),
    /// The principal that a client certificate stands for.
    Certificate(Arc<str>),
    /// The node of this region, by its certificate.
    Node(RegionName),
    /// An edge of this region, by its certificate.
    Edge(RegionName),
    /// Nobody: nothing was shown, or nothing that holds.
    Anonymous,
    /// Whoever reaches a listener in plain text.
    PlainText,
}

/// What a verified token says. Made once for each token, and shared by the records of all calls with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Token {
    /// The principal that it stands for.
    pub principal: String,
    /// Who issued it.
    pub issuer: String,
    /// Its own id (`jti`); empty where it has none.
    pub id: String,
}

/// Whose money or data a call is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subjects {
    users: Vec<UserId>,
    payments: Vec<PaymentId>,
    cards: Vec<VaultToken>,
    count: u64,
}

impl Subjects {
    /// Adds a user.
    pub fn add_user(&mut self, user: UserId) {
        if self.has_room() {
            self.users.push(user);
        }
        self.count += 1;
    }

    /// Adds a payment.
    pub fn add_payment(&mut self, payment: &PaymentId) {
        if self.has_room() {
            self.payments.push(payment.clone());
        }
        self.count += 1;
    }

    /// Adds a card, by the token that stands for it.
    pub fn add_card(&mut self, token: &VaultToken) {
        if self.has_room() {
            self.cards.push(token.clone());
        }
        self.count += 1;
    }

    fn has_room(&self) -> bool {
        self.users.len() + self.payments.len() + self.cards.len() < SUBJECTS_MAX
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its code.
    pub code: Code,
    /// The reason of an error; empty where there is none. What is not in the form of the contract's reasons is left out.
    pub reason: Cow<'static, str>,
    /// How long it took, to the last byte of its answer.
    pub took: Duration,
}

impl Outcome {
    /// An outcome.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>, took: Duration) -> Self {
        Self { code, reason: reason.into(), took }
    }
}

/// Encodes a record and hands its bytes on. What is needed for it is kept by the thread: nothing is allocated.
pub(crate) fn with_bytes<T>(record: &Record, outcome: &Outcome, take: impl FnOnce(&[u8]) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<(AuditRecord, Vec<u8>)> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|(message, bytes)| {
        fill(message, record, outcome);
        bytes.clear();
        message.encode(bytes).expect("a vector grows");
        take(bytes)
    })
}

/// A record of the log itself, as it is stored.
pub(crate) fn note_bytes(at: Timestamp, event: Event) -> Vec<u8> {
    AuditRecord { at_us: at.0, note: Some(LogNote { event: Some(event) }), ..AuditRecord::default() }.encode_to_vec()
}

/// A problem as it is told in notes: bounded.
pub(crate) fn problem_text(what: &str) -> String {
    what[..what.floor_char_boundary(PROBLEM_BYTES_MAX)].to_owned()
}

/// Makes the message say what the record says, in the memory that it has.
fn fill(message: &mut AuditRecord, record: &Record, outcome: &Outcome) {
    message.at_us = record.at.0;
    let caller = message.caller.get_or_insert_default();
    let (kind, principal, issuer, token_id) = match &record.caller {
        Caller::Token(token) => (CallerKind::Token, &*token.principal, &*token.issuer, &*token.id),
        Caller::Certificate(principal) => (CallerKind::Certificate, &**principal, "", ""),
        Caller::Node(region) => (CallerKind::Node, region.as_str(), "", ""),
        Caller::Edge(region) => (CallerKind::Edge, region.as_str(), "", ""),
        Caller::Anonymous => (CallerKind::Anonymous, "", "", ""),
        Caller::PlainText => (CallerKind::PlainText, "", "", ""),
    };
    caller.set_kind(kind);
    set(&mut caller.principal, principal);
    set(&mut caller.issuer, issuer);
    set(&mut caller.token_id, token_id);
    set(&mut message.method, record.method.map_or("", |method| &method.path));
    set_all(&mut message.scopes, record.method.map_or(&[][..], |method| &method.scopes), |into, scope| into.push_str(scope));
    set(&mut message.entry_region, record.entry_region.as_ref().map_or("", RegionName::as_str));
    set(&mut message.edge_region, record.edge_region.as_ref().map_or("", RegionName::as_str));
    message.peer_address.clear();
    if let Some(peer) = record.peer {
        show(&mut message.peer_address, &peer);
    }
    let Subjects { users, payments, cards, count } = &record.subjects;
    if *count == 0 {
        message.subjects = None;
    } else {
        let subjects: &mut audit::Subjects = message.subjects.get_or_insert_default();
        subjects.user_ids.clear();
        subjects.user_ids.extend(users.iter().map(|user| user.get()));
        set_all(&mut subjects.payment_ids, payments, show);
        set_all(&mut subjects.vault_tokens, cards, show);
        subjects.count = *count;
    }
    message.request_id.clear();
    if let Some(request_id) = &record.request_id {
        message.request_id.extend_from_slice(request_id.as_bytes());
    }
    message.code = outcome.code as i32;
    let is_reason = outcome.reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    set(&mut message.reason, if is_reason { &outcome.reason } else { "" });
    message.duration_us = u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX);
}

fn set(into: &mut String, text: &str) {
    into.clear();
    into.push_str(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
}

fn show(into: &mut String, what: &impl std::fmt::Display) {
    use std::fmt::Write as _;
    write!(into, "{what}").expect("a text grows");
}

/// Makes a list of texts say these, in the memory that it has.
fn set_all<T>(into: &mut Vec<String>, from: &[T], write: impl Fn(&mut String, &T)) {
    into.resize_with(from.len(), String::new);
    for (text, each) in into.iter_mut().zip(from) {
        text.clear();
        write(text, each);
    }
}

#[cfg(test)]
mod tests {
    use paymesh_contract::policies;

    use super::*;
    use crate::format::RECORD_BYTES_MAX;

    fn decoded(record: &Record, outcome: &Outcome) -> AuditRecord {
        with_bytes(record, outcome, |bytes| AuditRecord::decode(bytes).expect("what was encoded decodes"))
    }

    /// The largest record that there is, but for its scopes.
    fn largest() -> (Record, Outcome) {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        let mut subjects = Subjects::default();
        let zone = "z".repeat(32);
        for number in 0..10_000 {
            let payment: PaymentId = format!("pay_{zone}_65535_{max}_{max}", max = i64::MAX).parse().expect("a payment id");
            if number % 2 == 0 {
                subjects.add_payment(&payment)
            } else {
                subjects.add_user(UserId::try_from(i64::MAX as u64).expect("a user"))
            }
        }
        let record = Record {
            at: Timestamp(u64::MAX),
            caller: Caller::Token(Arc::new(Token { principal: long.clone(), issuer: long.clone(), id: long })),
            method: policies().method("/paymesh.payments.v1.PaymentService/CreatePaymentBatch").or_else(|| policies().methods().next()),
            entry_region: Some("r".repeat(32).parse().expect("a region")),
            edge_region: Some("e".repeat(32).parse().expect("a region")),
            peer: Some("[1111:2222:3333:4444:5555:6666:7777:8888]:65535".parse().expect("an address")),
            subjects,
            request_id: Some("0190b8f5-0000-7000-8000-000000000001".parse().expect("a request id")),
        };
        (record, Outcome::new(Code::Unauthenticated, "R".repeat(200), Duration::MAX))
    }

    #[test]
    fn a_record_has_a_bound_whatever_it_is_made_of() {
        let (record, outcome) = largest();
        let message = decoded(&record, &outcome);
        assert!(message.encoded_len() < RECORD_BYTES_MAX / 2, "{} bytes", message.encoded_len());
        let subjects = message.subjects.expect("there are subjects");
        assert_eq!((subjects.user_ids.len() + subjects.payment_ids.len(), subjects.count), (SUBJECTS_MAX, 10_000));
        let caller = message.caller.expect("there is a caller");
        assert!([&caller.principal, &caller.issuer, &caller.token_id].into_iter().all(|text| text.len() == TEXT_BYTES_MAX), "{caller:?}");
        assert_eq!(message.duration_us, u64::MAX);
    }

    #[test]
    fn nothing_of_one_record_is_left_in_the_next() {
        let (record, outcome) = largest();
        decoded(&record, &outcome);
        let plain = Record::new(Timestamp(7), Caller::PlainText, None);
        let wanted = AuditRecord {
            at_us: 7,
            caller: Some(audit::Caller { kind: CallerKind::PlainText.into(), ..audit::Caller::default() }),
            ..AuditRecord::default()
        };
        assert_eq!(decoded(&plain, &Outcome::new(Code::Ok, "", Duration::ZERO)), wanted);
    }

    #[test]
    fn a_reason_that_is_in_nobodys_contract_is_left_out() {
        let record = Record::new(Timestamp(7), Caller::Anonymous, None);
        for (reason, kept) in [("USER_NOT_FOUND", true), ("Anna Schmidt, Berlin", false), ("user_not_found", false)] {
            let message = decoded(&record, &Outcome::new(Code::NotFound, reason, Duration::ZERO));
            assert_eq!(message.reason, if kept { reason } else { "" });
        }
    }
}
