//! Reads a container's log for `kubectl logs`: tail, since, limit, time stamps, follow. Following waits for inotify, not for a timer; when the log is
//! rotated the rest of the old file is read before the new one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::cri_format;

/// Of the file at a time.
const READ_BYTES: usize = 64 << 10;
/// A line without an end is cut here rather than held.
const MAX_LINE: usize = 1 << 20;
/// Blocks that a slow reader may be behind before reading waits for it.
const QUEUE: usize = 8;
/// Whether a container still runs is asked this often while its log is silent: its end is not a change of the file.
const LIVENESS_CHECK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    pub tail: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub since: Option<jiff::Timestamp>,
    /// `None`: both.
    pub stderr_only: Option<bool>,
}

/// Says whether more may be written to the log.
pub type StillRuns = Box<dyn Fn() -> futures_util::future::BoxFuture<'static, bool> + Send + Sync>;

/// Sends blocks until the end, the limit, or the receiver goes away.
pub fn stream(
    path: PathBuf,
    options: LogOptions,
    still_runs: StillRuns,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (tx, rx) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut reader = Reader {
            formatter: Formatter::new(&options),
            options,
            tx: tx.clone(),
        };
        if let Err(e) = reader.run(&path, still_runs).await {
            // The receiver may have left; then nobody wants the error.
            let _ = tx.send(Err(e)).await;
        }
    });
    rx
}

struct Reader {
    options: LogOptions,
    formatter: Formatter,
    tx: mpsc::Sender<io::Result<Bytes>>,
}

enum Waited {
    Changed,
    Rotated,
    Ended,
}

impl Reader {
    async fn run(&mut self, path: &Path, still_runs: StillRuns) -> io::Result<()> {
        let mut events = if self.options.follow {
            Some(watch(path)?)
        } else {
            None
        };
        let mut file = open(path).await?;
        if let Some(lines) = self.options.tail {
            let start = tail_offset(path, lines)?;
            file.seek(io::SeekFrom::Start(start)).await?;
        }
        let mut buffer = BytesMut::new();
        loop {
            if !self.drain(&mut file, &mut buffer).await? {
                return Ok(());
            }
            let Some(events) = events.as_mut() else { break };
            match wait(events, path, &still_runs, &self.tx).await? {
                Waited::Changed => {}
                Waited::Ended => {
                    self.drain(&mut file, &mut buffer).await?;
                    break;
                }
                Waited::Rotated => {
                    self.drain(&mut file, &mut buffer).await?;
                    file = reopen(path).await?;
                }
            }
        }
        // A last line without its newline.
        let rest = self.formatter.finish(&buffer);
        self.send(rest).await;
        Ok(())
    }

    /// Everything there is now. False: enough was sent, or nobody listens.
    async fn drain(&mut self, file: &mut tokio::fs::File, buffer: &mut BytesMut) -> io::Result<bool> {
        loop {
            buffer.reserve(READ_BYTES);
            let n = file.read_buf(buffer).await?;
            if n == 0 {
                return Ok(true);
            }
            let out = self.formatter.push(buffer);
            if !self.send(out).await {
                return Ok(false);
            }
        }
    }

    async fn send(&mut self, out: Vec<u8>) -> bool {
        if !out.is_empty() && self.tx.send(Ok(out.into())).await.is_err() {
            return false;
        }
        !self.formatter.is_full()
    }
}

