//! "Did you mean this?": names at most two edits away, or that begin with what was typed.

const MAX_DISTANCE: usize = 2;

pub fn suggestions<'a>(typed: &str, names: &[&'a str]) -> Vec<&'a str> {
    let typed = typed.to_lowercase();
    let near = |name: &str| distance(&typed, name) <= MAX_DISTANCE || name.starts_with(&typed);
    names
        .iter()
        .copied()
        .filter(|name| near(&name.to_lowercase()))
        .collect()
}

/// Levenshtein's, over characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
