//! Reads what `compare` kept, and says which rows meet the bar: three times the rival's rate or a third of its CPU, and half its p99, and a
//! third of its memory.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// What `compare` prints when a run had an error.
const FAILED: &str = "failed";
const RATE_OR_CPU: f64 = 3.0;
const P99: f64 = 2.0;
const RESIDENT: f64 = 3.0;

/// Where a row's figures stand among its words.
const RATE: usize = 3;
const P50: usize = 5;
const P99_AT: usize = 8;
const CPU: usize = 14;
const RESIDENT_AT: usize = 17;
const COLUMNS: [usize; 5] = [RATE, P50, P99_AT, CPU, RESIDENT_AT];

/// Of one row: each rival's figures, summed over the turns, and how many turns those were.
type Rows = BTreeMap<(usize, String), BTreeMap<usize, ([f64; 5], f64)>>;

/// The first rival in the file is ours, the second the one to beat.
pub fn print(path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (rivals, rows) = read(&text);
    ensure!(rivals.len() >= 2, "{}: fewer than two rivals", path.display());
    ensure!(
        !text.lines().any(|line| line == FAILED),
        "{}: a run failed: what it has is no comparison",
        path.display()
    );
    println!(
        "# {} beside {}: mean of the turns; ratios above 1 are in favour of {}",
        rivals[0], rivals[1], rivals[0]
    );
    println!(
        "# bar: (rate x{RATE_OR_CPU} or cpu /{RATE_OR_CPU}) and p99 /{P99} and resident /{RESIDENT}; p99 of fewer than 100 operations means little"
    );
    let (mut met, mut all) = (0, 0);
    for ((_, row), of) in &rows {
        let (Some(ours), Some(theirs)) = (mean(of.get(&0)), mean(of.get(&1))) else {
            println!("{row:<29} was measured with only one of the two");
            continue;
        };
        let [rate, _, p99, cpu, resident] = ours;
        let [rate2, _, p992, cpu2, resident2] = theirs;
        let (faster, cheaper) = (rate / rate2, cpu2 / cpu.max(0.1));
        let (prompter, smaller) = (p992 / p99.max(0.001), resident2 / resident);
        let misses: Vec<&str> = [
            (faster < RATE_OR_CPU && cheaper < RATE_OR_CPU, "rate and cpu"),
            (prompter < P99, "p99"),
            (smaller < RESIDENT, "resident"),
        ]
        .into_iter()
        .filter_map(|(missed, what)| missed.then_some(what))
        .collect();
        all += 1;
        met += usize::from(misses.is_empty());
        let verdict = match misses.is_empty() {
            true => "meets".to_owned(),
            false => format!("misses {}", misses.join(", ")),
        };
        println!(
            "{row:<29} rate {rate:>8.0} {rate2:>8.0} x{faster:<5.1} cpu {cpu:>7.1} {cpu2:>7.1} us x{cheaper:<5.1} p99 {p99:>7.2} {p992:>7.2} ms x{prompter:<5.1} resident {resident:>6.1} {resident2:>6.1} MiB x{smaller:<5.1} {verdict}"
        );
    }
    println!("# {met} of {all} rows meet the bar");
    Ok(())
}

fn read(text: &str) -> (Vec<String>, Rows) {
    let (mut rivals, mut rows, mut order) = (Vec::new(), Rows::new(), Vec::new());
    let mut rival = 0;
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("== ") {
            let name = header.split(',').next().unwrap_or_default().to_owned();
            rival = rivals.iter().position(|known| *known == name).unwrap_or_else(|| {
                rivals.push(name);
                rivals.len() - 1
            });
            continue;
        }
        let Some((row, figures)) = figures(line) else {
            continue;
        };
        let place = order.iter().position(|known| *known == row).unwrap_or_else(|| {
            order.push(row.clone());
            order.len() - 1
        });
        let (sums, turns) = rows.entry((place, row)).or_default().entry(rival).or_default();
        sums.iter_mut()
            .zip(figures)
            .for_each(|(sum, figure)| *sum += figure);
        *turns += 1.0;
    }
    (rivals, rows)
}

fn figures(line: &str) -> Option<(String, [f64; 5])> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if !words.get(RATE)?.ends_with("/s") {
        return None;
    }
    let number = |place: usize| words.get(place)?.trim_end_matches("/s").parse().ok();
    let mut figures = [0.0; 5];
    for (figure, place) in figures.iter_mut().zip(COLUMNS) {
        *figure = number(place)?;
    }
    let row = format!("{:<15} {:>5} {:>6}", words[0], words[1], words[2]);
    Some((row, figures))
}

fn mean(of: Option<&([f64; 5], f64)>) -> Option<[f64; 5]> {
    of.map(|(sums, turns)| sums.map(|sum| sum / turns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_a_rival_are_averaged_for_each_row() {
        let row = |rate: f64| {
            format!(
                "put 1 256 {rate}/s p50 1.0 ms p99 2.0 ms max 3.0 ms cpu 4.0 us resident 5.0 MiB peak 6.0 MiB client 7.0 us"
            )
        };
        let text = format!(
            "# head\n== a, turn 1: x\n{}\n== b, turn 1: y\n{}\n== a, turn 2: x\n{}\n",
            row(10.0),
            row(3.0),
            row(20.0)
        );
        let (rivals, rows) = read(&text);
        assert_eq!(rivals, ["a", "b"]);
        let of = rows.values().next().unwrap();
        assert_eq!(mean(of.get(&0)), Some([15.0, 1.0, 2.0, 4.0, 5.0]));
        assert_eq!(mean(of.get(&1)), Some([3.0, 1.0, 2.0, 4.0, 5.0]));
    }
}
