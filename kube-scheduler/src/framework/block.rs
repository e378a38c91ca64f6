//! Rows on their way through the filters.

use crate::nodes::Row;

/// What a filter says about a row. The bits are positions in [`super::NodeFilter::reasons`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// Removing pods from the node may help.
    Unschedulable(u64),
    /// Removing pods does not help.
    Unresolvable(u64),
}

/// A row that a filter refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub row: Row,
    /// The position of the filter in this decision.
    pub by: u8,
    pub resolvable: bool,
    pub reasons: u64,
}

/// Rows that every filter so far let pass.
pub struct Block<'a> {
    pub rows: &'a mut Vec<Row>,
    pub refused: &'a mut Vec<Refusal>,
    pub by: u8,
}

impl Block<'_> {
    pub fn retain(&mut self, mut judge: impl FnMut(Row) -> Verdict) {
        let (refused, by) = (&mut *self.refused, self.by);
        self.rows.retain(|row| {
            let (resolvable, reasons) = match judge(*row) {
                Verdict::Pass => return true,
                Verdict::Unschedulable(reasons) => (true, reasons),
                Verdict::Unresolvable(reasons) => (false, reasons),
            };
            refused.push(Refusal {
                row: *row,
                by,
                resolvable,
                reasons,
            });
            false
        });
    }

    /// For filters with one reason: refuse what does not pass, whatever pods are removed.
    pub fn require(&mut self, mut passes: impl FnMut(Row) -> bool) {
        self.retain(|row| {
            if passes(row) {
                Verdict::Pass
            } else {
                Verdict::Unresolvable(1)
            }
        });
    }
}
