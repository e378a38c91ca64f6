//! A log file that is put aside when it is full, as lumberjack does it: `etcd.log` becomes `etcd-2026-11-28T12-30-36.125.log`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;

const MIB: u64 = 1024 * 1024;
/// lumberjack's, where the size is 0.
const DEFAULT_MIB: u64 = 100;
/// Of the time in the names of backups.
const NAME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const GZIPPED: &str = ".gz";

/// `--log-rotation-config-json`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Rotation {
    /// Megabytes; 0 for 100.
    maxsize: u64,
    /// Days; 0 for ever.
    maxage: u64,
    /// 0 for all.
    maxbackups: usize,
    localtime: bool,
    compress: bool,
}

impl Rotation {
    pub fn parse(text: &str) -> Result<Rotation, String> {
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| format!("improperly formatted log rotation config: {error}"))?;
        let serde_json::Value::Object(fields) = value else {
            return Err("invalid log rotation config: want a JSON object".to_owned());
        };
        // Go's JSON takes names in any case.
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        serde_json::from_value(serde_json::Value::Object(fields))
            .map_err(|error| format!("invalid log rotation config: {error}"))
    }

    fn max_bytes(&self) -> u64 {
        match self.maxsize {
            0 => DEFAULT_MIB * MIB,
            size => size.saturating_mul(MIB),
        }
    }

    fn zone(&self) -> TimeZone {
        match self.localtime {
            true => TimeZone::system(),
            false => TimeZone::UTC,
        }
    }
}

pub(super) struct Rotating {
    path: PathBuf,
    rotation: Rotation,
    max_bytes: u64,
    file: File,
    size: u64,
    /// Held by who looks after the backups, which takes long when they are compressed.
    cleaning: Arc<Mutex<()>>,
}

impl Rotating {
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Rotating> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Rotating {
            path: path.to_owned(),
            max_bytes: rotation.max_bytes(),
            rotation,
            file,
            size,
            cleaning: Arc::default(),
        })
    }

    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mode = self.file.metadata()?.mode();
        let now = Timestamp::now().to_zoned(self.rotation.zone());
        let backup = backup_name(&self.path, now.datetime());
        fs::rename(&self.path, backup)?;
        self.file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(mode)
            .open(&self.path)?;
        self.size = 0;
        let (path, rotation, cleaning) = (self.path.clone(), self.rotation.clone(), self.cleaning.clone());
        std::thread::Builder::new()
            .name("log-rotation".to_owned())
            .spawn(move || {
                let _alone = cleaning.lock();
                // What cannot be removed now is met again after the next rotation.
                clean(&path, &rotation, Timestamp::now()).ok();
            })?;
        Ok(())
    }
}

/// The file's name without its extension, and that.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = match path.extension() {
        Some(extension) => format!(".{}", extension.to_string_lossy()),
        None => String::new(),
    };
    (text(path.file_stem()), extension)
}

fn backup_name(path: &Path, time: DateTime) -> PathBuf {
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{}{extension}", time.strftime(NAME_FORMAT)))
}

/// When a file of this name was put aside; None for what is no backup.
fn put_aside_at(path: &Path, name: &str) -> Option<DateTime> {
    let (stem, extension) = parts(path);
    let name = name.strip_suffix(GZIPPED).unwrap_or(name);
    let time = name
        .strip_prefix(&stem)?
        .strip_prefix('-')?
        .strip_suffix(&extension)?;
    DateTime::strptime(NAME_FORMAT, time).ok()
}

