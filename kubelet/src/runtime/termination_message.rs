//! What a container left in its termination message file, or at the end of its log.

use std::io::{Read, Seek, SeekFrom};

use cri::v1;

use super::labels;

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_BYTES: u64 = 2048;
const MAX_LOG_LINES: usize = 80;

/// For a container that has left.
pub fn read(status: &v1::ContainerStatus) -> Option<String> {
    let path = status.annotations.get(labels::TERMINATION_MESSAGE_PATH)?;
    let policy = status
        .annotations
        .get(labels::TERMINATION_MESSAGE_POLICY)
        .map(String::as_str);
    let mount = status.mounts.iter().find(|m| &m.container_path == path);
    let message = mount
        .and_then(|m| read_tail(&m.host_path, MAX_MESSAGE))
        .unwrap_or_default();
    let falls_back = policy == Some("FallbackToLogsOnError")
        && status.exit_code != 0
        && status.reason != "ContainerCannotRun"
        && message.is_empty();
    if falls_back {
        last_log_lines(&status.log_path)
    } else {
        Some(message)
    }
}

fn read_tail(path: &str, max: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(max))).ok()?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_log_lines(path: &str) -> Option<String> {
    // Four times what is wanted: each line carries a time stamp and tags.
    let tail = read_tail(path, MAX_LOG_BYTES * 4)?;
    let lines: Vec<String> = tail
        .lines()
        .filter_map(|l| crate::logs::cri_format::parse(l.as_bytes()))
        .map(|l| String::from_utf8_lossy(l.content).into_owned() + if l.partial { "" } else { "\n" })
        .collect();
    let text: String = lines[lines.len().saturating_sub(MAX_LOG_LINES)..].concat();
    let cut = text
        .len()
        .saturating_sub(usize::try_from(MAX_LOG_BYTES).unwrap_or(usize::MAX));
    let start = (cut..=text.len())
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0);
    Some(text[start..].to_string())
}
