//! A gRPC answer as HTTP: one JSON object, or for streams one line for each message.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use component_base::http::{Body, BoxError, full};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use super::descriptor::Message;
use super::encode;
use crate::rpc::grpc::PREFIX_BYTES;
use crate::rpc::status::{Code, Status};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Messages from this size on become JSON while they arrive.
const LARGE_BYTES: usize = 256 * 1024;
/// grpc-gateway passes the metadata of the answer on, which is this.
const METADATA: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
const METADATA_VALUE: HeaderValue = HeaderValue::from_static("application/grpc");

/// A status as it came in trailers: any code, known here or not.
#[derive(Debug)]
struct Failure {
    code: u16,
    message: String,
}

impl Failure {
    fn internal(message: impl ToString) -> Failure {
        Failure {
            code: Code::Internal as u16,
            message: message.to_string(),
        }
    }

    /// None when the trailers say that all went well.
    fn from_trailers(trailers: &HeaderMap) -> Option<Failure> {
        let code = trailers
            .get("grpc-status")
            .and_then(|code| code.to_str().ok()?.parse().ok());
        let message = trailers
            .get("grpc-message")
            .map_or_else(String::new, |text| percent_decode(text.as_bytes()));
        match code {
            Some(0) => None,
            Some(code) => Some(Failure { code, message }),
            None => Some(Failure::internal("the answer has no status")),
        }
    }

    /// As grpc-gateway maps codes.
    fn http_status(&self) -> StatusCode {
        let status = match self.code {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// etcd 3.6 answers code and message; clients of 3.5 and before read the text from `error`.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"error\":");
        encode::string(&self.message, out);
        out.extend_from_slice(format!(",\"code\":{},\"message\":", self.code).as_bytes());
        encode::string(&self.message, out);
        out.push(b'}');
    }

    fn response(&self) -> Response<Body> {
        let mut out = Vec::new();
        self.write(&mut out);
        json_response(self.http_status(), full(out))
    }

    fn line(&self) -> Bytes {
        let mut out = b"{\"error\":".to_vec();
        self.write(&mut out);
        out.extend_from_slice(b"}\n");
        out.into()
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Failure {
        Failure {
            code: status.code as u16,
            message: status.message.to_string(),
        }
    }
}

pub fn refusal(status: &Status) -> Response<Body> {
    Failure::from(status).response()
}

fn json_response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

pub async fn unary(answer: Response<Body>, output: &'static Message) -> Response<Body> {
    let mut messages = Messages::new(answer);
    if let Some(length) = messages.length().await.filter(|length| *length >= LARGE_BYTES) {
        messages.buffer.advance(PREFIX_BYTES);
        let body = Pieces {
            messages,
            left: length,
            object: encode::Arriving::new(output),
            done: false,
        };
        return with_metadata(json_response(StatusCode::OK, body.boxed_unsync()));
    }
    let result = match messages.next().await {
        Ok(Some(message)) => messages.end().await.map(|()| message),
        Ok(None) => Err(Failure::internal("the answer has no message")),
        Err(failure) => Err(failure),
    };
    match result.and_then(|message| object(&message, output)) {
        Ok(json) => with_metadata(json_response(StatusCode::OK, full(json))),
        Err(failure) => failure.response(),
    }
}

fn with_metadata(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(METADATA, METADATA_VALUE);
    response
}

fn object(message: &[u8], output: &'static Message) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(message.len() * 2);
    encode::encode(message, output, &mut out).map_err(Failure::internal)?;
    Ok(out)
}

/// The status is decided by what comes first, as in grpc-gateway.
pub async fn stream(
    answer: Response<Body>,
    output: &'static Message,
    refused: Option<oneshot::Receiver<Status>>,
) -> Response<Body> {
    let mut messages = Messages::new(answer);
    messages.refused = refused;
    let first = messages.next().await;
    let status = match &first {
        Ok(_) => StatusCode::OK,
        Err(failure) => failure.http_status(),
    };
    let mut lines = Lines {
        messages,
        output,
        first: None,
        done: false,
    };
    lines.first = lines.line(first);
    with_metadata(json_response(status, lines.boxed_unsync()))
}

/// The messages of a gRPC body, put together from its pieces.
struct Messages {
    body: Body,
    buffer: BytesMut,
    /// What the answer's end said: the trailers, or for a refusal the headers.
    ended: Option<Option<Failure>>,
    /// A request of the stream that could not be understood.
    refused: Option<oneshot::Receiver<Status>>,
}

impl Messages {
    fn new(answer: Response<Body>) -> Messages {
        let (parts, body) = answer.into_parts();
        let refused = parts.headers.contains_key("grpc-status");
        Messages {
            body,
            buffer: BytesMut::new(),
            ended: refused.then(|| Failure::from_trailers(&parts.headers)),
            refused: None,
        }
    }

    /// Ok(None) at a good end.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    async fn end(&mut self) -> Result<(), Failure> {
        match self.next().await? {
            None => Ok(()),
            Some(_) => Err(Failure::internal("the answer has more than one message")),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            if let Some(message) = self.take() {
                return Poll::Ready(Ok(Some(message)));
            }
            if let Some(failure) = self.ended.take() {
                self.ended = Some(None);
                return Poll::Ready(failure.map_or(Ok(None), Err));
            }
            if let Some(failure) = self.poll_refused(context) {
                return Poll::Ready(Err(failure));
            }
            ready!(self.poll_more(context));
        }
    }

    /// Reads on, into the buffer or to the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    self.ended = Some(Failure::from_trailers(&trailers));
                }
            },
            Some(Err(error)) => self.ended = Some(Some(Failure::internal(error))),
            None => self.ended = Some(Some(Failure::internal("the answer broke off"))),
        }
        Poll::Ready(())
    }

    /// Of the message that comes first; None when the answer ends before there is one.
    async fn length(&mut self) -> Option<usize> {
        while self.buffer.len() < PREFIX_BYTES && self.ended.is_none() {
            std::future::poll_fn(|context| self.poll_more(context)).await;
        }
        self.first_length()
    }

    fn first_length(&self) -> Option<usize> {
        let mut length = self.buffer.get(1..PREFIX_BYTES)?;
        Some(length.get_u32() as usize)
    }

    fn poll_refused(&mut self, context: &mut Context<'_>) -> Option<Failure> {
        let refused = self.refused.as_mut()?;
        let Poll::Ready(status) = Pin::new(refused).poll(context) else {
            return None;
        };
        self.refused = None;
        status.ok().map(|status| Failure::from(&status))
    }

    fn take(&mut self) -> Option<Bytes> {
        let length = self.first_length()?;
        if self.buffer.len() < PREFIX_BYTES + length {
            self.buffer.reserve(PREFIX_BYTES + length - self.buffer.len());
            return None;
        }
        self.buffer.advance(PREFIX_BYTES);
        Some(self.buffer.split_to(length).freeze())
    }
}

