//! gRPC over hyper: frames in, frames out, status in the trailers.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use component_base::http::{Body, BoxError};
use component_base::serve::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message;

use super::caller::Caller;
use super::status::{Code, Status};
use crate::metrics::{RECEIVED_BYTES, SENT_BYTES};
use crate::server::EtcdServer;

pub const PREFIX_BYTES: usize = 5;
/// etcd's gRPC server takes half a megabyte more than the request limit, so that the limit itself can answer.
pub const OVERHEAD_BYTES: usize = 512 * 1024;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS_OK: HeaderValue = HeaderValue::from_static("0");

/// What a method answers.
pub enum Reply {
    /// One whole frame, prefix included.
    Message(Bytes),
    /// Frames and, at its end, trailers of its own.
    Stream(Body),
}

/// A request's body: from the wire, or made in this process by the gateway.
pub enum Inbound {
    Wire(Incoming),
    Made(Body),
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Inbound::Wire(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|error| Box::new(error) as BoxError),
            Inbound::Made(body) => Pin::new(body).poll_frame(context),
        }
    }
}

pub type Answer = Result<Reply, Status>;

/// The message of an answer, for a method that is made of others.
pub async fn decoded<R: Message + Default>(answer: Answer) -> Result<R, Status> {
    let frame = match answer? {
        Reply::Message(frame) => frame,
        Reply::Stream(body) => {
            let whole = body.collect().await;
            whole
                .map_err(|error| Status::new(Code::Internal, error.to_string()))?
                .to_bytes()
        }
    };
    R::decode(frame.slice(PREFIX_BYTES.min(frame.len())..)).map_err(undecodable)
}

/// A frame around one message.
pub fn message(message: &impl Message) -> Answer {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    out.put_bytes(0, PREFIX_BYTES);
    message.encode_raw(&mut out);
    Ok(Reply::Message(seal(out)))
}

