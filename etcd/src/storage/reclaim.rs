//! Giving space back: segments that are mostly dead are copied, what lives of them, and unlinked.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::keeper::{append_footer_item, write_footer};
use super::load::{footer_item, read_footer};
use super::record::{self, FRAME_HEADER_BYTES, FrameHeader, Loc, SEGMENT_HEADER_BYTES, Version};
use super::segment::{self, Origin, Segment};
use super::{Segments, Storage, StorageError};
use crate::disk::Fill;

/// A segment is a victim from this share of dead bytes on, in percent.
const DEAD_PERCENT: u64 = 30;
/// Pinned tombstones may take this share of the live bytes, in percent, and at least [`PINNED_FLOOR`].
const PINNED_PERCENT: u64 = 5;
const PINNED_FLOOR: u64 = 4 * 1024 * 1024;
/// What every segment holds beside records: copying it gives none of that back.
const OVERHEAD_BYTES: u64 = (SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES) as u64;
/// Versions are pointed to their new place in steps of this many under one lock of the index.
const INSTALL_STEP: usize = 128;
/// A frame of a copied segment is closed at this size.
const COPY_FRAME_BYTES: usize = 256 * 1024;

/// What the index says about records; implemented by it.
pub trait Liveness: Send + Sync {
    /// For each item whether the index refers to exactly this place.
    fn live(&self, items: &[(Bytes, Version)]) -> Vec<bool>;
    /// Points versions to new places. False where the version is gone meanwhile.
    fn relocate(&self, moves: &[Move]) -> Vec<bool>;
}

pub struct Move {
    pub key: Bytes,
    pub from: Version,
    pub to: Loc,
}

/// As many as fit into one new segment.
pub fn choose(sealed: &[Arc<Segment>], segment_bytes: u64) -> Option<Vec<Arc<Segment>>> {
    // Where the damaged record is dead by now, copying the others is the cure.
    let is_victim = |segment: &&Arc<Segment>| segment.damage().is_some() || is_mostly_dead(segment, sealed);
    let mut victims: Vec<_> = sealed.iter().filter(is_victim).cloned().collect();
    if victims.is_empty() {
        victims.extend(pinning(sealed));
    }
    victims.sort_by_key(|segment| segment.live());
    let mut room = segment_bytes;
    let mut first = true;
    victims.retain(|segment| {
        let fits = std::mem::take(&mut first) || segment.live() + segment.pinned() <= room;
        room = room.saturating_sub(segment.live() + segment.pinned());
        fits
    });
    (!victims.is_empty()).then_some(victims)
}

fn is_mostly_dead(segment: &Segment, all: &[Arc<Segment>]) -> bool {
    let dead = segment.used().saturating_sub(segment.live() + OVERHEAD_BYTES);
    let pinned = if must_keep(segment, all) {
        segment.pinned()
    } else {
        0
    };
    dead.saturating_sub(pinned) * 100 >= segment.used() * DEAD_PERCENT
}

/// Whether some pinned tombstone of `segment` still covers a dead put elsewhere.
fn must_keep(segment: &Segment, all: &[Arc<Segment>]) -> bool {
    all.iter()
        .any(|other| other.number != segment.number && other.oldest_dead_put() < segment.newest_pinned())
}

/// When pinned tombstones take too much, the segment with the oldest dead put goes.
fn pinning(sealed: &[Arc<Segment>]) -> Option<Arc<Segment>> {
    let live: u64 = sealed.iter().map(|segment| segment.live()).sum();
    let pinned: u64 = sealed.iter().map(|segment| segment.pinned()).sum();
    if pinned <= PINNED_FLOOR.max(live * PINNED_PERCENT / 100) {
        return None;
    }
    sealed
        .iter()
        .filter(|segment| segment.oldest_dead_put() < i64::MAX)
        .min_by_key(|segment| segment.oldest_dead_put())
        .cloned()
}

/// Survivors in a new, durable segment that is not yet in the index.
pub struct Copied {
    pub segment: Arc<Segment>,
    moves: Vec<Move>,
}

struct Survivor {
    key: Bytes,
    version: Version,
    live: bool,
}

/// None when nothing survives.
pub fn copy(
    storage: &Storage,
    before: &Segments,
    victims: &[Arc<Segment>],
    index: &dyn Liveness,
) -> io::Result<Option<Copied>> {
    let mut survivors = Vec::new();
    for victim in victims {
        survivors.extend(survivors_of(victim, before, victims, index)?);
    }
    if survivors.is_empty() {
        return Ok(None);
    }
    write(storage, victims, survivors).map(Some)
}

