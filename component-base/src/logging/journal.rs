//! systemd's journal, by its native protocol: a datagram of fields for each line.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::Level;

pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

pub(super) struct Journal {
    socket: UnixDatagram,
    identifier: &'static str,
}

impl Journal {
    pub fn connect(path: &Path, identifier: &'static str) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Journal { socket, identifier })
    }

    pub fn send(&self, level: Level, line: &[u8]) -> io::Result<()> {
        let priority = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = format!(
            "PRIORITY={priority}\nSYSLOG_IDENTIFIER={}\nMESSAGE\n",
            self.identifier
        )
        .into_bytes();
        // With its length, because a text may have several lines.
        fields.extend((text.len() as u64).to_le_bytes());
        fields.extend(text);
        fields.push(b'\n');
        self.socket.send(&fields).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_with_its_priority() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("journal");
        let socket = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path, "etcd").unwrap();
        journal.send(Level::WARN, b"two\nlines\n").unwrap();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(
            &buffer[..length],
            b"PRIORITY=4\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n"
        );
    }
}