/// Writes the length into a frame that was begun with [`PREFIX_BYTES`] zeros.
pub fn seal(mut frame: BytesMut) -> Bytes {
    let length = (frame.len() - PREFIX_BYTES) as u32;
    frame[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// Reads the one message of a unary or server-streaming request and calls the method.
pub fn unary<R, F, Fut>(
    server: Arc<EtcdServer>,
    request: Request<Inbound>,
    method: F,
) -> BoxFuture<'static, Answer>
where
    R: Message + Default + 'static,
    F: FnOnce(Caller, R) -> Fut + Send + 'static,
    Fut: Future<Output = Answer> + Send,
{
    call(Caller::brief(server, &request), request, method)
}

/// The same for a method that may last longer than auth stays as it is.
pub fn lasting<R, F, Fut>(
    server: Arc<EtcdServer>,
    request: Request<Inbound>,
    method: F,
) -> BoxFuture<'static, Answer>
where
    R: Message + Default + 'static,
    F: FnOnce(Caller, R) -> Fut + Send + 'static,
    Fut: Future<Output = Answer> + Send,
{
    call(Caller::lasting(server, &request), request, method)
}

fn call<R, F, Fut>(caller: Caller, request: Request<Inbound>, method: F) -> BoxFuture<'static, Answer>
where
    R: Message + Default + 'static,
    F: FnOnce(Caller, R) -> Fut + Send + 'static,
    Fut: Future<Output = Answer> + Send,
{
    Box::pin(async move {
        let mut reader = Reader::new(&caller, request.into_body());
        let bytes = reader
            .frame()
            .await?
            .ok_or_else(|| Status::new(Code::Internal, "the request has no message"))?;
        let request = R::decode(bytes).map_err(undecodable)?;
        method(caller, request).await
    })
}

pub fn undecodable(error: prost::DecodeError) -> Status {
    Status::new(
        Code::Internal,
        format!("grpc: error unmarshalling request: {error}"),
    )
}

/// The messages of a request body.
pub struct Reader {
    server: Arc<EtcdServer>,
    body: Inbound,
    chunks: VecDeque<Bytes>,
    buffered: usize,
    max_bytes: usize,
}

impl Reader {
    pub fn new(server: &Arc<EtcdServer>, body: Inbound) -> Self {
        Reader {
            server: server.clone(),
            body,
            chunks: VecDeque::new(),
            buffered: 0,
            max_bytes: server.limits.max_request_bytes + OVERHEAD_BYTES,
        }
    }

    /// The next message's bytes; None at the end of the stream.
    pub async fn frame(&mut self) -> Result<Option<Bytes>, Status> {
        if !self.fill(PREFIX_BYTES).await? {
            return if self.buffered == 0 {
                Ok(None)
            } else {
                Err(Status::new(Code::Internal, "the request ends within a frame"))
            };
        }
        let prefix = self.take(PREFIX_BYTES);
        if prefix[0] != 0 {
            return Err(Status::unimplemented(
                "grpc: compressed requests are not supported",
            ));
        }
        let length = (&prefix[1..]).get_u32() as usize;
        if length > self.max_bytes {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!(
                    "grpc: received message larger than max ({length} vs. {})",
                    self.max_bytes
                ),
            ));
        }
        if !self.rest(length).await? {
            return Err(Status::new(Code::Internal, "the request ends within a frame"));
        }
        RECEIVED_BYTES.add(length as f64);
        Ok(Some(self.take(length)))
    }

    async fn rest(&mut self, length: usize) -> Result<bool, Status> {
        if self.buffered >= length {
            return Ok(true);
        }
        let server = self.server.clone();
        server.unfinished.read(length, self.fill(length)).await?
    }

    async fn fill(&mut self, bytes: usize) -> Result<bool, Status> {
        while self.buffered < bytes {
            let Some(frame) = self.body.frame().await else {
                return Ok(false);
            };
            let frame = frame.map_err(|error| Status::new(Code::Cancelled, error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                self.buffered += data.len();
                self.chunks.push_back(data);
            }
        }
        Ok(true)
    }

    /// A message that arrived in one piece is not copied.
    fn take(&mut self, bytes: usize) -> Bytes {
        self.buffered -= bytes;
        while self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
        match self.chunks.front_mut() {
            Some(first) if first.len() >= bytes => first.split_to(bytes),
            _ => self.gather(bytes),
        }
    }

    fn gather(&mut self, bytes: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(bytes);
        while out.len() < bytes {
            let Some(first) = self.chunks.front_mut() else {
                break;
            };
            let piece = first.len().min(bytes - out.len());
            out.put_slice(&first.split_to(piece));
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
        out.freeze()
    }
}

pub fn response(answer: Answer) -> Response<Body> {
    let body = match answer {
        Ok(Reply::Message(bytes)) => OneMessage {
            data: Some(bytes),
            trailers: Some(ok_trailers()),
        }
        .boxed_unsync(),
        Ok(Reply::Stream(body)) => body,
        Err(status) => return refusal(&status),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// Only headers, which are trailers at the same time.
fn refusal(status: &Status) -> Response<Body> {
    let mut response = Response::new(component_base::http::empty());
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", STATUS_OK);
    trailers
}

pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(status.code as u16));
    if let Ok(message) = HeaderValue::from_str(&percent_encode(&status.message)) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// gRPC's: printable ASCII but for `%`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A piece of a body, counted as sent to a client.
pub fn sent(bytes: Bytes) -> Frame<Bytes> {
    SENT_BYTES.add(bytes.len() as f64);
    Frame::data(bytes)
}

struct OneMessage {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for OneMessage {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.data.take() {
            Some(data) => Some(sent(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// A body of frames that are made when the client is ready for them; the first error is the last frame.
pub struct Frames<I> {
    frames: I,
    done: bool,
}

impl<I: Iterator<Item = Result<Bytes, Status>> + Unpin + Send + 'static> Frames<I> {
    pub fn of(frames: I) -> Body {
        let done = false;
        Frames { frames, done }.boxed_unsync()
    }
}

impl<I: Iterator<Item = Result<Bytes, Status>> + Unpin> http_body::Body for Frames<I> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let frame = frame_of(self.frames.next());
        self.done = frame.is_trailers();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

/// The trailers after the last message, or instead of it.
fn frame_of(next: Option<Result<Bytes, Status>>) -> Frame<Bytes> {
    match next {
        Some(Ok(bytes)) => sent(bytes),
        Some(Err(status)) => Frame::trailers(trailers(&status)),
        None => Frame::trailers(ok_trailers()),
    }
}

/// A body of frames that a task sends.
pub struct Channel {
    frames: tokio::sync::mpsc::Receiver<Result<Bytes, Status>>,
    done: bool,
}

impl Channel {
    /// Holds at most `capacity` frames.
    pub fn open(capacity: usize) -> (tokio::sync::mpsc::Sender<Result<Bytes, Status>>, Body) {
        let (sender, frames) = tokio::sync::mpsc::channel(capacity);
        (sender, Channel { frames, done: false }.boxed_unsync())
    }
}

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let frame = frame_of(std::task::ready!(self.frames.poll_recv(context)));
        self.done = frame.is_trailers();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_messages_survive_any_text() {
        assert_eq!(
            percent_encode("etcdserver: key 50% \u{e9}\n"),
            "etcdserver: key 50%25 %C3%A9%0A"
        );
        let trailers = trailers(&Status::new(Code::OutOfRange, "x"));
        assert_eq!(trailers["grpc-status"], "11");
    }
}
