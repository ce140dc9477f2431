use super::*;

fn round_trip(fault: &Fault) -> Fault {
    Fault::from_status(&Status::from(fault.clone()))
}

#[test]
fn a_fault_survives_the_way_to_the_caller() {
    let table = [
        Fault::invalid_field("amount.currency_code", "a currency is an ISO 4217 code such as EUR"),
        Fault::not_found("USER_NOT_FOUND", "user 7 is not enrolled"),
        Fault::unavailable("PEER_UNAVAILABLE", "region eu_west does not answer", Duration::from_millis(250)),
        Fault::new(Code::AlreadyExists, "REQUEST_ID_REUSED", "the request id was used with another body").with_field("amount"),
        Fault::new(Code::OutOfRange, "AMOUNT_OUT_OF_RANGE", "too much").with_field("amount").with_metadata("bound", "1000"),
        Fault::new(Code::Internal, "", ""),
    ];
    for fault in table {
        assert_eq!(round_trip(&fault), fault);
    }
}

#[test]
fn a_status_carries_the_details_of_google_rpc() {
    let status =
        Status::from(Fault::invalid_field("payer_id", "a user id is not zero").with_retry(Duration::from_secs(1)).with_metadata("a", "b"));
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "a user id is not zero"));
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", "paymesh"));
    assert_eq!(info.metadata.get("a").map(String::as_str), Some("b"));
    let violations = &details.bad_request().expect("BadRequest").field_violations;
    assert_eq!((violations[0].field.as_str(), violations[0].description.as_str()), ("payer_id", "a user id is not zero"));
    assert_eq!(details.retry_info().and_then(|retry| retry.retry_delay), Some(Duration::from_secs(1)));
}

#[test]
fn the_field_of_a_reused_request_id_is_metadata() {
    let status = Status::from(Fault::new(Code::AlreadyExists, "REQUEST_ID_REUSED", "another body").with_field("amount"));
    let details = status.get_error_details();
    assert!(details.bad_request().is_none());
    assert_eq!(details.error_info().and_then(|info| info.metadata.get("field")).map(String::as_str), Some("amount"));
}

#[test]
fn retry_info_is_there_only_where_a_retry_is_safe() {
    assert!(Status::from(Fault::not_found("A", "b")).get_error_details().retry_info().is_none());
}

#[test]
fn a_status_of_another_making_gets_its_code_as_reason() {
    let fault = Fault::from_status(&Status::unavailable("tcp connect error"));
    assert_eq!(fault, Fault::new(Code::Unavailable, "UNAVAILABLE", "tcp connect error"));

    let foreign = Status::with_error_details(Code::NotFound, "x", ErrorDetails::with_error_info("THEIRS", "example.com", HashMap::new()));
    assert_eq!(Fault::from_status(&foreign).reason, "NOT_FOUND");

    let garbage = Status::with_details(Code::Aborted, "x", vec![0xff; 40].into());
    assert_eq!(Fault::from_status(&garbage).reason, "ABORTED");
}

#[test]
fn an_item_error_says_the_same() {
    let item = ItemError::from(Fault::unavailable("SHARD_OVERLOADED", "full", Duration::from_millis(40)).with_field("payments"));
    let expected = ItemError {
        code: 14,
        reason: "SHARD_OVERLOADED".to_owned(),
        message: "full".to_owned(),
        field: "payments".to_owned(),
        retry_after_ms: Some(40),
    };
    assert_eq!(item, expected);
    let reused = Fault::new(Code::AlreadyExists, "REQUEST_ID_REUSED", "another body").with_metadata("field", "amount");
    let item = ItemError::from(reused);
    assert_eq!((item.field.as_str(), item.retry_after_ms), ("amount", None));
}

#[test]
fn a_field_is_seen_from_the_message_around_it() {
    let fault = Fault::invalid_field("currency_code", "no").under("amount").under("payments[3]");
    assert_eq!(fault.field.as_deref(), Some("payments[3].amount.currency_code"));
    assert_eq!(Fault::not_found("A", "b").under("payer_id").field.as_deref(), Some("payer_id"));
}

/// Common HTTP/2 stacks take 8 KiB of trailers; a status beyond it reaches the caller as a broken stream.
#[test]
fn however_long_its_texts_a_status_fits_in_trailers() {
    const TRAILER_BYTES_MAX: usize = 8 * 1_024;
    let long = "ä".repeat(10_000);
    let mut fault = Fault::new(Code::InvalidArgument, long.clone(), long.clone()).with_field(long.clone()).with_retry(Duration::MAX);
    for index in 0..100 {
        fault = fault.with_metadata(format!("{index}{long}"), long.clone());
    }
    let item = ItemError::from(fault.clone());
    assert!(item.message.len() <= FAULT_MESSAGE_BYTES_MAX && item.reason.len() <= FAULT_TEXT_BYTES_MAX);

    let headers = Status::from(fault).into_http::<()>().into_parts().0.headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes <= TRAILER_BYTES_MAX, "{bytes}");
}
