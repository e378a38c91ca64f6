//! The output formats of etcdutl, byte for byte.

use component_base::flags::Flags;
use serde_json::json;

use crate::command::Failure;

/// One answer: its cells as a table shows them, its lines as `fields` shows them, and itself as JSON.
pub struct Answer {
    pub headers: &'static [&'static str],
    pub cells: Vec<String>,
    pub fields: Vec<(&'static str, String)>,
    pub json: Vec<(&'static str, serde_json::Value)>,
}

/// Refuses a format before anything is done.
pub fn check(flags: &Flags) -> Result<(), Failure> {
    match flags.string("write-out") {
        "simple" | "fields" | "json" | "table" => Ok(()),
        "protobuf" => Err(Failure::bad_feature("protobuf not supported as output format")),
        _ => Err(Failure::bad_feature("unsupported output format")),
    }
}

pub fn print(flags: &Flags, answer: &Answer) {
    match flags.string("write-out") {
        "fields" => {
            for (name, value) in &answer.fields {
                println!("{name:?} : {value}");
            }
        }
        "json" => println!("{}", json_text(&answer.json)),
        "table" => print!("{}", table(answer.headers, &answer.cells)),
        _ => println!("{}", answer.cells.join(", ")),
    }
}

/// In the order of the fields, as Go writes a struct.
fn json_text(fields: &[(&'static str, serde_json::Value)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}:{value}", json!(name)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// One row under centred capitals, its cells to the right.
fn table(headers: &[&str], cells: &[String]) -> String {
    let widths: Vec<usize> = headers
        .iter()
        .zip(cells)
        .map(|(header, cell)| header.len().max(cell.len()))
        .collect();
    let rule = line(
        "+",
        &widths
            .iter()
            .map(|width| "-".repeat(width + 2))
            .collect::<Vec<_>>(),
    );
    let header = headers
        .iter()
        .zip(&widths)
        .map(|(header, width)| format!(" {} ", centred(&header.to_uppercase(), *width)));
    let row = cells
        .iter()
        .zip(&widths)
        .map(|(cell, width)| format!(" {cell:>width$} "));
    [
        rule.clone(),
        line("|", &header.collect::<Vec<_>>()),
        rule.clone(),
        line("|", &row.collect::<Vec<_>>()),
        rule,
    ]
    .concat()
}

fn line(edge: &str, parts: &[String]) -> String {
    format!("{edge}{}{edge}\n", parts.join(edge))
}

/// The odd blank goes to the right, as the original's table writer has it.
fn centred(text: &str, width: usize) -> String {
    let left = (width - text.len()) / 2;
    format!(
        "{}{text}{}",
        " ".repeat(left),
        " ".repeat(width - text.len() - left)
    )
}

/// Sizes as people read them, in powers of 1000.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut power, mut scale) = (0, 1.0);
    while bytes as f64 / scale >= 1000.0 {
        power += 1;
        scale *= 1000.0;
    }
    let value = (bytes as f64 / scale * 10.0 + 0.5).floor() / 10.0;
    match value < 10.0 {
        true => format!("{value:.1} {}", UNITS[power]),
        false => format!("{value:.0} {}", UNITS[power]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_gos_humanize_shows_them() {
        let shown: Vec<String> = [0, 9, 10, 999, 1000, 20480, 24576, 1_048_576, 82_854_982]
            .map(human_bytes)
            .into();
        assert_eq!(
            shown,
            [
                "0 B", "9 B", "10 B", "999 B", "1.0 kB", "20 kB", "25 kB", "1.0 MB", "83 MB"
            ]
        );
    }

    #[test]
    fn a_table_is_drawn_as_the_originals() {
        let cells = ["7f6ee5b7", "4", "3", "25 kB"].map(str::to_owned);
        assert_eq!(
            table(&["hash", "revision", "total keys", "total size"], &cells),
            "+----------+----------+------------+------------+\n\
             |   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE |\n\
             +----------+----------+------------+------------+\n\
             | 7f6ee5b7 |        4 |          3 |      25 kB |\n\
             +----------+----------+------------+------------+\n"
        );
    }
}
