//! The daemon's own program in memory. What starting took of it (flags, configuration, certificates, recovery) is not needed again, but it
//! stays mapped, and so counted, until the machine runs short of memory.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// Daemons have started by then, or are about to.
const AFTER_START: Duration = Duration::from_secs(5);

/// Lets go of the program's pages once, some seconds after the start: those in use come back from the page cache, a fault for each
/// sixteen of them.
pub async fn let_go_of_start() {
    tokio::time::sleep(AFTER_START).await;
    let_go_of_pages();
}

fn let_go_of_pages() {
    match std::fs::read_to_string("/proc/self/smaps") {
        Ok(maps) => unchanged_mappings(&maps).for_each(let_go),
        Err(error) => debug!(%error, "the program's pages stay in memory: cannot read /proc/self/smaps"),
    }
}

fn let_go(pages: Range<usize>) {
    // SAFETY: these are pages of a file, mapped without leave to write and without one page that differs from the file: a read finds the
    // same bytes before and after.
    let answer = unsafe { madvise(pages.start as *mut c_void, pages.len(), Advice::LinuxDontNeed) };
    if let Err(error) = answer {
        debug!(%error, "pages of the program stay in memory");
    }
}

/// Mappings of files that this process has not changed and cannot change, of `/proc/self/smaps`.
fn unchanged_mappings(maps: &str) -> impl Iterator<Item = Range<usize>> {
    let mut mapping = None;
    maps.lines().filter_map(move |line| {
        if let Some(kib) = line.strip_prefix("Anonymous:") {
            return mapping.take().filter(|_| kib.trim() == "0 kB");
        }
        if let Some((range, is_unwritable_file)) = heading(line) {
            mapping = is_unwritable_file.then_some(range);
        }
        None
    })
}

/// The first line of a mapping: `55d6a32de000-55d6a3af1000 r-xp 0023b000 fe:00 10109064   /usr/bin/etcd`.
fn heading(line: &str) -> Option<(Range<usize>, bool)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let is_unwritable = fields.next()?.starts_with("r-");
    let is_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    Some((address(start)?..address(end)?, is_unwritable && is_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_let_go_of() {
        let maps = "\
1000-2000 r-xp 00001000 fe:00 17 /usr/bin/etcd
Size:                  4 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
2000-3000 r--p 00002000 fe:00 17 /usr/bin/etcd
Anonymous:             4 kB
3000-4000 rw-p 00003000 fe:00 17 /usr/bin/etcd
Anonymous:             0 kB
5000-6000 r--p 00000000 00:00 0
Anonymous:             0 kB
7000-8000 r--p 00000000 00:00 0 [vvar]
Anonymous:             0 kB
9000-b000 r--p 00000000 fe:00 18 /usr/lib/libm.so (deleted)
Anonymous:             0 kB
";
        let found: Vec<_> = unchanged_mappings(maps).collect();
        assert_eq!(found, [0x1000..0x2000, 0x9000..0xb000]);
    }

    #[test]
    fn the_program_goes_on_and_holds_less() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssFile:"))
                .unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = resident();
        let_go_of_pages();
        let after = resident();
        assert!(after < before, "{before} KiB before, {after} after");
        assert!(format!("{:?}", std::env::vars_os().collect::<Vec<_>>()).len() > 10);
    }
}
