//! etcd's flags of logging.

use std::path::Path;

use parking_lot::Mutex;
use tracing::Level;

use super::journal::{self, Journal};
use super::output::{self, Sink};
use super::rotate::{Rotating, Rotation};
use super::{DEBUG_VERBOSITY, Format};
use crate::flags::Flags;

const DEFAULT: &str = "default";
const STDERR: &str = "stderr";
const STDOUT: &str = "stdout";
const JOURNAL: &str = "systemd/journal";
const FILE_SCHEME: &str = "file://";

/// Format, verbosity, and the least level that is written: None for none.
pub(crate) struct Settings {
    pub format: Format,
    pub verbosity: u32,
    pub level: Option<Level>,
}

/// What the flags say, once their outputs are open.
pub(crate) fn begin(flags: &Flags) -> Result<Settings, String> {
    if flags.string("logger") != "zap" {
        return Err(format!("unknown logger option {:?}", flags.string("logger")));
    }
    let (verbosity, level) = level(flags.string("log-level"))?;
    let format = match flags.string("log-format") {
        "json" => Format::Zap,
        "console" => Format::Console,
        other => {
            return Err(format!(
                "unknown log format: {other:?}, supported values: json, console"
            ));
        }
    };
    output::set(sinks(flags)?);
    Ok(Settings {
        format,
        verbosity,
        level,
    })
}

fn level(name: &str) -> Result<(u32, Option<Level>), String> {
    Ok(match name {
        "debug" => (DEBUG_VERBOSITY, Some(Level::TRACE)),
        "info" => (0, Some(Level::INFO)),
        "warn" => (0, Some(Level::WARN)),
        "error" => (0, Some(Level::ERROR)),
        "dpanic" | "panic" | "fatal" => (0, None),
        other => {
            return Err(format!(
                "unrecognized level: {other:?}; --log-level is debug, info, warn, error, panic or fatal"
            ));
        }
    })
}

fn sinks(flags: &Flags) -> Result<Vec<Sink>, String> {
    let outputs = flags.strings("log-outputs");
    if outputs.len() > 1 {
        for alone in [DEFAULT, JOURNAL] {
            if outputs.iter().any(|output| output == alone) {
                return Err(format!(
                    "multi logoutput for {alone:?} is not supported: --log-outputs names it alone, or others"
                ));
            }
        }
    }
    let is_file = |output: &&String| ![DEFAULT, STDERR, STDOUT, JOURNAL].contains(&output.as_str());
    let rotation = match flags.bool("enable-log-rotation") {
        false => None,
        true if outputs.iter().filter(is_file).count() != 1 => {
            return Err(
                "--log-outputs requires a single file path when --enable-log-rotation is set".to_owned(),
            );
        }
        true => Some(Rotation::parse(flags.string("log-rotation-config-json"))?),
    };
    outputs
        .iter()
        .map(|output| sink(output, rotation.as_ref()))
        .collect()
}

fn sink(output: &str, rotation: Option<&Rotation>) -> Result<Sink, String> {
    let opened = match output {
        DEFAULT | STDERR => return Ok(Sink::Stderr),
        STDOUT => return Ok(Sink::Stdout),
        JOURNAL => Journal::connect(Path::new(journal::SOCKET), "etcd").map(Sink::Journal),
        _ => {
            let path = Path::new(output.strip_prefix(FILE_SCHEME).unwrap_or(output));
            match rotation {
                None => Sink::file(path),
                Some(rotation) => {
                    Rotating::open(path, rotation.clone()).map(|file| Sink::Rotating(Mutex::new(file)))
                }
            }
        }
    };
    opened.map_err(|error| format!("--log-outputs: cannot open {output}: {error}"))
}
