//! gRPC over h2 with nothing between: the client shares the machine with what it measures, so it must cost little.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;

use crate::connect::Io;

const PREFIX_BYTES: usize = 5;
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    base: String,
}

impl Connection {
    pub async fn open(stream: Box<dyn Io>, authority: &str) -> Result<Connection> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        // Its error reaches whoever uses the connection.
        tokio::spawn(async { drop(connection.await) });
        Ok(Connection {
            sender,
            base: format!("http://{authority}"),
        })
    }

    pub async fn unary<A: Message + Default>(&self, path: &str, request: &impl Message) -> Result<A> {
        let (response, mut stream) = self.begin(path).await?;
        stream.send_data(frame(request), true)?;
        let mut responses = Responses::new(response);
        let answer = responses.message().await?.context("no message in the answer")?;
        responses.finish().await?;
        Ok(answer)
    }

    pub async fn streaming(&self, path: &str) -> Result<(Requests, Responses)> {
        let (response, stream) = self.begin(path).await?;
        Ok((Requests(stream), Responses::new(response)))
    }

    async fn begin(&self, path: &str) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let request = Request::post(format!("{}/{path}", self.base))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut sender = self.sender.clone().ready().await?;
        Ok(sender.send_request(request, false)?)
    }
}

pub struct Requests(SendStream<Bytes>);

impl Requests {
    pub fn send(&mut self, request: &impl Message) -> Result<()> {
        Ok(self.0.send_data(frame(request), false)?)
    }
}

/// The messages of an answer.
pub struct Responses {
    head: Option<ResponseFuture>,
    body: Option<RecvStream>,
    buffer: BytesMut,
}

impl Responses {
    fn new(head: ResponseFuture) -> Self {
        Responses {
            head: Some(head),
            body: None,
            buffer: BytesMut::new(),
        }
    }

    pub async fn message<A: Message + Default>(&mut self) -> Result<Option<A>> {
        while !self.has_frame() {
            if !self.more().await? {
                return Ok(None);
            }
        }
        self.buffer.advance(1);
        let length = self.buffer.get_u32() as usize;
        Ok(Some(A::decode(self.buffer.split_to(length).freeze())?))
    }

    fn has_frame(&self) -> bool {
        let mut prefix = &self.buffer[..];
        prefix.len() >= PREFIX_BYTES && {
            prefix.advance(1);
            let length = prefix.get_u32() as usize;
            prefix.len() >= length
        }
    }

    async fn more(&mut self) -> Result<bool> {
        let body = self.body().await?;
        let Some(chunk) = body.data().await else {
            return Ok(false);
        };
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        self.buffer.extend_from_slice(&chunk);
        Ok(true)
    }

    async fn body(&mut self) -> Result<&mut RecvStream> {
        if let Some(head) = self.head.take() {
            let response = head.await?;
            ensure!(response.status().is_success(), "{}", response.status());
            check(response.headers())?;
            self.body = Some(response.into_body());
        }
        self.body.as_mut().context("the answer has no body")
    }

    async fn finish(&mut self) -> Result<()> {
        let body = self.body().await?;
        while let Some(chunk) = body.data().await {
            body.flow_control().release_capacity(chunk?.len())?;
        }
        let trailers = body.trailers().await?;
        check(&trailers.context("the answer has no trailers")?)
    }
}

/// Any status but 0 ends the run.
fn check(headers: &HeaderMap) -> Result<()> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            let message = headers.get("grpc-message").and_then(|text| text.to_str().ok());
            bail!(
                "gRPC status {}: {}",
                status.to_str()?,
                message.unwrap_or_default()
            )
        }
        _ => Ok(()),
    }
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    message.encode_raw(&mut out);
    out.freeze()
}
