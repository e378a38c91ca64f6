//! Clients run to their end: kubectl, etcdctl, curl.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::world::World;

/// What a command said.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    words: String,
}

impl Output {
    /// The standard output of a command that succeeded.
    pub fn ok(self) -> Result<String> {
        if self.code != 0 {
            bail!(
                "`{}` exited with {}: {}{}",
                self.words,
                self.code,
                self.stderr.trim(),
                self.stdout.trim()
            );
        }
        Ok(self.stdout)
    }

    /// The error output of a command that must fail.
    pub fn refused(self) -> Result<String> {
        if self.code == 0 {
            bail!("`{}` succeeded: {}", self.words, self.stdout.trim());
        }
        Ok(self.stderr)
    }

    pub fn json(self) -> Result<Value> {
        let words = self.words.clone();
        serde_json::from_str(&self.ok()?).with_context(|| format!("`{words}` gave no JSON"))
    }
}

/// Runs `words` in `world`, with `stdin` if any.
pub fn run(world: &World, words: &[&str], env: &[(&str, &str)], stdin: Option<&str>) -> Result<Output> {
    let owned: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let wrapped = world.wrap(&owned);
    let mut child = Command::new(&wrapped[0])
        .args(&wrapped[1..])
        .envs(env.iter().copied())
        .stdin(if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| words.join(" "))?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        words: words.join(" "),
    })
}
