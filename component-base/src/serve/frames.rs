//! What an HTTP/2 connection's frames tell about its client: the heads alone are looked at, in both directions.
//!
//! Three things come of it that h2 does not say: which streams are open, how often a client pings, and how often it asks for what it
//! takes back at once (CVE-2023-44487).

use std::collections::HashMap;
use std::time::{Duration, Instant};

const PREFACE_BYTES: u32 = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(super) const ENHANCE_YOUR_CALM: u8 = 11;

/// grpc-go's: so many pings may come too early before the connection is closed.
const MAX_PING_STRIKES: u32 = 2;
/// grpc-go's: between pings while no stream is open.
const IDLE_PING_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
/// So many streams may be taken back at once, and then this many each second, and one for each that was answered.
const RESETS: u32 = 1000;
const RESETS_PER_SECOND: u32 = 100;
/// A stream that is reset later than this was waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Why a connection is closed, as the GOAWAY says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offence(pub &'static str);

const TOO_MANY_PINGS: Offence = Offence("too_many_pings");
const TOO_MANY_RESETS: Offence = Offence("too_many_resets");

#[derive(Debug)]
pub(super) struct Frames {
    /// None where clients ping as they like.
    min_ping_interval: Option<Duration>,
    incoming: Heads,
    outgoing: Heads,
    open: HashMap<u32, Open>,
    last_stream: u32,
    pings: Pings,
    resets: Resets,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    answered: bool,
}

#[derive(Debug, Default)]
struct Pings {
    last: Option<Instant>,
    strikes: u32,
    /// Something was sent since the last one, so that the next one cannot be too early.
    excused: bool,
}

#[derive(Debug)]
struct Resets {
    left: u32,
    refilled: Instant,
}

impl Frames {
    pub fn new(min_ping_interval: Option<Duration>, now: Instant) -> Frames {
        Frames {
            min_ping_interval,
            incoming: Heads::after(PREFACE_BYTES),
            outgoing: Heads::after(0),
            open: HashMap::new(),
            last_stream: 0,
            pings: Pings::default(),
            resets: Resets {
                left: RESETS,
                refilled: now,
            },
        }
    }