/// One large message as JSON, written while it arrives. An error by then can only break the response off.
struct Pieces {
    messages: Messages,
    left: usize,
    object: encode::Arriving,
    done: bool,
}

impl Pieces {
    /// What the buffer allows to write.
    fn write(&mut self) -> Result<Vec<u8>, encode::Malformed> {
        let mut out = Vec::new();
        let available = self.left.min(self.messages.buffer.len());
        let written = self.object.push(&self.messages.buffer[..available], &mut out)?;
        self.messages.buffer.advance(written);
        self.left -= written;
        if written < available && available == self.left + written {
            return Err(encode::Malformed);
        }
        Ok(out)
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.done {
            let mut out = self.write()?;
            if let Some(failure) = self.messages.ended.take() {
                self.done = true;
                if self.left > 0 || failure.is_some() {
                    let message = failure.map_or_else(String::new, |failure| failure.message);
                    return Poll::Ready(Some(Err(message.into())));
                }
                self.object.finish(&mut out);
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
            ready!(self.messages.poll_more(context));
        }
        Poll::Ready(None)
    }
}

/// `{"result":...}` for each message, and `{"error":...}` at a bad end. Dropping it ends the call.
struct Lines {
    messages: Messages,
    output: &'static Message,
    first: Option<Bytes>,
    done: bool,
}

impl Lines {
    fn line(&mut self, next: Result<Option<Bytes>, Failure>) -> Option<Bytes> {
        let message = match next {
            Ok(Some(message)) => message,
            Ok(None) => {
                self.done = true;
                return None;
            }
            Err(failure) => {
                self.done = true;
                return Some(failure.line());
            }
        };
        let mut out = b"{\"result\":".to_vec();
        match encode::encode(&message, self.output, &mut out) {
            Ok(()) => out.extend_from_slice(b"}\n"),
            Err(error) => {
                self.done = true;
                return Some(Failure::internal(error).line());
            }
        }
        Some(out.into())
    }
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.done {
            return Poll::Ready(None);
        }
        let next = ready!(self.messages.poll_next(context));
        Poll::Ready(self.line(next).map(|line| Ok(Frame::data(line))))
    }
}

fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        rest = match escaped {
            Some(byte) => {
                out.push(byte);
                &tail[2..]
            }
            None => {
                out.push(byte);
                tail
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::messages;
    use crate::rpc::grpc;

    async fn lines(answer: Response<Body>) -> (u16, String) {
        let response = stream(answer, &messages::LEASE_KEEP_ALIVE_RESPONSE, None).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_stream_is_a_line_for_each_message_wherever_its_frames_end() {
        let (sender, body) = grpc::Channel::open(8);
        for piece in [&[0, 0, 0][..], &[0, 2, 0x10], &[7, 0, 0, 0, 0, 0]] {
            sender.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
        }
        let status = Status::new(Code::Unavailable, "etcdserver: 50% \u{e9}");
        sender.send(Err(status)).await.unwrap();
        let (status, text) = lines(Response::new(body)).await;
        assert_eq!(status, 200);
        assert_eq!(
            text,
            "{\"result\":{\"ID\":\"7\"}}\n{\"result\":{}}\n{\"error\":{\"error\":\"etcdserver: 50% \u{e9}\",\"code\":14,\"message\":\"etcdserver: 50% \u{e9}\"}}\n"
        );
    }

    #[tokio::test]
    async fn a_stream_that_fails_at_once_has_the_status_of_its_error() {
        let refused = grpc::response(Err(Status::unimplemented("x")));
        let (status, text) = lines(refused).await;
        assert_eq!(
            (status, &text[..]),
            (
                501,
                "{\"error\":{\"error\":\"x\",\"code\":12,\"message\":\"x\"}}\n"
            )
        );
        let (sender, body) = grpc::Channel::open(1);
        drop(sender);
        assert_eq!(lines(Response::new(body)).await, (200, String::new()));
    }
}
