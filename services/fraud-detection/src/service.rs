//! FraudService over a detector, once that is open.

use paymesh_contract::{
    Fault,
    fraud::v1::{
        ExplainRequest, ExplainResponse, ScoreRequest, ScoreResponse, ScoredPayment,
        fraud_service_server::{FraudService, FraudServiceServer},
    },
};
use paymesh_mesh::{Mesh, Worded};
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{Detector, door, error::unavailable, memory::Payment};

/// The service of a detector, for a node's listener. `detector` has it once it is open: until then calls are told to come again.
pub fn service(detector: watch::Receiver<Option<Detector>>, mesh: Mesh) -> Worded<FraudServiceServer<impl FraudService>> {
    Worded(FraudServiceServer::new(Service { detector, mesh }))
}

struct Service {
    detector: watch::Receiver<Option<Detector>>,
    mesh: Mesh,
}

impl Service {
    /// The payment of a request, and the detector that scores it, where it is that of the payer's zone.
    async fn read(&self, payment: Option<&ScoredPayment>) -> Result<(Detector, Payment), Fault> {
        let detector = self.detector.borrow().clone().ok_or_else(|| unavailable("fraud detection is not open".to_owned()))?;
        let payment = door::payment(payment, self.mesh.topology(), detector.zone(), detector.now())?;
        match self.mesh.directory().zone_of(payment.payer).await? {
            Some(zone) if zone == *detector.zone() => Ok((detector, payment)),
            // The mesh brings no such call here; what it does not bring is not a user of this zone.
            _ => {
                let message = format!("user {} is no user of zone {}", payment.payer, detector.zone());
                Err(Fault::not_found("USER_NOT_FOUND", message).with_field("payment.payer_id"))
            }
        }
    }
}

#[tonic::async_trait]
impl FraudService for Service {
    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        let ScoreRequest { request_id, payment } = request.into_inner();
        let request_id = door::request_id(&request_id)?;
        let body = *blake3::hash(&payment.as_ref().map(ScoredPayment::encode_to_vec).unwrap_or_default()).as_bytes();
        let (detector, payment) = self.read(payment.as_ref()).await?;
        let assessment = detector.score(request_id, body, payment).await.map_err(Fault::from)?;
        Ok(Response::new(ScoreResponse { assessment: Some(assessment) }))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let (detector, payment) = self.read(request.get_ref().payment.as_ref()).await?;
        let device_hash = payment.device.map(|device| device.to_vec()).unwrap_or_default();
        let assessment = detector.explain(payment).await.map_err(Fault::from)?;
        Ok(Response::new(ExplainResponse { assessment: Some(assessment), device_hash }))
    }
}