/// Removes the backups that are too many or too old, and compresses the others.
fn clean(path: &Path, rotation: &Rotation, now: Timestamp) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."));
    let mut backups = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(time) = put_aside_at(path, &name) {
            backups.push((time, name));
        }
    }
    backups.sort();
    let age = SignedDuration::from_hours(24 * i64::try_from(rotation.maxage).unwrap_or(i64::MAX / 48));
    let oldest = now
        .checked_sub(age)
        .map_or(DateTime::MIN, |time| time.to_zoned(rotation.zone()).datetime());
    let kept = match rotation.maxbackups {
        0 => usize::MAX,
        count => count,
    };
    for (newer, (time, name)) in backups.iter().rev().enumerate() {
        let file = folder.join(name);
        if newer >= kept || (rotation.maxage > 0 && *time < oldest) {
            fs::remove_file(file)?;
        } else if rotation.compress && !name.ends_with(GZIPPED) {
            compress(&file)?;
        }
    }
    Ok(())
}

/// The original goes only once the compressed one is whole.
fn compress(file: &Path) -> io::Result<()> {
    let compressed = PathBuf::from(format!("{}{GZIPPED}", file.display()));
    let mut from = File::open(file)?;
    let to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(from.metadata()?.mode())
        .open(&compressed)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    let written = io::copy(&mut from, &mut encoder).and_then(|_| encoder.finish()?.sync_all());
    match written {
        Ok(()) => fs::remove_file(file),
        Err(error) => {
            fs::remove_file(compressed)?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_none_of_its_lines_is_lost() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("deeper/etcd.log");
        let rotation = Rotation::parse(r#"{"maxSize": 1, "maxbackups": 5}"#).unwrap();
        let mut log = Rotating::open(&path, rotation.clone()).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..1024 {
            log.write(&line).unwrap();
        }
        assert_eq!(names(path.parent().unwrap()), ["etcd.log"]);
        // One that is opened again goes on where it was.
        let mut log = Rotating::open(&path, rotation).unwrap();
        log.write(&line).unwrap();
        let found = names(path.parent().unwrap());
        let [backup, current] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(
            put_aside_at(&path, backup).is_some() && current == "etcd.log",
            "{found:?}"
        );
        let size = |name: &str| fs::metadata(path.with_file_name(name)).unwrap().len();
        assert_eq!((size(backup), size(current)), (MIB, 1024));
    }

    #[test]
    fn backups_go_by_number_and_age_and_the_rest_is_compressed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("etcd.log");
        let day = |day: i8| jiff::civil::date(2026, 11, day).at(12, 0, 0, 125_000_000);
        for number in 20..28 {
            fs::write(backup_name(&path, day(number)), format!("day {number}")).unwrap();
        }
        for stranger in ["etcd.log", "etcd-notes.log", "other-2026-11-20T12-00-00.125.log"] {
            fs::write(folder.path().join(stranger), "").unwrap();
        }
        let rotation = Rotation::parse(r#"{"maxage": 4, "maxbackups": 3, "compress": true}"#).unwrap();
        let now = day(28).to_zoned(TimeZone::UTC).unwrap().timestamp();
        clean(&path, &rotation, now).unwrap();
        let strangers = ["etcd-notes.log", "etcd.log", "other-2026-11-20T12-00-00.125.log"];
        let kept = [25, 26, 27].map(|day| format!("etcd-2026-11-{day}T12-00-00.125.log.gz"));
        let mut wanted: Vec<String> = strangers.map(str::to_owned).into_iter().chain(kept).collect();
        wanted.sort();
        assert_eq!(names(folder.path()), wanted);
        let mut text = String::new();
        let packed = File::open(folder.path().join("etcd-2026-11-27T12-00-00.125.log.gz")).unwrap();
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "day 27");
        // Age alone, and compressed ones count.
        let rotation = Rotation::parse(r#"{"maxage": 2}"#).unwrap();
        clean(&path, &rotation, now).unwrap();
        assert_eq!(names(folder.path()).len(), strangers.len() + 2);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(
            Rotation::parse("{")
                .unwrap_err()
                .starts_with("improperly formatted")
        );
        assert!(
            Rotation::parse(r#"{"maxsize": true}"#)
                .unwrap_err()
                .starts_with("invalid log")
        );
        assert_eq!(Rotation::parse("{}").unwrap().max_bytes(), 100 * MIB);
    }
}
