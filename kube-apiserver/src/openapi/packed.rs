//! A document kept compressed: a twentieth of its size, and what nearly every client takes as it is.

use std::io::Read;

use bytes::Bytes;
use component_base::http::{Body, full};
use flate2::read::GzDecoder;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};

use crate::endpoints::respond::{self, Gzip};

pub struct Packed {
    gzip: Bytes,
    /// Of the document itself.
    size: usize,
}

/// A document on its way into a `Packed`.
pub struct Packing {
    gzip: Gzip,
    packed: Vec<u8>,
    size: usize,
}

impl Packing {
    pub fn new() -> Packing {
        Packing {
            gzip: Gzip::new(),
            packed: Vec::new(),
            size: 0,
        }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.size += chunk.len();
        self.packed.extend_from_slice(&self.gzip.push(chunk));
    }

    pub fn finish(mut self) -> Packed {
        self.packed.extend_from_slice(&self.gzip.finish());
        Packed {
            gzip: self.packed.into(),
            size: self.size,
        }
    }
}

impl Packed {
    pub fn answer(&self, headers: &HeaderMap, media: &'static str) -> Response<Body> {
        let zipped = respond::accepts_gzip(headers);
        let body = if zipped {
            Ok(self.gzip.clone())
        } else {
            self.unpacked()
        };
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(err = %error, "The kept OpenAPI document does not decompress");
                let mut failed = Response::new(full(Bytes::new()));
                *failed.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return failed;
            }
        };
        let mut response = Response::new(full(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        match zipped {
            true => respond::mark_gzip(headers),
            false => drop(headers.append(VARY, HeaderValue::from_static("Accept-Encoding"))),
        }
        response
    }

    pub fn unpacked(&self) -> std::io::Result<Bytes> {
        let mut document = Vec::with_capacity(self.size);
        GzDecoder::new(&*self.gzip).read_to_end(&mut document)?;
        Ok(document.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again() {
        let document = b"openapi ".repeat(10_000);
        let mut packing = Packing::new();
        document.chunks(1000).for_each(|chunk| packing.push(chunk));
        let packed = packing.finish();
        assert!(packed.gzip.len() < document.len() / 20);
        assert_eq!(packed.unpacked().expect("unpacks"), document);
    }
}
