//! Reading a body piece by piece: messages behind their lengths, with a bound on each and on silence.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use component_base::http::{Body, BoxError};
use http_body_util::BodyExt as _;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the other side ended the stream")]
    Ended,
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("nothing was taken for {0:?}")]
    Stuck(Duration),
    #[error("{0}")]
    Transport(BoxError),
    #[error("a message of {0} bytes is larger than any member sends")]
    TooLarge(u64),
    #[error("{0}")]
    Malformed(String),
}

impl From<prost::DecodeError> for ReadError {
    fn from(error: prost::DecodeError) -> ReadError {
        ReadError::Malformed(error.to_string())
    }
}

pub struct Reader {
    body: Body,
    chunks: VecDeque<Bytes>,
    buffered: usize,
    max_bytes: u64,
    patience: Option<Duration>,
}

impl Reader {
    pub fn of(body: Body, max_bytes: u64) -> Reader {
        Reader {
            body,
            chunks: VecDeque::new(),
            buffered: 0,
            max_bytes,
            patience: None,
        }
    }

    /// Gives up when nothing comes for so long.
    pub fn patient(mut self, patience: Duration) -> Reader {
        self.patience = Some(patience);
        self
    }

    pub fn check_length(&self, length: u64) -> Result<(), ReadError> {
        match length <= self.max_bytes {
            true => Ok(()),
            false => Err(ReadError::TooLarge(length)),
        }
    }

    /// Exactly so many bytes; one that came in one piece is not copied.
    pub async fn take(&mut self, bytes: usize) -> Result<Bytes, ReadError> {
        while self.buffered < bytes {
            let data = self.chunk().await?.ok_or(ReadError::Ended)?;
            self.buffered += data.len();
            self.chunks.push_back(data);
        }
        self.buffered -= bytes;
        match self.chunks.front_mut() {
            Some(first) if first.len() >= bytes => Ok(first.split_to(bytes)),
            _ => Ok(self.gather(bytes)),
        }
    }

    pub async fn number(&mut self) -> Result<u64, ReadError> {
        Ok(self.take(8).await?.get_u64())
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

    /// Whatever comes next, None at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        while let Some(chunk) = self.chunks.pop_front() {
            self.buffered -= chunk.len();
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        self.chunk().await
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let frame = match self.patience {
                Some(patience) => tokio::time::timeout(patience, self.body.frame())
                    .await
                    .map_err(|_| ReadError::Silent(patience))?,
                None => self.body.frame().await,
            };
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame.map_err(ReadError::Transport)?.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
    }
}
