//! `-w table`: members and endpoints in a frame, as `tablewriter` draws it.

use std::io::{self, Write};

use super::rows::{self, Rows};
use super::{Printed, Reply, Unsupported};

/// Cells with wider texts break at blanks.
const MAX_CELL_WIDTH: usize = 30;
/// What a word wider than the cell costs a line.
const OVERFLOW_PENALTY: usize = 100_000;

pub fn print(reply: &Reply, out: &mut dyn Write) -> Printed {
    let rows = match reply {
        Reply::MemberList(answer) => rows::members(answer),
        Reply::EndpointHealth(list) => rows::health(list),
        Reply::EndpointStatus(list) => rows::status(list),
        Reply::EndpointHashKv(list) => rows::hashes(list),
        _ => return Err(Unsupported::Format("table")),
    };
    Ok(draw(&rows, out)?)
}

fn draw(rows: &Rows, out: &mut dyn Write) -> io::Result<()> {
    let header: Vec<Vec<String>> = rows.header.iter().map(|text| wrap(&title(text))).collect();
    let body: Vec<Vec<Vec<String>>> = rows
        .rows
        .iter()
        .map(|row| row.iter().map(|cell| wrap(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = std::iter::once(&header)
            .chain(&body)
            .filter_map(|row| row.get(column));
        cells
            .flatten()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    frame(&widths, out)?;
    cells(&header, &widths, center, out)?;
    frame(&widths, out)?;
    body.iter().try_for_each(|row| cells(row, &widths, right, out))?;
    if !body.is_empty() {
        frame(&widths, out)?;
    }
    Ok(())
}

fn frame(widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
    let cells: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    writeln!(out, "+{}+", cells.join("+"))
}

fn cells(
    row: &[Vec<String>],
    widths: &[usize],
    pad: fn(&str, usize) -> String,
    out: &mut dyn Write,
) -> io::Result<()> {
    let height = row.iter().map(Vec::len).max().unwrap_or(0).max(1);
    for line in 0..height {
        let texts = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| pad(cell.get(line).map_or("", String::as_str), *width));
        writeln!(out, "| {} |", texts.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

fn center(text: &str, width: usize) -> String {
    let gap = width.saturating_sub(text.chars().count());
    let left = gap / 2;
    format!("{}{text}{}", " ".repeat(left), " ".repeat(gap - left))
}

/// Header cells: capitals, blanks for underscores.
fn title(text: &str) -> String {
    text.replace('_', " ").to_uppercase()
}

fn wrap(text: &str) -> Vec<String> {
    let lines = text.split('\n').map(|line| line.chars().count());
    let limit = lines.max().unwrap_or(0).min(MAX_CELL_WIDTH);
    let words: Vec<&str> = text.split_whitespace().collect();
    break_lines(&words, limit)
}

/// The breaks that leave the squares of the gaps at the lines' ends least, but for the last line's.
fn break_lines(words: &[&str], limit: usize) -> Vec<String> {
    let count = words.len();
    let lengths: Vec<usize> = words.iter().map(|word| word.chars().count()).collect();
    let width = |from: usize, to: usize| lengths[from..to].iter().sum::<usize>() + (to - from - 1);
    // best[i]: the cost of breaking the words from i on, and where the first line ends.
    let mut best = vec![(0, count); count + 1];
    for from in (0..count).rev() {
        if width(from, count) <= limit {
            continue;
        }
        best[from].0 = usize::MAX;
        for to in from + 1..=count {
            let width = width(from, to);
            let gap = limit.abs_diff(width);
            let overflow = if width > limit { OVERFLOW_PENALTY } else { 0 };
            let cost = (gap * gap + overflow).saturating_add(best[to].0);
            if cost < best[from].0 {
                best[from] = (cost, to);
            }
        }
    }
    let mut lines = Vec::new();
    let mut from = 0;
    while from < count {
        let to = best[from].1;
        lines.push(words[from..to].join(" "));
        from = to;
    }
    lines
}
