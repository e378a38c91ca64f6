//! Amounts by topology domain: one number for each value of a node label.

use std::sync::Arc;

use crate::nodes::Row;
use crate::nodes::labels::{ABSENT, LabelColumn};

/// One number per value of the label `key`.
#[derive(Clone)]
pub struct Domains {
    pub column: Arc<LabelColumn>,
    amounts: Vec<i64>,
}

impl Domains {
    pub fn new(column: Arc<LabelColumn>) -> Self {
        Self {
            amounts: vec![0; column.values()],
            column,
        }
    }

    /// Adds to the domain of the row; a row without the label has none.
    pub fn add(&mut self, row: Row, amount: i64) {
        let id = self.column.get(row);
        if id != ABSENT {
            self.amounts[id as usize] += amount;
        }
    }

    pub fn has_domain(&self, row: Row) -> bool {
        self.column.get(row) != ABSENT
    }

    /// The amount in the row's domain. `None` if the row has no such label.
    pub fn get(&self, row: Row) -> Option<i64> {
        let id = self.column.get(row);
        (id != ABSENT).then(|| self.amounts[id as usize])
    }

    /// The amount of a value by its id.
    pub fn amount(&self, id: usize) -> i64 {
        self.amounts[id]
    }

    pub fn any_non_zero(&self) -> bool {
        self.amounts.iter().any(|a| *a != 0)
    }
}
