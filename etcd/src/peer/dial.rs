//! Asking a peer for a stream. The answer has no end, and its connection goes to the raft thread: HTTP's part ends with the head.

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::client::{Client, ClientError, Connection, Target};
use super::incoming::Body;
use super::socket::Socket;

/// Head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// What a refusal says.
const MAX_REFUSAL_BYTES: u64 = 4096;

pub enum Dialed {
    /// With what came behind the head.
    Stream(Socket, Body, BytesMut),
    Refused(StatusCode, Vec<u8>),
}

#[derive(Debug)]
struct Head {
    status: StatusCode,
    chunked: bool,
    length: usize,
}

impl Client {
    pub async fn dial(&self, url: &str, path: &str, headers: &HeaderMap) -> Result<Dialed, ClientError> {
        let target = Target::parse(url)?;
        let dial = async {
            match self.socket(&target).await? {
                Connection::Plain(mut stream) => {
                    let asked = ask(&mut stream, &target, path, headers).await;
                    finish(asked, &target, || Socket::plain(stream))
                }
                Connection::Tls(mut stream) => {
                    let asked = ask(&mut stream, &target, path, headers).await;
                    finish(asked, &target, || Socket::client(*stream))
                }
            }
        };
        self.within_dial_timeout(&target, dial).await
    }
}

type Asked = std::io::Result<(Head, BytesMut)>;

fn finish(
    asked: Asked,
    target: &Target<'_>,
    socket: impl FnOnce() -> std::io::Result<Socket>,
) -> Result<Dialed, ClientError> {
    let failed = |error: std::io::Error| target.failed(error);
    let (head, rest) = asked.map_err(failed)?;
    if head.status != StatusCode::OK {
        return Ok(Dialed::Refused(head.status, rest.to_vec()));
    }
    let body = if head.chunked { Body::ChunkSize } else { Body::Bare };
    Ok(Dialed::Stream(socket().map_err(failed)?, body, rest))
}

/// The answer's head and what came behind it; of a refusal all of it.
async fn ask<S>(stream: &mut S, target: &Target<'_>, path: &str, headers: &HeaderMap) -> Asked
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream
        .write_all(&request(target.authority(), path, headers))
        .await?;
    stream.flush().await?;
    let mut bytes = BytesMut::new();
    let head = loop {
        if let Some(head) = parse(&bytes)? {
            break head;
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(invalid("the head of the answer has no end"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut rest = bytes.split_off(head.length);
    if head.status != StatusCode::OK {
        let mut said = Vec::new();
        // What it says is for the log, and cannot make the refusal any different.
        stream.take(MAX_REFUSAL_BYTES).read_to_end(&mut said).await.ok();
        rest.extend_from_slice(&said);
    }
    Ok((head, rest))
}

/// A refusal ends its connection.
fn request(authority: &str, path: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut request =
        format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

fn invalid(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

/// None while the head is not whole.
fn parse(bytes: &[u8]) -> std::io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid("the answer is no HTTP"))?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let version = first.next().unwrap_or_default();
    let status = first.next().and_then(|code| code.parse().ok());
    let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
        return Err(invalid("the answer is no HTTP"));
    };
    let chunked = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
        });
    Ok(Some(Head {
        status,
        chunked,
        length: end + 4,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.6.0\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\n";
        assert!(parse(&answer[..answer.len() - 4]).unwrap().is_none());
        let head = parse(answer).unwrap().unwrap();
        assert_eq!(
            (head.status, head.chunked, head.length),
            (StatusCode::OK, true, answer.len() - 3)
        );
        let refusal = parse(b"HTTP/1.0 410 Gone\r\nContent-Length: 3\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((refusal.status, refusal.chunked), (StatusCode::GONE, false));
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 twohundred\r\n\r\n").is_err());
    }
}
