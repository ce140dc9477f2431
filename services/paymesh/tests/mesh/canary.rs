//! Personal data stays out of logs and metrics: a value that occurs nowhere else is looked for in both.

use paymesh_contract::{
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    payments::v1::CreatePaymentRequest,
    wallet::v1::{DepositRequest, GetStatementRequest, WithdrawRequest},
};
use uuid::Uuid;

use crate::support::{FOUR_REGIONS, TestMesh, euro, payment};

const CANARY: &str = "canary-5f1c9e";
/// No country, so that it occurs nowhere by chance; refused, which must not make it appear either.
const CANARY_COUNTRY: &str = "QJXZCANARY";

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_is_in_no_log_and_no_metric() {
    let mut mesh = TestMesh::new(FOUR_REGIONS);
    for region in mesh.regions() {
        mesh.spawn_logging(&region, "debug");
    }
    for region in mesh.regions() {
        mesh.wait_ready(&region);
    }
    mesh.enrol("us_east", 10, "DE", 10_000).await;
    mesh.enrol("us_east", 11, "DE", 0).await;
    // Through the home and through a region that forwards; accepted, repeated with another body, and refused.
    for via in &mesh.regions() {
        let id = Uuid::new_v4().to_string();
        for reference in [CANARY.to_owned(), format!("{CANARY} again"), CANARY.repeat(20)] {
            let request = DepositRequest { request_id: id.clone(), user_id: 10, amount: Some(euro(5)), reference: reference.clone() };
            let _ = mesh.wallet(via).deposit(request).await;
            let request = WithdrawRequest {
                request_id: Uuid::new_v4().to_string(),
                user_id: 10,
                amount: Some(euro(5)),
                reference: reference.clone(),
            };
            let _ = mesh.wallet(via).withdraw(request).await;
            let request = CreatePaymentRequest { reference, ..payment(10, 11, 5) };
            let _ = mesh.payments(via).create_payment(request).await;
        }
        let request = EnrollUserRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: 12,
            residence_country: CANARY_COUNTRY.to_owned(),
            currency_codes: vec!["EUR".to_owned()],
        };
        let refused = DirectoryServiceClient::new(mesh.channel(via)).enroll_user(request).await.unwrap_err();
        assert!(!format!("{refused:?}").contains(CANARY_COUNTRY), "an error does not repeat personal data: {refused:?}");
        let request = GetStatementRequest { user_id: 10, currency_code: "EUR".to_owned(), ..GetStatementRequest::default() };
        let statement = mesh.wallet(via).get_statement(request).await.unwrap().into_inner();
        assert!(statement.lines.iter().any(|line| line.reference == CANARY), "the owner sees it");
        assert!(!format!("{statement:?}").contains(CANARY), "a message with personal data does not print it");
    }
    for region in mesh.regions() {
        let (status, metrics) = mesh.http(&region, "/metrics").unwrap();
        assert_eq!(status, 200);
        assert!(!metrics.is_empty(), "{region} has metrics");
        // With its last lines.
        assert!(mesh.stop(&region).success());
        let logs = mesh.logs(&region);
        assert!(!logs.is_empty(), "{region} has a log");
        for canary in [CANARY, CANARY_COUNTRY] {
            for (what, text) in [("metrics", &metrics), ("log", &logs)] {
                let found = text.lines().find(|line| line.contains(canary));
                assert!(found.is_none(), "in the {what} of {region}: {found:?}");
            }
        }
    }
}
