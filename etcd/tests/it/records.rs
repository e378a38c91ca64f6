//! Where a key lies in the files of a store, for who damages it there.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use etcd::storage::load::TRAILER_MAGIC;
use etcd::storage::record::{
    self, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, decode, decode_frame, key_of,
};

/// A record, and the frame around it.
pub struct Place {
    pub path: PathBuf,
    pub frame: Range<usize>,
    pub record: Range<usize>,
}

impl Place {
    /// No frame is added any more, and a start reads only what the segment's end says of it.
    pub fn is_sealed(&self) -> bool {
        std::fs::read(&self.path).unwrap().ends_with(&TRAILER_MAGIC)
    }

    /// Changes the last byte of the record; its checksums do not fit any more.
    pub fn flip(&self) {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        let (mut byte, at) = ([0], self.record.end as u64 - 1);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

pub fn find(data: &Path, key: &str) -> Place {
    let entries = std::fs::read_dir(data.join("member/store")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut segments = paths.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments
        .find_map(|path| find_in(path, key))
        .unwrap_or_else(|| panic!("{key} is nowhere"))
}

fn find_in(path: PathBuf, key: &str) -> Option<Place> {
    let bytes = std::fs::read(&path).unwrap();
    let mut frame = SEGMENT_HEADER_BYTES;
    while let Some((_, payload)) = decode_frame(&bytes[frame..]) {
        let start = frame + FRAME_HEADER_BYTES;
        let end = start + payload.len();
        let mut at = start;
        while at < end {
            let (_, length) = decode(&bytes[at..end]).unwrap();
            if key_of(&bytes[at + RECORD_HEADER_BYTES..at + length]) == Some(key.as_bytes()) {
                return Some(Place {
                    path,
                    frame: frame..end,
                    record: at..at + length,
                });
            }
            at += length.next_multiple_of(record::ALIGNMENT);
        }
        frame = end;
    }
    None
}
