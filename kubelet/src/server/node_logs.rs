//! `/logs/`: the node's `/var/log`, by handle: nothing outside of it is reached.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use component_base::http as reply;
use component_base::http::{Body, BoxError};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rustix::fs::{FileType, OFlags};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::volumes::dir::Dir;

const ROOT: &str = "/var/log";
const BLOCK: usize = 64 << 10;

pub async fn serve(parts: &[&str]) -> Response<Body> {
    let path: PathBuf = parts.iter().collect();
    let path = if parts.is_empty() {
        PathBuf::from(".")
    } else {
        path
    };
    match open(&path) {
        Ok(Found::Dir(names)) => reply::typed(StatusCode::OK, "text/html; charset=utf-8", listing(&names)),
        Ok(Found::File(fd)) => file(fd),
        Err(_) => reply::text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

enum Found {
    Dir(Vec<String>),
    File(OwnedFd),
}

fn open(path: &Path) -> std::io::Result<Found> {
    let root = Dir::open(Path::new(ROOT))?;
    let fd = root.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::Directory => Ok(Found::Dir(root.subdir(path)?.entries()?)),
        FileType::RegularFile => Ok(Found::File(fd)),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    }
}

fn listing(names: &[String]) -> String {
    let escaped = |n: &String| n.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let links: String = names
        .iter()
        .map(|n| {
            let n = escaped(n);
            format!("<a href=\"{n}\">{n}</a>\n")
        })
        .collect();
    format!("<pre>\n{links}</pre>\n")
}

fn file(fd: OwnedFd) -> Response<Body> {
    let (tx, rx) = mpsc::channel::<std::io::Result<Bytes>>(4);
    tokio::spawn(async move {
        let mut file = tokio::fs::File::from_std(std::fs::File::from(fd));
        let mut block = vec![0; BLOCK];
        loop {
            let item = match file.read(&mut block).await {
                Ok(0) => return,
                Ok(n) => Ok(Bytes::copy_from_slice(&block[..n])),
                Err(e) => Err(e),
            };
            let failed = item.is_err();
            if tx.send(item).await.is_err() || failed {
                return;
            }
        }
    });
    let frames = futures_util::stream::unfold(rx, |mut rx| async move {
        rx.recv()
            .await
            .map(|item| (item.map(Frame::data).map_err(BoxError::from), rx))
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}
