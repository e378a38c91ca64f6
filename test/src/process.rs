//! A daemon as a process with a log of its own.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::world::World;

/// A daemon that does not end by then after SIGTERM is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

pub struct Process {
    name: String,
    command: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` in `world`, with its output appended to `<logs>/<name>.log`.
    pub fn start(world: &World, logs: &Path, name: &str, command: Vec<String>) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let child = spawn(world, &log, &command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            command,
            log,
            child,
        })
    }

    /// The process itself: behind a namespace's entry program, that is its child.
    pub fn pid(&self) -> u32 {
        let entry = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{entry}/task/{entry}/children"));
        let first = children
            .ok()
            .and_then(|c| c.split_whitespace().next().and_then(|pid| pid.parse().ok()));
        match first {
            Some(child) if is_namespace_entry(entry) => child,
            _ => entry,
        }
    }

    /// An error with the end of the log if the process is gone.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.log_tail(20));
        }
        Ok(())
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) -> Result<()> {
        signal("KILL", self.pid())?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the exit status that follows.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        signal("TERM", self.pid())?;
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()?;
        bail!(
            "{} did not end {STOP_LIMIT:?} after SIGTERM:\n{}",
            self.name,
            self.log_tail(20)
        )
    }

    /// Starts the same command again.
    pub fn restart(&mut self, world: &World) -> Result<()> {
        self.child = spawn(world, &self.log, &self.command)?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and nothing to do about it.
        let _ = signal("KILL", self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(world: &World, log: &Path, command: &[String]) -> Result<Child> {
    let out = append_to(log)?;
    let err = out.try_clone()?;
    let words = world.wrap(command);
    let child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| words[0].clone())?;
    Ok(child)
}

fn append_to(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| log.display().to_string())
}

/// Is the process `nsenter`, which stays the parent of what it starts?
fn is_namespace_entry(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "nsenter")
}

/// By the `kill` program: the crate has no system calls of its own.
pub fn signal(name: &str, pid: u32) -> Result<()> {
    // 0 would mean our own process group.
    anyhow::ensure!(pid > 1, "{pid} is no process of ours");
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("kill -{name} {pid}: {status}");
    }
    Ok(())
}
