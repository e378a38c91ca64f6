//! The answer of a stream on its way to the client: its messages are counted, and it is handled once it has ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use component_base::http::{Body, BoxError};
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::endless::Told;
use super::grpc::{PREFIX_BYTES, trailers};
use super::serve::Handling;
use super::status::{Code, Status};

/// The same stream, until it is told to end where it has no end of its own.
pub fn counted(body: Body, end: Option<Told>, handling: Handling) -> Body {
    let body = Counted {
        body: Some(body),
        end,
        handling,
        messages: Messages::default(),
    };
    body.boxed_unsync()
}

struct Counted {
    /// None after the end: who writes into it learns that nobody reads any more.
    body: Option<Body>,
    end: Option<Told>,
    handling: Handling,
    messages: Messages,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(next) = Pin::new(body).poll_frame(context) {
            if let Some(Ok(frame)) = &next {
                self.note(frame);
            }
            return Poll::Ready(next);
        }
        let Some(end) = &mut self.end else {
            return Poll::Pending;
        };
        let error = std::task::ready!(end.as_mut().poll(context));
        self.body = None;
        let status = Status::from(error);
        self.handling.code = status.code;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

impl Counted {
    fn note(&mut self, frame: &Frame<Bytes>) {
        if let Some(bytes) = frame.data_ref() {
            let begun = self.messages.begun(bytes);
            self.handling.sent(begun);
        } else if let Some(code) = frame.trailers_ref().and_then(Code::of) {
            self.handling.code = code;
        }
    }
}

/// Finds where messages begin: each says how long it is, and its prefix is in one piece.
#[derive(Default)]
struct Messages {
    /// What is left of a message that began in an earlier piece.
    rest: usize,
}

impl Messages {
    fn begun(&mut self, piece: &[u8]) -> usize {
        let (mut at, mut begun) = (self.rest, 0);
        while let Some(mut length) = piece.get(at + 1..at + PREFIX_BYTES) {
            at += PREFIX_BYTES + length.get_u32() as usize;
            begun += 1;
        }
        self.rest = at - piece.len().min(at);
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_lie_in_pieces() {
        let message = |length: u8| [&[0, 0, 0, 0, length][..], &vec![7; length.into()]].concat();
        let mut messages = Messages::default();
        assert_eq!(
            messages.begun(&[message(3), message(0), message(200)].concat()),
            3
        );
        let long = message(9);
        assert_eq!(messages.begun(&long[..6]), 1);
        assert_eq!(messages.begun(&long[6..8]), 0);
        assert_eq!(messages.begun(&[&long[8..], &message(1)[..]].concat()), 1);
        assert_eq!(messages.begun(&[]), 0);
    }
}
