//! The end of a request: whatever it holds is released, and metrics and audit are written once.
//!
//! A streaming answer ends when its body ends or is dropped, so `Finish` travels in the body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use component_base::http::{Body, BoxError};
use http::{Method, Response, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::audit::Event;
use super::in_flight::Place;
use super::metrics::{self, Running, Series};
use crate::request_info::RequestInfo;

pub struct Finish {
    info: Arc<RequestInfo>,
    series: Arc<Series>,
    start: Instant,
    code: StatusCode,
    /// Bytes of the answer's body.
    sent: u64,
    pub audit: Option<Event>,
    pub place: Option<Place>,
    running: Option<Running>,
}

impl Finish {
    pub fn new(info: Arc<RequestInfo>, method: &Method, uri: &Uri, start: Instant) -> Self {
        let series = metrics::series(&info, method, uri);
        Finish {
            info,
            series,
            start,
            code: StatusCode::OK,
            sent: 0,
            audit: None,
            place: None,
            running: None,
        }
    }

    /// The request has passed all filters.
    pub fn started(&mut self) {
        if self.info.is_long_running() {
            self.running = Some(self.series.running(&self.info));
        }
    }

    pub fn attach(mut self, response: Response<Body>, long_running: bool) -> Response<Body> {
        self.code = response.status();
        if !long_running {
            self.sent = response.body().size_hint().exact().unwrap_or(0);
            return response;
        }
        if let Some(audit) = &mut self.audit {
            audit.response_started(self.code);
        }
        response.map(|inner| Streamed { inner, finish: self }.boxed_unsync())
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.series
            .observe(&self.info, self.code, self.start.elapsed(), self.sent);
        if let Some(audit) = self.audit.take() {
            audit.complete(self.code);
        }
    }
}

struct Streamed {
    inner: Body,
    finish: Finish,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.finish.sent += frame.data_ref().map_or(0, |d| d.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
