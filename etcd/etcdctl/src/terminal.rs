//! Passwords from the terminal, without echo.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longer lines are no password.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// Puts the terminal back as it was, whatever happens.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn of(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Silence { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // The process ends soon; there is nobody to tell.
        tcsetattr(self.terminal, OptionalActions::Now, &self.before).ok();
    }
}

/// Asks on the controlling terminal, or on stdin where there is none, as in a script. The prompt goes to stdout, as upstream's does.
pub fn ask_password(prompt: &str) -> io::Result<String> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut stdout = io::stdout();
    stdout.write_all(prompt.as_bytes())?;
    stdout.flush()?;
    let mut line = String::new();
    match terminal {
        Ok(terminal) => {
            let _silence = Silence::of(&terminal)?;
            read_line(BufReader::new(&terminal), &mut line)?;
        }
        Err(_) => read_line(io::stdin().lock(), &mut line)?,
    }
    stdout.write_all(b"\n")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_line(from: impl BufRead, line: &mut String) -> io::Result<()> {
    let read = from.take(MAX_PASSWORD_BYTES).read_line(line)?;
    if read == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "EOF"));
    }
    Ok(())
}

/// The first word of stdin: what `--interactive=false` reads.
pub fn word_from_stdin() -> io::Result<String> {
    use io::Read as _;
    let mut line = String::new();
    BufReader::new(io::stdin().take(MAX_PASSWORD_BYTES)).read_line(&mut line)?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}
