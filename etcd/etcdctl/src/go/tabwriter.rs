//! `text/tabwriter` as the help texts use it (tab width 8, padding 1, padded with tabs) and as urfave's do (with blanks).

/// How cells are padded.
#[derive(Clone, Copy)]
pub enum Pad {
    /// To the next multiple of eight, with tabs.
    Tabs,
    /// To the widest cell and this many blanks.
    Blanks(usize),
}

const TAB: usize = 8;

/// A cell ends with a tab; the text after a line's last tab is not padded. A column is a run of lines that have its cell.
pub fn format(text: &str, pad: Pad) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|_| Vec::new()).collect();
    measure(&lines, &mut widths, 0, 0..lines.len(), pad);
    let rows = lines
        .iter()
        .zip(&widths)
        .map(|(cells, widths)| row(cells, widths, pad));
    rows.collect::<Vec<_>>().join("\n")
}

fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    column: usize,
    range: std::ops::Range<usize>,
    pad: Pad,
) {
    let mut start = range.start;
    while start < range.end {
        let has_cell = |line: &Vec<&str>| column + 1 < line.len();
        if !has_cell(&lines[start]) {
            start += 1;
            continue;
        }
        let block = lines[start..range.end]
            .iter()
            .take_while(|line| has_cell(line))
            .count();
        let cells = lines[start..start + block]
            .iter()
            .map(|line| line[column].chars().count());
        let width = match (cells.max().unwrap_or(0), pad) {
            (widest, Pad::Tabs) => (widest + 1).div_ceil(TAB) * TAB,
            (widest, Pad::Blanks(padding)) => widest + padding,
        };
        widths[start..start + block]
            .iter_mut()
            .for_each(|row| row.push(width));
        measure(lines, widths, column + 1, start..start + block, pad);
        start += block;
    }
}

fn row(cells: &[&str], widths: &[usize], pad: Pad) -> String {
    let mut text = String::new();
    for (index, cell) in cells.iter().enumerate() {
        text.push_str(cell);
        let Some(width) = widths.get(index) else { continue };
        let gap = width.saturating_sub(cell.chars().count());
        match pad {
            Pad::Tabs => text.push_str(&"\t".repeat(gap.div_ceil(TAB))),
            Pad::Blanks(_) => text.push_str(&" ".repeat(gap)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_end_with_lines_that_lack_them() {
        let text = "A:\n  alarm disarm\tx\n  get\ty\n\nB:\n  -h, --help\tz\n";
        assert_eq!(
            format(text, Pad::Tabs),
            "A:\n  alarm disarm\tx\n  get\t\ty\n\nB:\n  -h, --help\tz\n"
        );
        assert_eq!(format("a\tb\nccc\td", Pad::Blanks(2)), "a    b\nccc  d");
    }
}