fn watch(path: &Path) -> io::Result<inotify::EventStream<[u8; 4096]>> {
    let inotify = Inotify::init()?;
    // The directory: a rotation renames the file and makes a new one of its name.
    let dir = path.parent().unwrap_or(Path::new("/"));
    inotify
        .watches()
        .add(dir, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
    inotify.into_event_stream([0; 4096])
}

async fn wait(
    events: &mut inotify::EventStream<[u8; 4096]>,
    path: &Path,
    still_runs: &StillRuns,
    tx: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<Waited> {
    let name = path.file_name();
    loop {
        tokio::select! {
            () = tx.closed() => return Ok(Waited::Ended),
            event = events.next() => {
                let Some(event) = event else { return Ok(Waited::Ended) };
                let event = event?;
                if event.name.as_deref() != name {
                    continue;
                }
                let new_file = event.mask.intersects(inotify::EventMask::CREATE | inotify::EventMask::MOVED_TO);
                return Ok(if new_file { Waited::Rotated } else { Waited::Changed });
            }
            () = tokio::time::sleep(LIVENESS_CHECK) => {
                if !still_runs().await {
                    return Ok(Waited::Ended);
                }
            }
        }
    }
}

/// Between rename and creation there is a moment without a file.
async fn reopen(path: &Path) -> io::Result<tokio::fs::File> {
    for _ in 0..20 {
        if let Ok(file) = open(path).await {
            return Ok(file);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    open(path).await
}

/// A log is a plain file: a symlink in its place could lead anywhere on the node.
async fn open(path: &Path) -> io::Result<tokio::fs::File> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    tokio::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .await
}

/// Where the last `lines` whole lines begin. Parts of one line count as one.
fn tail_offset(path: &Path, lines: u64) -> io::Result<u64> {
    use std::io::{Read, Seek};
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    if lines == 0 {
        return Ok(size);
    }
    let mut end = size;
    let mut found = 0;
    // What follows `end` in the line that a block boundary cuts.
    let mut carried: Vec<u8> = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(READ_BYTES as u64);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(READ_BYTES)];
        file.seek(io::SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&carried);
        let mut line_end = block.len();
        for i in (0..block.len())
            .rev()
            .filter(|i| block[*i] == b'\n')
            .collect::<Vec<_>>()
        {
            let line = &block[i + 1..line_end];
            if ends_line(line) {
                found += 1;
                if found > lines {
                    return Ok(start + line_end as u64 + 1);
                }
            }
            line_end = i;
        }
        carried = block[..line_end].to_vec();
        carried.truncate(MAX_LINE);
        end = start;
    }
    Ok(0)
}

fn ends_line(line: &[u8]) -> bool {
    !line.is_empty() && cri_format::parse(line).is_none_or(|l| !l.partial)
}

/// From the file's lines to what is sent. Pure.
struct Formatter {
    timestamps: bool,
    since: Option<Vec<u8>>,
    stderr_only: Option<bool>,
    left: Option<u64>,
    /// The entry before was part of this line.
    continues: bool,
}

impl Formatter {
    fn new(options: &LogOptions) -> Self {
        Self {
            timestamps: options.timestamps,
            // RFC 3339 in UTC sorts as text once both have the same number of digits; nine is what runtimes write.
            since: options
                .since
                .map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string().into_bytes()),
            stderr_only: options.stderr_only,
            left: options.limit_bytes,
            continues: false,
        }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes whole lines off the buffer.
    fn push(&mut self, buffer: &mut BytesMut) -> Vec<u8> {
        let mut out = Vec::with_capacity(buffer.len());
        while let Some(end) = memchr(buffer).or((buffer.len() > MAX_LINE).then_some(MAX_LINE)) {
            let line = buffer.split_to((end + 1).min(buffer.len()));
            self.line(line.strip_suffix(b"\n").unwrap_or(&line), &mut out);
        }
        out
    }

    fn finish(&mut self, rest: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if !rest.is_empty() {
            self.line(rest, &mut out);
        }
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(parsed) = cri_format::parse(line) else {
            return;
        };
        if self.is_full() || self.stderr_only.is_some_and(|wanted| wanted != parsed.stderr) {
            return;
        }
        if self
            .since
            .as_ref()
            .is_some_and(|since| is_before(parsed.timestamp, since))
        {
            return;
        }
        let begin = out.len();
        if self.timestamps && !self.continues {
            out.extend_from_slice(parsed.timestamp);
            out.push(b' ');
        }
        out.extend_from_slice(parsed.content);
        if !parsed.partial {
            out.push(b'\n');
        }
        self.continues = parsed.partial;
        if let Some(left) = &mut self.left {
            let made = (out.len() - begin) as u64;
            out.truncate(begin + usize::try_from(made.min(*left)).unwrap_or(0));
            *left -= made.min(*left);
        }
    }
}

fn is_before(timestamp: &[u8], since: &[u8]) -> bool {
    if timestamp.last() == Some(&b'Z') && timestamp.len() == since.len() {
        return timestamp < since;
    }
    let parse = |t: &[u8]| std::str::from_utf8(t).ok()?.parse::<jiff::Timestamp>().ok();
    matches!((parse(timestamp), parse(since)), (Some(t), Some(s)) if t < s)
}

fn memchr(buffer: &[u8]) -> Option<usize> {
    buffer.iter().position(|b| *b == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn log(dir: &tempfile::TempDir, lines: &[&str]) -> PathBuf {
        let path = dir.path().join("0.log");
        std::fs::write(&path, lines.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
        path
    }

    async fn read(path: &Path, options: LogOptions) -> String {
        let mut rx = stream(path.into(), options, Box::new(|| Box::pin(async { false })));
        let mut all = Vec::new();
        while let Some(block) = rx.recv().await {
            all.extend(block.unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    const LINES: [&str; 5] = [
        "2026-01-01T00:00:01.000000000Z stdout F one",
        "2026-01-01T00:00:02.000000000Z stderr F two",
        "2026-01-01T00:00:03.000000000Z stdout P thr",
        "2026-01-01T00:00:03.000000001Z stdout F ee",
        "2026-01-01T00:00:04.000000000Z stdout F four",
    ];

    #[tokio::test]
    async fn parts_are_joined_and_options_are_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let path = log(&tmp, &LINES);
        let with = LogOptions::default;
        assert_eq!(read(&path, with()).await, "one\ntwo\nthree\nfour\n");
        assert_eq!(
            read(
                &path,
                LogOptions {
                    tail: Some(2),
                    ..with()
                }
            )
            .await,
            "three\nfour\n"
        );
        assert_eq!(
            read(
                &path,
                LogOptions {
                    tail: Some(0),
                    ..with()
                }
            )
            .await,
            ""
        );
        assert_eq!(
            read(
                &path,
                LogOptions {
                    tail: Some(100),
                    ..with()
                }
            )
            .await,
            "one\ntwo\nthree\nfour\n"
        );
        assert_eq!(
            read(
                &path,
                LogOptions {
                    limit_bytes: Some(6),
                    ..with()
                }
            )
            .await,
            "one\ntw"
        );
        assert_eq!(
            read(
                &path,
                LogOptions {
                    stderr_only: Some(true),
                    ..with()
                }
            )
            .await,
            "two\n"
        );
        let since = "2026-01-01T00:00:02.5Z".parse().ok();
        assert_eq!(read(&path, LogOptions { since, ..with() }).await, "three\nfour\n");
        let stamped = read(
            &path,
            LogOptions {
                timestamps: true,
                tail: Some(2),
                ..with()
            },
        )
        .await;
        assert_eq!(
            stamped,
            "2026-01-01T00:00:03.000000000Z three\n2026-01-01T00:00:04.000000000Z four\n"
        );
    }

    #[tokio::test]
    async fn a_tail_may_span_many_blocks() {
        let tmp = tempfile::tempdir().unwrap();
        let line = |i: usize| format!("2026-01-01T00:00:01.000000000Z stdout F {i} {}", "x".repeat(100));
        let lines: Vec<String> = (0..5000).map(line).collect();
        let path = log(&tmp, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let text = read(
            &path,
            LogOptions {
                tail: Some(1500),
                ..Default::default()
            },
        )
        .await;
        assert_eq!(text.lines().count(), 1500);
        assert!(text.starts_with("3500 "));
    }

    #[tokio::test]
    async fn following_hears_new_lines_across_a_rotation_and_ends_with_the_container() {
        let tmp = tempfile::tempdir().unwrap();
        let path = log(&tmp, &LINES[..1]);
        let runs = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let flag = runs.clone();
        let still = Box::new(move || {
            let runs = flag.load(std::sync::atomic::Ordering::SeqCst);
            Box::pin(async move { runs }) as futures_util::future::BoxFuture<'static, bool>
        });
        let mut rx = stream(
            path.clone(),
            LogOptions {
                follow: true,
                ..Default::default()
            },
            still,
        );
        assert_eq!(rx.recv().await.unwrap().unwrap(), "one\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        writeln!(file, "{}", LINES[1]).unwrap();
        assert_eq!(rx.recv().await.unwrap().unwrap(), "two\n");
        std::fs::rename(&path, tmp.path().join("0.log.old")).unwrap();
        std::fs::write(&path, format!("{}\n", LINES[4])).unwrap();
        assert_eq!(rx.recv().await.unwrap().unwrap(), "four\n");
        runs.store(false, std::sync::atomic::Ordering::SeqCst);
        assert!(rx.recv().await.is_none());
    }
}