fn survivors_of(
    victim: &Segment,
    before: &Segments,
    victims: &[Arc<Segment>],
    index: &dyn Liveness,
) -> io::Result<Vec<Survivor>> {
    let footer =
        read_footer(victim, victim.footer().unwrap_or(0)).map_err(|error| unreadable(victim, error))?;
    let mut items = Vec::new();
    let mut at = 0;
    while at < footer.len() {
        items.push(
            footer_item(victim.number, &footer, &mut at)
                .ok_or_else(|| victim.damaged(at as u64, "a footer that cannot be decoded"))?,
        );
    }
    let live = index.live(&items);
    let outside = |segment: &&Arc<Segment>| !victims.iter().any(|victim| victim.number == segment.number);
    let oldest_dead = before
        .iter()
        .filter(outside)
        .map(|segment| segment.oldest_dead_put())
        .min()
        .unwrap_or(i64::MAX);
    let survives = |(item, live): ((Bytes, Version), bool)| {
        let pinned = item.1.is_tombstone() && oldest_dead < item.1.main;
        (live || pinned).then_some(Survivor {
            key: item.0,
            version: item.1,
            live,
        })
    };
    let survivors: Vec<Survivor> = items.into_iter().zip(live).filter_map(survives).collect();
    let is_at = |offset: u64| {
        survivors
            .iter()
            .any(|survivor| u64::from(survivor.version.loc.offset) == offset)
    };
    match victim.damage().filter(|damage| is_at(damage.offset)) {
        Some(damage) => Err(damage.clone().into()),
        None => Ok(survivors),
    }
}

fn unreadable(victim: &Segment, error: StorageError) -> io::Error {
    match error {
        StorageError::Corrupt { offset, what, .. } => victim.damaged(offset, &what),
        StorageError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

fn write(storage: &Storage, victims: &[Arc<Segment>], survivors: Vec<Survivor>) -> io::Result<Copied> {
    let number = storage.take_number();
    let path = storage.dir.join(segment::name(number));
    let file = storage
        .disk
        .create(&path, SEGMENT_HEADER_BYTES as u64, Fill::Reserve)?;
    file.write_at(&record::segment_header(number, storage.cluster), 0)?;
    let segment = Arc::new(Segment::new(
        number,
        path.clone(),
        file,
        Origin::Reclaimed,
        SEGMENT_HEADER_BYTES as u64,
    ));
    let mut copier = Copier {
        segment,
        offset: SEGMENT_HEADER_BYTES as u64,
        frame: BytesMut::new(),
        footer: BytesMut::new(),
        moves: Vec::new(),
    };
    match copier.run(victims, survivors) {
        Ok(()) => Ok(Copied {
            segment: copier.segment,
            moves: copier.moves,
        }),
        Err(error) => {
            storage.disk.remove(&path)?;
            Err(error)
        }
    }
}

struct Copier {
    segment: Arc<Segment>,
    offset: u64,
    frame: BytesMut,
    footer: BytesMut,
    moves: Vec<Move>,
}

impl Copier {
    fn run(&mut self, victims: &[Arc<Segment>], survivors: Vec<Survivor>) -> io::Result<()> {
        record::begin_frame(&mut self.frame);
        for survivor in survivors {
            let Some(victim) = victims
                .iter()
                .find(|victim| victim.number == survivor.version.loc.segment)
            else {
                continue;
            };
            self.copy(victim, survivor)?;
            if self.frame.len() >= COPY_FRAME_BYTES {
                self.flush()?;
            }
        }
        self.flush()?;
        self.segment.close();
        write_footer(&self.segment, self.offset, std::mem::take(&mut self.footer))
    }

    fn copy(&mut self, victim: &Segment, survivor: Survivor) -> io::Result<()> {
        let from = survivor.version.loc;
        let start = self.frame.len();
        self.frame.resize(start + from.length as usize, 0);
        victim.read_at(&mut self.frame[start..], from.offset.into())?;
        victim.check(&self.frame[start..], from.offset)?;
        let to = Loc {
            segment: self.segment.number,
            offset: (self.offset + start as u64) as u32,
            length: from.length,
        };
        append_footer_item(&mut self.footer, &self.frame[start..], to.offset);
        record::pad(&mut self.frame);
        match survivor.live {
            true => self.moves.push(Move {
                key: survivor.key,
                from: survivor.version,
                to,
            }),
            false => self.segment.bury(&Version {
                loc: to,
                ..survivor.version
            }),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.len() == FRAME_HEADER_BYTES {
            return Ok(());
        }
        record::finish_frame(&mut self.frame, FrameHeader::default());
        self.segment.file.write_at(&self.frame, self.offset)?;
        self.offset += self.frame.len() as u64;
        self.segment.set_used(self.offset);
        self.frame.clear();
        record::begin_frame(&mut self.frame);
        Ok(())
    }
}

impl Copied {
    /// Points the index to the copies.
    pub fn install(&self, index: &dyn Liveness) {
        for step in self.moves.chunks(INSTALL_STEP) {
            for (moved, item) in index.relocate(step).into_iter().zip(step) {
                let version = Version {
                    loc: item.to,
                    ..item.from
                };
                if moved {
                    self.segment.count(&version)
                } else {
                    self.segment.bury(&version)
                }
            }
        }
    }
}
