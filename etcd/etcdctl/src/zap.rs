//! Log lines on stderr as upstream's default zap logger writes them.

use std::io::{self, Write as _};

use crate::go::json::{Object, string};

/// Where a line says it comes from: logger name and caller, both of the original.
#[derive(Clone, Copy)]
pub struct Source {
    pub logger: &'static str,
    pub caller: &'static str,
}

impl Source {
    pub const fn new(logger: &'static str, caller: &'static str) -> Self {
        Source { logger, caller }
    }
}

pub fn info(source: Source, message: &str, fields: &[(&str, String)]) {
    write("info", source, message, fields);
}

pub fn warn(source: Source, message: &str, fields: &[(&str, String)]) {
    write("warn", source, message, fields);
}

/// The caller ends the process with code 1.
pub fn fatal(source: Source, message: &str, fields: &[(&str, String)]) {
    write("fatal", source, message, fields);
}

/// Field values are JSON already.
fn write(level: &str, source: Source, message: &str, fields: &[(&str, String)]) {
    let head = Object::new()
        .always("level", string(level))
        .always("ts", string(&now()))
        .text("logger", source.logger)
        .always("caller", string(source.caller))
        .always("msg", string(message));
    let line = fields
        .iter()
        .fold(head, |line, (name, value)| line.always(name, value))
        .end();
    // Nobody is left to tell when stderr is gone.
    writeln!(io::stderr(), "{line}").ok();
}

fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string()
}
