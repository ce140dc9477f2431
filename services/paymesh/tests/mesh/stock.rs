//! What stock clients and load balancers ask any gRPC server: which services there are, and whether it is well.

use paymesh_contract::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{ONE_REGION, TestMesh};

const REGION: &str = "eu_west";

/// Both versions of the protocol have the same messages under other names.
macro_rules! reflect {
    ($version:ident, $channel:expr, $request:expr) => {{
        use $version::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};
        let request = ServerReflectionRequest { host: String::new(), message_request: Some($request) };
        let mut client = ServerReflectionClient::new($channel);
        let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_the_whole_contract_in_both_versions() {
    let mesh = TestMesh::started(ONE_REGION);
    let contract = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let ours: Vec<String> = contract
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| format!("{}.{}", file.package(), service.name())))
        .collect();
    assert!(ours.len() >= 5, "{ours:?}");

    use v1::{server_reflection_request::MessageRequest, server_reflection_response::MessageResponse};
    let MessageResponse::ListServicesResponse(list) = reflect!(v1, mesh.channel(REGION), MessageRequest::ListServices(String::new()))
    else {
        panic!("not a list")
    };
    // Each version names itself besides.
    let own = |name: &str| name.starts_with("grpc.reflection.");
    let listed: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).filter(|name| !own(name)).collect();
    assert!(listed.contains(&"grpc.health.v1.Health"), "{listed:?}");
    for service in &ours {
        assert!(listed.contains(&service.as_str()), "{service} is not among {listed:?}");
        let request = MessageRequest::FileContainingSymbol(service.clone());
        let MessageResponse::FileDescriptorResponse(files) = reflect!(v1, mesh.channel(REGION), request) else { panic!("{service}") };
        let file = FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
        assert!(file.service.iter().any(|found| service.ends_with(found.name())), "{service} is not in {}", file.name());
    }

    use v1alpha::{server_reflection_request::MessageRequest as Older, server_reflection_response::MessageResponse as OlderResponse};
    let OlderResponse::ListServicesResponse(older) = reflect!(v1alpha, mesh.channel(REGION), Older::ListServices(String::new())) else {
        panic!("not a list")
    };
    let older: Vec<&str> = older.service.iter().map(|service| service.name.as_str()).filter(|name| !own(name)).collect();
    assert_eq!(older, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_health_service_answers_for_the_node() {
    let mesh = TestMesh::started(ONE_REGION);
    let mut health = HealthClient::new(mesh.channel(REGION));
    let answer = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let unknown = health.check(HealthCheckRequest { service: "paymesh.none.v1.None".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    // A watcher, as a load balancer is one, hears that the node leaves before it is gone.
    let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    mesh.signal(REGION, "TERM");
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}