    /// What came from the client.
    pub fn received(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Offence> {
        while let Some(head) = self.incoming.next(&mut bytes) {
            match head.kind {
                HEADERS if head.stream > self.last_stream => {
                    self.last_stream = head.stream;
                    let open = Open {
                        since: now,
                        answered: false,
                    };
                    self.open.insert(head.stream, open);
                }
                RST_STREAM => {
                    let open = self.open.remove(&head.stream);
                    if open.is_some_and(|open| !open.answered && now - open.since < AT_ONCE) {
                        self.resets.take(now)?;
                    }
                }
                PING if head.flags & ACK == 0 => {
                    if let Some(interval) = self.min_ping_interval {
                        let interval = match self.open.is_empty() {
                            true => IDLE_PING_INTERVAL,
                            false => interval,
                        };
                        self.pings.came(interval, now)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What went to the client.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.outgoing.next(&mut bytes) {
            if !matches!(head.kind, DATA | HEADERS | RST_STREAM) {
                continue;
            }
            self.pings.excused |= head.kind != RST_STREAM;
            if head.kind == RST_STREAM || head.flags & END_STREAM != 0 {
                let open = self.open.remove(&head.stream);
                if open.is_some_and(|open| !open.answered) && head.kind == HEADERS {
                    self.resets.give();
                }
            } else if let Some(open) = self.open.get_mut(&head.stream)
                && !std::mem::replace(&mut open.answered, true)
            {
                self.resets.give();
            }
        }
    }

    /// Whether a stream is open that was opened before then.
    pub fn has_open_since_before(&self, then: Instant) -> bool {
        self.open.values().any(|open| open.since < then)
    }

    /// A GOAWAY for this offence; None in the middle of another frame.
    pub fn goaway(&self, offence: Offence) -> Option<Vec<u8>> {
        if !self.outgoing.is_between_frames() {
            return None;
        }
        let mut frame = ((8 + offence.0.len()) as u32).to_be_bytes()[1..].to_vec();
        frame.extend([GOAWAY, 0, 0, 0, 0, 0]);
        frame.extend(self.last_stream.to_be_bytes());
        frame.extend([0, 0, 0, ENHANCE_YOUR_CALM]);
        frame.extend(offence.0.as_bytes());
        Some(frame)
    }
}

impl Pings {
    fn came(&mut self, interval: Duration, now: Instant) -> Result<(), Offence> {
        let last = self.last.replace(now);
        if std::mem::take(&mut self.excused) {
            self.strikes = 0;
            return Ok(());
        }
        self.strikes += u32::from(last.is_some_and(|last| now - last < interval));
        match self.strikes > MAX_PING_STRIKES {
            true => Err(TOO_MANY_PINGS),
            false => Ok(()),
        }
    }
}

impl Resets {
    fn take(&mut self, now: Instant) -> Result<(), Offence> {
        let due = u128::from(RESETS_PER_SECOND) * (now - self.refilled).as_millis() / 1000;
        if due > 0 {
            self.left = RESETS.min(self.left.saturating_add(u32::try_from(due).unwrap_or(RESETS)));
            self.refilled = now;
        }
        self.left = self.left.checked_sub(1).ok_or(TOO_MANY_RESETS)?;
        Ok(())
    }

    fn give(&mut self) {
        self.left = RESETS.min(self.left + 1);
    }
}

struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the heads of frames in a stream of bytes, however it is cut.
#[derive(Debug)]
struct Heads {
    /// Bytes that belong to no head.
    skip: u32,
    head: [u8; HEAD_BYTES],
    have: usize,
}

impl Heads {
    fn after(skip: u32) -> Heads {
        Heads {
            skip,
            head: [0; HEAD_BYTES],
            have: 0,
        }
    }

    fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let skipped = bytes.len().min(self.skip as usize);
        *bytes = &bytes[skipped..];
        self.skip -= skipped as u32;
        let taken = bytes.len().min(HEAD_BYTES - self.have);
        self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        *bytes = &bytes[taken..];
        self.have += taken;
        if self.have < HEAD_BYTES {
            return None;
        }
        self.have = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]);
        Some(Head {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const MIN: Duration = Duration::from_secs(5);

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    /// A connection in which time is what the test says.
    struct Talk {
        frames: Frames,
        now: Instant,
    }

    impl Talk {
        fn new(min_ping_interval: Option<Duration>) -> Talk {
            let now = Instant::now();
            let mut frames = Frames::new(min_ping_interval, now);
            // Byte by byte, as a slow network would.
            for byte in PREFACE {
                frames.received(&[*byte], now).unwrap();
            }
            Talk { frames, now }
        }

        fn says(&mut self, kind: u8, flags: u8, stream: u32) -> Result<(), Offence> {
            for byte in frame(kind, flags, stream, b"payload!") {
                self.frames.received(&[byte], self.now)?;
            }
            Ok(())
        }

        fn hears(&mut self, kind: u8, flags: u8, stream: u32) {
            self.frames.sent(&frame(kind, flags, stream, &[HEADERS; 20]));
        }

        fn pings_after(&mut self, pause: Duration) -> Result<(), Offence> {
            self.now += pause;
            self.says(PING, 0, 0)
        }
    }

    #[test]
    fn pings_that_come_too_early_are_forgiven_twice() {
        let mut talk = Talk::new(Some(MIN));
        talk.says(HEADERS, 0, 1).unwrap();
        for _ in 0..10 {
            talk.pings_after(MIN).unwrap();
        }
        talk.pings_after(MIN / 2).unwrap();
        talk.pings_after(MIN / 2).unwrap();
        assert_eq!(talk.pings_after(MIN / 2), Err(TOO_MANY_PINGS));
        let goaway = talk.frames.goaway(TOO_MANY_PINGS).unwrap();
        assert_eq!(goaway, frame(GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\x0btoo_many_pings"));
    }

    #[test]
    fn answers_excuse_a_ping_and_acknowledgements_are_none() {
        let mut talk = Talk::new(Some(MIN));
        talk.says(HEADERS, 0, 1).unwrap();
        for _ in 0..20 {
            talk.hears(DATA, 0, 1);
            talk.pings_after(MIN / 10).unwrap();
            talk.says(PING, ACK, 0).unwrap();
        }
    }

    #[test]
    fn without_a_stream_pings_are_for_every_other_hour() {
        let mut talk = Talk::new(Some(MIN));
        talk.says(HEADERS, 0, 1).unwrap();
        talk.hears(HEADERS, END_STREAM, 1);
        talk.pings_after(MIN * 2).unwrap();
        for _ in 0..3 {
            talk.pings_after(IDLE_PING_INTERVAL).unwrap();
        }
        talk.pings_after(MIN * 2).unwrap();
        talk.pings_after(MIN * 2).unwrap();
        assert_eq!(talk.pings_after(MIN * 2), Err(TOO_MANY_PINGS));
        let mut free = Talk::new(None);
        for _ in 0..20 {
            free.pings_after(Duration::ZERO).unwrap();
        }
    }

    #[test]
    fn streams_that_are_taken_back_at_once_use_up_a_budget() {
        let mut talk = Talk::new(None);
        let reset = |talk: &mut Talk, stream: u32, waits: Duration| {
            talk.says(HEADERS, 0, stream)?;
            talk.now += waits;
            talk.says(RST_STREAM, 0, stream)
        };
        // Who waited for an answer, or got one, may go.
        for number in 0..2 * RESETS {
            reset(&mut talk, 4 * number + 1, AT_ONCE).unwrap();
            talk.says(HEADERS, 0, 4 * number + 3).unwrap();
            talk.hears(HEADERS, 0, 4 * number + 3);
            talk.says(RST_STREAM, 0, 4 * number + 3).unwrap();
        }
        let first = 8 * RESETS;
        for number in 0..RESETS {
            reset(&mut talk, first + 2 * number + 1, Duration::ZERO).unwrap();
        }
        let next = first + 2 * RESETS + 1;
        assert_eq!(reset(&mut talk, next, Duration::ZERO), Err(TOO_MANY_RESETS));
        talk.now += Duration::from_secs(1);
        for number in 1..=RESETS_PER_SECOND {
            reset(&mut talk, next + 2 * number, Duration::ZERO).unwrap();
        }
    }

    #[test]
    fn what_is_open_is_known_from_both_directions() {
        let mut talk = Talk::new(None);
        let before = talk.now + Duration::from_millis(1);
        for stream in [1, 3, 5, 7] {
            talk.says(HEADERS, 0, stream).unwrap();
        }
        // Trailers open nothing again.
        talk.hears(HEADERS, 0, 1);
        talk.hears(DATA, END_STREAM, 1);
        talk.says(HEADERS, END_STREAM, 1).unwrap();
        talk.hears(HEADERS, END_STREAM, 3);
        talk.hears(RST_STREAM, 0, 5);
        assert!(talk.frames.has_open_since_before(before));
        talk.says(RST_STREAM, 0, 7).unwrap();
        assert!(!talk.frames.has_open_since_before(before));
        talk.now = before;
        talk.says(HEADERS, 0, 9).unwrap();
        assert!(!talk.frames.has_open_since_before(before));
        talk.frames.sent(&frame(DATA, 0, 9, b"12")[..10]);
        assert_eq!(talk.frames.goaway(TOO_MANY_RESETS), None);
    }
}
