//! What a single client's request costs before a server has done anything: the kernel's part alone.
//!
//! One thread for each member, over plain TCP without TLS, HTTP or raft: it reads a request, passes it on to its followers, writes it to a file,
//! syncs the file, and answers. No server that keeps what it acknowledges can take less, so a row of one client whose bar lies below this
//! cannot be met on this machine.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

const REQUEST_BYTES: usize = 1024;
const ANSWER_BYTES: usize = 64;
const FILE_BYTES: u64 = 8 * 1024 * 1024;
const WINDOW: Duration = Duration::from_secs(1);
/// As `watch-latency` with one client.
const PACE: Duration = Duration::from_millis(5);

/// What the members of one kind of cluster took for a request.
struct Cost {
    requests: usize,
    cpu: Duration,
}

struct Member {
    file: Option<File>,
    followers: Vec<TcpStream>,
}

/// One line for a member alone, and one for three.
pub fn run(dir: &Path) -> Result<()> {
    let read = cost(dir, 1, false, None)?;
    print!("# floor, CPU of the kernel's part with one client: an answer {read}");
    for members in [1, 3] {
        let (put, paced) = (
            cost(dir, members, true, None)?,
            cost(dir, members, true, Some(PACE))?,
        );
        print!("; members {members}: a put {put}, one each 5 ms {paced}");
    }
    println!();
    Ok(())
}

impl std::fmt::Display for Cost {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.cpu.as_secs_f64() * 1e6 / self.requests as f64;
        write!(out, "{micros:.1} us")
    }
}

fn cost(dir: &Path, members: usize, keeps: bool, pace: Option<Duration>) -> Result<Cost> {
    let (mut followers, mut threads) = (Vec::new(), Vec::new());
    for number in 1..members {
        let (stream, thread) = start(Member::new(dir, number, keeps, Vec::new())?)?;
        followers.push(stream);
        threads.push(thread);
    }
    let (client, leader) = start(Member::new(dir, 0, keeps, followers)?)?;
    threads.push(leader);
    let requests = load(client, pace)?;
    let mut cpu = Duration::ZERO;
    for thread in threads {
        cpu += thread
            .join()
            .map_err(|_| anyhow::anyhow!("a member panicked"))??;
    }
    for number in 0..members {
        std::fs::remove_file(path(dir, number)).ok();
    }
    Ok(Cost { requests, cpu })
}

/// A member's thread, which ends with its first connection and says what it took, and that connection.
fn start(member: Member) -> Result<(TcpStream, JoinHandle<Result<Duration>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let (served, _) = listener.accept()?;
    served.set_nodelay(true)?;
    let thread = std::thread::spawn(move || {
        let begun = clock_gettime(ClockId::ThreadCPUTime);
        member.serve(served)?;
        let ended = clock_gettime(ClockId::ThreadCPUTime);
        Ok((ended - begun).try_into()?)
    });
    Ok((stream, thread))
}

fn load(mut client: TcpStream, pace: Option<Duration>) -> Result<usize> {
    let (start, mut requests) = (Instant::now(), 0);
    while start.elapsed() < WINDOW {
        client.write_all(&[1; REQUEST_BYTES])?;
        client.read_exact(&mut [0; ANSWER_BYTES])?;
        requests += 1;
        if let Some(pace) = pace {
            std::thread::sleep(pace);
        }
    }
    Ok(requests)
}

fn path(dir: &Path, number: usize) -> std::path::PathBuf {
    dir.join(format!("floor-{number}.tmp"))
}

impl Member {
    fn new(dir: &Path, number: usize, keeps: bool, followers: Vec<TcpStream>) -> Result<Member> {
        let file = keeps.then(|| file(&path(dir, number))).transpose()?;
        Ok(Member { file, followers })
    }

    fn serve(mut self, mut stream: TcpStream) -> Result<()> {
        let (mut request, mut offset) = ([0; REQUEST_BYTES], 0);
        while stream.read_exact(&mut request).is_ok() {
            for follower in &mut self.followers {
                follower.write_all(&request)?;
            }
            if let Some(file) = &self.file {
                file.write_all_at(&request, offset)?;
                file.sync_data()?;
                offset = (offset + REQUEST_BYTES as u64) % FILE_BYTES;
            }
            for follower in &mut self.followers {
                follower.read_exact(&mut [0; ANSWER_BYTES])?;
            }
            stream.write_all(&[0; ANSWER_BYTES])?;
        }
        Ok(())
    }
}

/// With its bytes already, as a log that is laid out before it is written.
fn file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
    file.sync_all()?;
    Ok(file)
}
