//! gRPC's own health service: the empty name is the server.

use std::time::Duration;

use etcd_api::health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::caller::Caller;
use super::grpc::{Answer, Channel, Reply, message};
use super::status::{Code, Status};
use crate::server::EtcdServer;

/// A leader that is gone is noticed by watchers this soon.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

fn serving(server: &EtcdServer) -> ServingStatus {
    match server.leader() {
        0 => ServingStatus::NotServing,
        _ => ServingStatus::Serving,
    }
}

fn response(status: ServingStatus) -> Answer {
    message(&HealthCheckResponse {
        status: status as i32,
    })
}

pub async fn check(server: Caller, request: HealthCheckRequest) -> Answer {
    match request.service.is_empty() {
        true => response(serving(&server)),
        false => Err(Status::new(Code::NotFound, "unknown service")),
    }
}

/// The status now, and again whenever it is another. A service that is not known could still come, says the protocol.
pub async fn watch(server: Caller, request: HealthCheckRequest) -> Answer {
    let (sender, body) = Channel::open(1);
    let known = request.service.is_empty();
    tokio::spawn(async move {
        let mut told = None;
        loop {
            let status = match known {
                true => serving(&server),
                false => ServingStatus::ServiceUnknown,
            };
            if told != Some(status) {
                told = Some(status);
                let Ok(Reply::Message(frame)) = response(status) else {
                    return;
                };
                if sender.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    });
    Ok(Reply::Stream(body))
}
