//! A panic in a handler costs its request, not the connection.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::{Response, StatusCode};

use super::BoxFuture;
use crate::http::{Body, text};

pub(super) struct CatchPanic(pub BoxFuture<'static, Response<Body>>);

impl Future for CatchPanic {
    type Output = Response<Body>;

    /// A panicked future is never polled again, so its broken state is not seen.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = &mut self.0;
        match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(_) => Poll::Ready(text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "This request caused a panic. Look in the logs for details.\n",
            )),
        }
    }
}
