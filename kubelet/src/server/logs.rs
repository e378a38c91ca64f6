//! `/containerLogs`.

use bytes::Bytes;
use component_base::http as reply;
use component_base::http::{Body, BoxError};
use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::{Server, query_bool, query_value};
use crate::logs::reader::{self, LogOptions, StillRuns};
use crate::pod::{PodExt, PodUid};
use crate::runtime::pod_status::{ContainerStatus, State};

struct Wanted {
    options: LogOptions,
    previous: bool,
}

fn parse(query: Option<&str>) -> Result<Wanted, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        let Some(text) = query_value(query, name).filter(|t| !t.is_empty()) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| format!("{name}: Invalid value: {text:?}: must be greater than or equal to 0"))
    };
    let since_seconds = number("sinceSeconds")?;
    let since_time = match query_value(query, "sinceTime") {
        Some(text) => Some(
            text.parse::<jiff::Timestamp>()
                .map_err(|e| format!("sinceTime: {text:?}: {e}"))?,
        ),
        None => None,
    };
    if since_seconds.is_some() && since_time.is_some() {
        return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
    }
    let ago = since_seconds.map(|s| jiff::SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX)));
    let since = since_time.or_else(|| jiff::Timestamp::now().checked_sub(ago?).ok());
    let stderr_only = match query_value(query, "stream").as_deref() {
        None | Some("" | "All") => None,
        Some("Stderr") => Some(true),
        Some("Stdout") => Some(false),
        Some(other) => return Err(format!("stream: Unsupported value: {other:?}")),
    };
    Ok(Wanted {
        previous: query_bool(query, "previous"),
        options: LogOptions {
            follow: query_bool(query, "follow"),
            timestamps: query_bool(query, "timestamps"),
            tail: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            since,
            stderr_only,
        },
    })
}

impl Server {
    pub(super) async fn container_logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: Option<&str>,
    ) -> Response<Body> {
        let bad = |text: &str| reply::text(StatusCode::BAD_REQUEST, text);
        let wanted = match parse(query) {
            Ok(wanted) => wanted,
            Err(e) => return bad(&e),
        };
        let Some(pod) = self.find(namespace, name).await else {
            return reply::text(StatusCode::NOT_FOUND, &format!("pod {name:?} does not exist\n"));
        };
        if pod.container(container).is_none() {
            return reply::text(
                StatusCode::NOT_FOUND,
                &format!("container {container:?} not found in pod {name:?}\n"),
            );
        }
        let status = self.kubelet.pleg.cache.get(&pod.uid());
        let incarnations: Vec<&ContainerStatus> = status
            .iter()
            .flat_map(|s| s.containers.iter())
            .filter(|c| c.name == container)
            .collect();
        let chosen = match choose(&incarnations, wanted.previous) {
            Some(chosen) => chosen.clone(),
            None if wanted.previous => {
                return bad(&format!(
                    "previous terminated container {container:?} in pod {name:?} not found"
                ));
            }
            None => {
                return bad(&format!(
                    "container {container:?} in pod {name:?} is waiting to start: {}",
                    self.why(&pod, container)
                ));
            }
        };
        let runs = self.still_runs(pod.uid(), chosen.id.clone());
        let path = chosen.log_path.clone().into();
        let rx = reader::stream(path, wanted.options, runs);
        let frames = stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) });
        let frames = futures_util::StreamExt::map(frames, |item: std::io::Result<Bytes>| {
            item.map(Frame::data).map_err(BoxError::from)
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        let plain = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
        response
    }

    fn why(&self, pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> String {
        let status = self.kubelet.statuses.get(&pod.uid()).unwrap_or_default();
        let mut all = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .flatten();
        let waiting = all
            .find(|c| c.name == container)
            .and_then(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
        waiting.unwrap_or_else(|| "ContainerCreating".into())
    }

    fn still_runs(&self, uid: PodUid, id: String) -> StillRuns {
        let cache = self.kubelet.pleg.cache.clone();
        Box::new(move || {
            let runs = cache
                .get(&uid)
                .and_then(|s| s.by_id(&id).map(|c| c.state == State::Running))
                .unwrap_or(false);
            Box::pin(async move { runs })
        })
    }
}

/// Newest first. The previous one is the newest that ended before the present one began.
fn choose<'a>(incarnations: &[&'a ContainerStatus], previous: bool) -> Option<&'a ContainerStatus> {
    let begun = |c: &&&ContainerStatus| c.state != State::Created;
    if previous {
        return incarnations.iter().skip(1).find(begun).copied();
    }
    incarnations.iter().find(begun).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_checked() {
        let w = parse(Some(
            "follow=true&tailLines=5&limitBytes=10&timestamps=true&previous=true&sinceSeconds=60",
        ))
        .unwrap();
        assert!(w.previous && w.options.follow && w.options.timestamps && w.options.since.is_some());
        assert_eq!((w.options.tail, w.options.limit_bytes), (Some(5), Some(10)));
        assert!(parse(Some("tailLines=-1")).is_err());
        assert!(parse(Some("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z")).is_err());
    }
}
